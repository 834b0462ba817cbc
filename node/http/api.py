"""The OpenAI routes: a checked request becomes flights, and their logs become an answer."""

import time
from collections.abc import Callable
from typing import Any

import attrs
import trio

from mesh.attempt import Attempt
from mesh.flight import Chunk
from node.errors import RequestError
from node.gateway import FlightFailed, Gateway, ModelCard, Stream
from node.http import document, openai, schema
from node.http.errors import error_object, of_failure
from node.http.message import EVENTS, Headers, Request, Response, header_value
from node.http.openai import CHAT, COMPLETION, Choice, Events
from node.http.router import Route
from node.http.schema import Ask
from node.http.seeds import choice_seed, draw
from node.http.server import Exchange
from node.http.tools import Reader

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
        await self._answer(request, exchange, schema.chat(document.read(request.body)))

    async def completions(self, request: Request, exchange: Exchange) -> None:
        """Go on from a prompt."""
        await self._answer(request, exchange, schema.completion(document.read(request.body)))

    async def _answer(self, request: Request, exchange: Exchange, ask: Ask) -> None:
        created = int(self.clock())
        streams: list[Stream] = []
        try:
            for attempt in attempts(ask, created, trace_of(request)):
                streams.append(self.gateway.submit(attempt))  # noqa: PERF401 - one may raise; the others must be closed
            for stream in streams:
                await stream.started()
            started = await streams[0].started()
            form = CHAT if ask.chat else COMPLETION
            logprobs = ask.parameters.logprobs is not None
            events = Events(
                form, streams[0].id, created, ask.model, started.model_digest, logprobs, ask.include_usage
            )
            serve = serve_stream if ask.stream else serve_whole
            await serve(exchange, ask, streams, events)
        finally:
            for stream in streams:
                stream.close()


def attempts(ask: Ask, created: int, trace: str) -> list[Attempt]:
    """Return one attempt per choice, prompt by prompt."""
    seed = draw() if ask.seed is None else ask.seed
    return [
        Attempt(
            ask.model,
            (prompt,),
            ask.parameters,
            choice_seed(seed, choice),
            choice=index * ask.n + choice,
            rendered_at=created,
            grammar=ask.grammar,
            trace=trace,
        )
        for index, prompt in enumerate(ask.prompts)
        for choice in range(ask.n)
    ]


def trace_of(request: Request) -> str:
    """Return the client's own id of the request, as far as it is plain."""
    trace = request.header(b"x-request-id")[:TRACE_CHARACTERS_MAX]
    return trace if trace.isascii() and trace.isprintable() else ""


def echo_of(ask: Ask, index: int) -> str:
    """Return the text that a choice begins with if the client wants its prompt back."""
    return ask.prompts[index // ask.n].text if ask.echo else ""


async def serve_whole(exchange: Exchange, ask: Ask, streams: list[Stream], events: Events) -> None:
    """Wait for every choice, then answer."""
    choices = tuple([await gather(stream, index, ask, events) for index, stream in enumerate(streams)])
    body = openai.answer(events, choices, await usage_of(ask, streams))
    await exchange.send(Response(200, body, headers=headers_of(streams[0], ask)))


def reader_of(ask: Ask) -> Reader | None:
    """Return what reads tool calls from an answer; None if there can be none."""
    return None if ask.tools is None else Reader(ask.tools.names, ask.tools.named)


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


async def serve_stream(exchange: Exchange, ask: Ask, streams: list[Stream], events: Events) -> None:
    """Answer with events, as the choices' logs grow."""
    await exchange.start(200, EVENTS, (*headers_of(streams[0], ask), *STREAM_HEADERS))
    teller = Teller(exchange, ask, events)
    if len(streams) == 1:
        await teller.tell(streams[0], 0)
    else:
        async with trio.open_nursery() as nursery:
            for index, stream in enumerate(streams):
                nursery.start_soon(teller.tell, stream, index, nursery.cancel_scope)
    if teller.failed is not None:
        exchange.kept = False
        await exchange.write(openai.error_event(error_object(teller.failed)))
    else:
        total = events.total(await usage_of(ask, streams)) if ask.include_usage else b""
        await exchange.write(total + openai.DONE)
    await exchange.end()


STREAM_HEADERS: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""Ask proxies on the way to pass events on as they come."""


@attrs.define
class Teller:
    """Writes the events of all choices of one answer, one at a time."""

    exchange: Exchange
    ask: Ask
    events: Events
    failed: RequestError | None = None
    _lock: trio.Lock = attrs.Factory(trio.Lock)

    async def tell(self, stream: Stream, index: int, others: trio.CancelScope | None = None) -> None:
        """Follow one choice to its end; if it fails, stop the others."""
        try:
            await self._follow(stream, index)
        except FlightFailed as error:
            async with self._lock:  # so that no other is cancelled within an event
                self.failed = self.failed or of_failure(error.failure)
                if others is not None:
                    others.cancel()

    async def _follow(self, stream: Stream, index: int) -> None:
        opening = self.events.role(index) if self.ask.chat else b""
        if self.ask.echo:
            said = openai.extension(stream.worker, stream.moves, 0)
            if self.ask.parameters.prompt_logprobs is not None:
                await stream.begun()
            opening = self.events.text(index, echo_of(self.ask, index), said, stream.prompt)
        await self._write(opening)
        reader = reader_of(self.ask)
        while chunks := await stream.chunks():
            await self._write(b"".join(self._told(reader, stream, index, chunk) for chunk in chunks))
        rest = b"" if reader is None else self.events.told(index, reader.finish(), None, said_of(stream))
        called = reader is not None and reader.calls > 0 and not reader.named
        await self._write(rest + self.events.finish(index, stream.finish, said_of(stream), called))

    def _told(self, reader: Reader | None, stream: Stream, index: int, chunk: Chunk) -> bytes:
        if reader is None:
            return self.events.tokens(index, chunk, said_of(stream, chunk))
        return self.events.told(index, reader.feed(chunk.text), chunk, said_of(stream, chunk))

    async def _write(self, data: bytes) -> None:
        if data:
            async with self._lock:
                await self.exchange.write(data)


def said_of(stream: Stream, chunk: Chunk | None = None) -> str:
    """Write who serves a stream now, and how many tokens have been told with this chunk."""
    tokens = chunk.position + len(chunk.ids) if chunk else stream.delivered
    return openai.extension(stream.worker, stream.moves, tokens, stream.policy_changed)


async def usage_of(ask: Ask, streams: list[Stream]) -> openai.Usage:
    """Sum up the tokens of a request."""
    firsts = [await stream.started() for stream in streams[:: ask.n]]
    return openai.usage_of(firsts, [stream.delivered for stream in streams])


def headers_of(stream: Stream, ask: Ask) -> Headers:
    """Name the request, the worker, and the fields that were ignored."""
    ignored = ", ".join(ask.ignored[:IGNORED_MAX])
    return (
        (b"x-request-id", b"%016x" % stream.id),
        (b"x-inferno-worker", header_value(stream.worker)),
        *(((b"x-inferno-ignored", header_value(ignored)),) if ignored else ()),
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
