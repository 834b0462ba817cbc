"""The telling of a streamed answer: the choices' logs become events as they grow.

A resumable answer gives each event an id, its cursor (`node.http.cursor`), and is told from any cursor on: the
logs are read from their beginning, and what has been told before is gone through in silence, for what tool
calls and offsets come of a text depends on all that came before. There one chunk makes at most one event, so
that no two events share an id.
"""

import attrs
import trio

from mesh.flight import Chunk
from node.errors import RequestError
from node.gateway import FlightFailed, Stream
from node.http import openai
from node.http.cursor import Cursor, Mark, split
from node.http.errors import error_object, of_failure
from node.http.message import EVENTS, Headers
from node.http.openai import Events
from node.http.schema import Ask
from node.http.server import Exchange
from node.http.tools import Reader

STREAM_HEADERS: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""Ask proxies on the way to pass events on as they come."""


async def serve_stream(
    exchange: Exchange,
    ask: Ask,
    streams: list[Stream],
    events: Events,
    headers: Headers,
    cursor: Cursor | None = None,
) -> None:
    """Answer with events, as the choices' logs grow; from `cursor` on and with ids, if there is one."""
    await exchange.start(200, EVENTS, (*headers, *STREAM_HEADERS))
    teller = Teller(exchange, ask, events, cursor)
    if len(streams) == 1:
        await teller.tell(streams[0], 0)
    else:
        async with trio.open_nursery() as nursery:
            for index, stream in enumerate(streams):
                nursery.start_soon(teller.tell, stream, index, nursery.cancel_scope)
    await teller.end(streams)
    await exchange.end()


@attrs.define
class Teller:
    """Writes the events of all choices of one answer, one at a time."""

    exchange: Exchange
    ask: Ask
    events: Events
    cursor: Cursor | None = None
    """How far the answer has been told, if its events have ids."""
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

    async def end(self, streams: list[Stream]) -> None:
        """Write what ends the answer. An error has no id: who comes back after it is told it again."""
        if self.failed is not None:
            self.exchange.kept = False
            await self.exchange.write(openai.error_event(error_object(self.failed)))
            return
        total = b""
        if self.ask.include_usage and (self.cursor is None or not self.cursor.last):
            total = self._last("u") + self.events.total(await usage_of(self.ask, streams))
        await self.exchange.write(total + self._last("d") + openai.DONE)

    def _last(self, last: str) -> bytes:
        if self.cursor is None:
            return b""
        self.cursor.last = last
        return self.cursor.line()

    # -- one choice -------------------------------------------------------------------------------

    async def _follow(self, stream: Stream, index: int) -> None:
        told = self.cursor.marks[index] if self.cursor is not None else None
        opening = await self._opening(stream, index)
        if told is None:
            await self._write(index, [(opening, Mark())])
        reader, at = reader_of(self.ask), Mark()
        while chunks := await stream.chunks():
            pieces = []
            for chunk in chunks:
                pieces.append(self._piece(reader, stream, index, chunk, at, told))
                at = at.after(chunk)
            await self._write(index, pieces)
        if told is None or not told.ended:
            await self._write(index, self._ending(reader, stream, index, at))

    async def _opening(self, stream: Stream, index: int) -> bytes:
        if not self.ask.echo:
            return self.events.role(index) if self.ask.chat else b""
        said = openai.extension(stream.worker, stream.moves, 0)
        if self.ask.parameters.prompt_logprobs is not None:
            await stream.begun()
        return self.events.text(index, echo_of(self.ask, index), said, stream.prompt)

    def _piece(
        self, reader: Reader | None, stream: Stream, index: int, chunk: Chunk, at: Mark, told: Mark | None
    ) -> tuple[bytes, Mark]:
        """Return what of a chunk that begins at `at` is new to the client, and where that leads."""
        end = at.after(chunk)
        before, rest = split(chunk, at, told) if told is not None else (None, chunk)
        if before is not None:
            self._told(reader, stream, index, before)  # in silence
        return (b"" if rest is None else self._told(reader, stream, index, rest)), end

    def _told(self, reader: Reader | None, stream: Stream, index: int, chunk: Chunk) -> bytes:
        if reader is None:
            return self.events.tokens(index, chunk, said_of(stream, chunk))
        made = reader.feed(chunk.text)
        return self.events.told(index, made, chunk, said_of(stream, chunk), merged=self.cursor is not None)

    def _ending(
        self, reader: Reader | None, stream: Stream, index: int, at: Mark
    ) -> list[tuple[bytes, Mark]]:
        rest = [] if reader is None else reader.finish()
        called = reader is not None and reader.calls > 0 and not reader.named
        said, end = said_of(stream), attrs.evolve(at, ended=True)
        if self.cursor is not None:
            return [(self.events.finish(index, stream.finish, said, called, rest), end)]
        held = self.events.told(index, rest, None, said) if rest else b""
        return [(held + self.events.finish(index, stream.finish, said, called), end)]

    async def _write(self, index: int, pieces: list[tuple[bytes, Mark]]) -> None:
        if not any(event for event, _ in pieces):
            return
        async with self._lock:
            if self.cursor is None:
                await self.exchange.write(b"".join(event for event, _ in pieces))
            else:
                await self.exchange.write(b"".join(self._numbered(self.cursor, index, pieces)))

    def _numbered(self, cursor: Cursor, index: int, pieces: list[tuple[bytes, Mark]]) -> list[bytes]:
        """Give events their ids. What makes none is told with the next that does."""
        numbered = []
        for event, mark in pieces:
            if event:
                cursor.marks[index] = mark
                numbered.append(cursor.line() + event)
        return numbered


def reader_of(ask: Ask) -> Reader | None:
    """Return what reads tool calls from an answer; None if there can be none."""
    return None if ask.tools is None else Reader(ask.tools.names, ask.tools.named)


def echo_of(ask: Ask, index: int) -> str:
    """Return the text that a choice begins with if the client wants its prompt back."""
    return ask.prompts[index // ask.n].text if ask.echo else ""


def said_of(stream: Stream, chunk: Chunk | None = None) -> str:
    """Write who serves a stream now, and how many tokens have been told with this chunk."""
    tokens = chunk.position + len(chunk.ids) if chunk else stream.delivered
    return openai.extension(stream.worker, stream.moves, tokens, stream.policy_changed)


async def usage_of(ask: Ask, streams: list[Stream]) -> openai.Usage:
    """Sum up the tokens of a request."""
    firsts = [await stream.started() for stream in streams[:: ask.n]]
    return openai.usage_of(firsts, [stream.delivered for stream in streams])
