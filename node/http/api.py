"""The OpenAI routes: a checked request becomes flights, and their logs become an answer."""

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import attrs

from mesh.claims import Claim
from mesh.flight import Chunk, Failure
from node.errors import RequestError
from node.gateway import FlightFailed, Gateway, ModelCard, Stream
from node.http import embeddings, openai
from node.http.cursor import Cursor
from node.http.message import EVENTS, Headers, Request, Response, header_value
from node.http.note import Note
from node.http.openai import CHAT, COMPLETION, Choice, Events
from node.http.router import Route
from node.http.schema import Ask
from node.http.seeds import draw
from node.http.server import Exchange
from node.http.teller import echo_of, reader_of, serve_stream, usage_of

TRACE_CHARACTERS_MAX = 128
"""Longest part of a client's own request id that is carried along."""


IGNORED_MAX = 16
"""Most ignored fields that an answer names."""


@attrs.frozen
class Api:
    """The routes under /v1, over a gateway."""

    gateway: Gateway
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    def routes(self) -> tuple[Route, ...]:
        """Return the table's rows."""
        return (
            Route("GET", "/v1/models", self.models),
            Route("GET", "/v1/models/{id}", self.model),
            Route("GET", "/v1/mesh", self.mesh),
            Route("POST", "/v1/chat/completions", self.chat, waits=True),
            Route("POST", "/v1/completions", self.completions, waits=True),
            Route("POST", "/v1/embeddings", self.embeddings, waits=True),
            Route("GET", "/v1/flights/{id}/events", self.events, waits=True),
        )

    def models(self, request: Request) -> Response:
        """List the models that the mesh serves or loads."""
        return _json({"object": "list", "data": [_card(card) for card in self.gateway.models()]})

    def model(self, request: Request, name: str) -> Response:
        """Describe one model."""
        for card in self.gateway.models():
            if card.name == name:
                return _json(_card(card))
        raise RequestError("model_not_found", f"no node of the mesh serves the model `{name:.200}`", "model")

    def mesh(self, request: Request) -> Response:
        """Describe the mesh as this node sees it; the page shows it."""
        ready, why = self.gateway.ready()
        return _json(
            {"name": self.gateway.name, "ready": ready, "why": why, "members": self.gateway.members()}
        )

    async def chat(self, request: Request, exchange: Exchange) -> None:
        """Answer a conversation."""
        await self._answer(request, exchange, chat=True)

    async def completions(self, request: Request, exchange: Exchange) -> None:
        """Go on from a prompt."""
        await self._answer(request, exchange, chat=False)

    async def embeddings(self, request: Request, exchange: Exchange) -> None:
        """Turn texts into vectors."""
        ask = embeddings.read(request.body)
        streams: list[Stream] = []
        try:
            for attempt in embeddings.attempts(ask, int(self.clock()), trace_of(request)):
                streams.append(self.gateway.submit(attempt))  # noqa: PERF401 - one may raise; the others must be closed
            vectors = [await vector_of(stream) for stream in streams]
            tokens = sum([(await stream.started()).prompt_tokens for stream in streams])
            body = embeddings.answer(ask, vectors, tokens)
            await exchange.send(Response(200, body, headers=named(streams[0])))
        finally:
            for stream in streams:
                stream.close()

    async def _answer(self, request: Request, exchange: Exchange, chat: bool) -> None:
        note = Note(chat, int(self.clock()), draw(), trace_of(request), request.body)
        ask = note.ask()
        if ask.seed is not None:
            note = attrs.evolve(note, seed=ask.seed)
        if ask.resumable:
            await self._answer_resumably(exchange, note, ask)
            return
        streams: list[Stream] = []
        try:
            for attempt in note.attempts(ask):
                streams.append(self.gateway.submit(attempt))  # noqa: PERF401 - one may raise; the others must be closed
            events = events_of(note, ask, streams[0].id, await all_started(streams))
            if ask.stream:
                await serve_stream(exchange, ask, streams, events, headers_of(streams[0], ask))
            else:
                await serve_whole(exchange, ask, streams, events)
        finally:
            for stream in streams:
                stream.close()

    async def _answer_resumably(self, exchange: Exchange, note: Note, ask: Ask) -> None:
        claim = await self._claim(note, ask)
        try:
            await self.gateway.covered(claim)
            await self._tell(exchange, claim, note, ask, Cursor.start(len(claim.flights)))
        finally:
            self.gateway.detach(claim)

    async def _claim(self, note: Note, ask: Ask) -> Claim:
        """Begin the flights of a request, and keep them for their client once all have been accepted."""
        streams: list[Stream] = []
        claim = None
        try:
            for attempt in note.attempts(ask):
                streams.append(self.gateway.submit(attempt, id=draw()))  # noqa: PERF401 - as above
            await all_started(streams)
            claim = Claim(streams[0].id, tuple(stream.id for stream in streams), note.encode())
            self.gateway.claim(claim)
        finally:
            if claim is None:
                for stream in streams:
                    stream.close()
        return claim

    async def _tell(self, exchange: Exchange, claim: Claim, note: Note, ask: Ask, cursor: Cursor) -> None:
        streams = [self.gateway.stream(flight) for flight in claim.flights]
        events = events_of(note, ask, claim.id, await all_started(streams))
        path = b"/v1/flights/%016x/events" % claim.id
        headers = (*headers_of(streams[0], ask), (b"x-inferno-events", path))
        await serve_stream(exchange, ask, streams, events, headers, cursor)

    async def events(self, request: Request, exchange: Exchange, id: str) -> None:
        """Go on with a resumable stream, after the event that the client got last."""
        claim = await self._recall(int(id, 16)) if FLIGHT_ID.fullmatch(id) else None
        if claim is None:
            raise RequestError("not_found", f"no resumable stream `{id:.40}` is kept any more")
        try:
            await self.gateway.covered(claim)
            note = Note.decode(claim.note)
            cursor = Cursor.read(after_of(request), len(claim.flights))
            if cursor.last == "d":
                await exchange.send(Response(204, b""))
            elif request.method == "HEAD":
                await exchange.send(Response(200, b"", EVENTS))
            else:
                await self._tell(exchange, claim, note, note.ask(), cursor)
        finally:
            self.gateway.detach(claim)

    async def _recall(self, id: int) -> Claim | None:
        """Read a claim that is held here, or take it over from wherever it is; None if nobody has it."""
        claim = self.gateway.attach(id)
        if claim is not None:
            return claim
        finding = await self.gateway.find(id)
        claim = self.gateway.attach(id)  # somebody else may have taken it over meanwhile, here
        if claim is not None or finding is None:
            return claim
        note = Note.decode(finding.charter.note)
        return self.gateway.reopen(id, finding, note.attempts(note.ask()))


QUERY_FIELDS_MAX = 16
FLIGHT_ID = re.compile(r"[0-9a-fA-F]{16}", re.ASCII)


async def vector_of(stream: Stream) -> bytes:
    """Wait for a flight's embedding. Raises FlightFailed."""
    while await stream.chunks():
        pass
    vector = stream.finish.vector if stream.finish is not None else b""
    if not vector:  # a worker that does not know the field
        raise FlightFailed(Failure("unsupported_parameter", f"`{stream.worker}` yields no embeddings yet"))
    return vector


async def all_started(streams: list[Stream]) -> str:
    """Wait until workers have accepted all choices; return the digest of the model. Raises FlightFailed."""
    started = [await stream.started() for stream in streams]
    return started[0].model_digest


def events_of(note: Note, ask: Ask, id: int, digest: str) -> Events:
    """Return what writes the events of an answer."""
    form = CHAT if ask.chat else COMPLETION
    logprobs = ask.parameters.logprobs is not None
    return Events(form, id, note.created, ask.model, digest, logprobs, ask.include_usage)


def after_of(request: Request) -> str:
    """Return the id of the event that a client got last: `after` of the query, or the header that browsers send."""
    try:
        named = parse_qs(request.query, max_num_fields=QUERY_FIELDS_MAX).get("after", ())
    except ValueError:
        raise RequestError("invalid_request", f"more than {QUERY_FIELDS_MAX} fields in the query") from None
    return named[0] if named else request.header(b"last-event-id")


def trace_of(request: Request) -> str:
    """Return the client's own id of the request, as far as it is plain."""
    trace = request.header(b"x-request-id")[:TRACE_CHARACTERS_MAX]
    return trace if trace.isascii() and trace.isprintable() else ""


async def serve_whole(exchange: Exchange, ask: Ask, streams: list[Stream], events: Events) -> None:
    """Wait for every choice, then answer."""
    choices = tuple([await gather(stream, index, ask, events) for index, stream in enumerate(streams)])
    body = openai.answer(events, choices, await usage_of(ask, streams))
    await exchange.send(Response(200, body, headers=headers_of(streams[0], ask)))


async def gather(stream: Stream, index: int, ask: Ask, events: Events) -> Choice:
    """Wait for one choice. Raises FlightFailed."""
    echo, reader = echo_of(ask, index), reader_of(ask)
    log: list[Chunk] = []
    while chunks := await stream.chunks():
        log += chunks
    text = echo + "".join(chunk.text for chunk in log)
    served = stream.worker, stream.moves, len(echo), stream.policy_changed, stream.prompt
    choice = Choice(index, text, stream.finish, tuple(log), *served)
    if reader is None:
        return choice
    told = [*reader.feed(text), *reader.finish()]
    message = openai.message_of(told, [events.call_id(index, event) for event in told])
    return attrs.evolve(choice, message=message, called=reader.calls > 0 and not reader.named)


def headers_of(stream: Stream, ask: Ask) -> Headers:
    """Name the request, the worker, and the fields that were ignored."""
    ignored = ", ".join(ask.ignored[:IGNORED_MAX])
    return (*named(stream), *(((b"x-inferno-ignored", header_value(ignored)),) if ignored else ()))


def named(stream: Stream) -> Headers:
    """Name the request and the worker."""
    return (
        (b"x-request-id", b"%016x" % stream.id),
        (b"x-inferno-worker", header_value(stream.worker)),
    )


def _json(value: Any) -> Response:
    return Response(200, openai.encode(value).encode())


def _card(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": 0,
        "owned_by": "inferno",
        "max_model_len": card.context_max,
        "inferno": {"digest": card.digest, "ready": card.ready, "nodes": card.nodes},
    }
