"""Links over TCP: moves bytes between sockets and the core, and decides nothing.

Each connection has a reader and a writer task. The writer takes bytes from the core
when it can write them, so that pieces of different flights leave in the core's
order. The socketpair to an engine is carried by the same two tasks.

Where the mesh has a key, connections are TLS 1.3 both ways (`mesh.net.handshake`), the core is told whom
the peer's certificate names, and whoever speaks clear is refused. The first byte tells which it is.
"""

import collections
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from mesh.bucket import Bucket
from mesh.effects import Address, LinkId, Report
from mesh.net.handshake import (
    CLIENT_HELLO,
    HANDSHAKE_TIMEOUT_S,
    HANDSHAKES_BURST,
    HANDSHAKES_MAX,
    HANDSHAKES_PER_S,
    HandshakeError,
    first_byte,
    secure,
)

if TYPE_CHECKING:
    from mesh.net.credentials import Credentials

READ_BYTES = 256 * 1024
"""Most bytes taken from a socket at once."""

WRITE_BYTES = 256 * 1024
"""About how many bytes are taken from the core at once."""

DIAL_TIMEOUT_S = 2.0
"""A connection that is not made, and secured, by then has failed; far above any round trip."""

ACCEPT_PAUSE_S = 0.1
"""How long to wait for file descriptors before connections are accepted again."""

TELL_S = 10.0
"""One report for each reason of a refusal in this time; all of them are counted."""

QUIET = ("closed", "busy")
"""Refusals that are counted and not reported: a port scan, and our own bounds."""

Step = Callable[..., Any]


class LinkCore(Protocol):
    """The inputs and the output of `node.core` that concern links."""

    def link_accepted(self, now: Any) -> Any: ...
    def link_verified(self, now: Any, link: LinkId, node: str) -> Any: ...
    def link_opened(self, now: Any, link: LinkId) -> Any: ...
    def link_data(self, now: Any, link: LinkId, data: bytes) -> Any: ...
    def link_lost(self, now: Any, link: LinkId, reason: str) -> Any: ...
    def link_output(self, link: LinkId, bytes_max: int) -> bytes: ...


@attrs.define
class _Carried:
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    flush: trio.Event = attrs.Factory(trio.Event)


def _tell_nobody(_report: Report) -> None:
    """Keep it to ourselves."""


@attrs.define
class LinkShellStatistics:
    """Counters since the process began."""

    secured: int = 0
    """Handshakes that succeeded."""
    refused: collections.Counter[str] = attrs.field(factory=collections.Counter)
    """Connections that were closed before they became links, by reason."""


@attrs.define
class LinkShell:
    """All sockets of links. `step(method, ...)` is the driver's."""

    core: LinkCore
    step: Step
    nursery: trio.Nursery
    credentials: "Credentials | None" = None
    """What links are secured with; clear links if None."""
    report: Callable[[Report], None] = _tell_nobody
    _statistics: LinkShellStatistics = attrs.field(init=False, factory=LinkShellStatistics)
    _handshakes: Bucket = attrs.field(init=False, factory=lambda: Bucket(HANDSHAKES_PER_S, HANDSHAKES_BURST))
    _told_at: dict[str, float] = attrs.field(init=False, factory=dict)
    _shaking: int = attrs.field(init=False, default=0)
    """Accepted connections in their handshake."""
    _carried: dict[LinkId, _Carried] = attrs.field(init=False, factory=dict)

    def statistics(self) -> LinkShellStatistics:
        """Counters, as a snapshot."""
        return attrs.evolve(self._statistics, refused=self._statistics.refused.copy())

    # -- what the driver asks ---------------------------------------------------------------------

    def dial(self, link: LinkId, address: Address) -> None:
        """Connect in the background; the core hears how it went."""
        carried = self._carried[link] = _Carried()
        self.nursery.start_soon(self._dial, link, carried, address)

    def flush(self, link: LinkId) -> None:
        """Bytes wait: wake the writer."""
        carried = self._carried.get(link)
        if carried is not None:
            carried.flush.set()

    def close(self, link: LinkId, reason: str) -> None:
        """Close at once; the core does not hear of it."""
        carried = self._carried.pop(link, None)
        if carried is not None:
            carried.scope.cancel()

    # -- connections ------------------------------------------------------------------------------

    async def _dial(self, link: LinkId, carried: _Carried, address: Address) -> None:
        with carried.scope:
            try:
                with trio.fail_after(DIAL_TIMEOUT_S):
                    stream, node = await self._connect(address)
            except HandshakeError as error:
                self._refuse(error.reason, f"{address[0]}:{address[1]}", str(error))
                self._lost(link, f"cannot connect: {error}")
                return
            except (OSError, trio.TooSlowError) as error:
                self._lost(link, _why_not(error))
                return
            if node:
                self.step(self.core.link_verified, link, node)
            self.step(self.core.link_opened, link)
            await self._carry(link, carried, stream)

    async def _connect(self, address: Address) -> tuple[trio.abc.Stream, str]:
        stream = await trio.open_tcp_stream(*address)
        _tune(stream)
        if self.credentials is None:
            return stream, ""
        try:
            return await self._secure(stream, self.credentials, accepting=False)
        except (HandshakeError, trio.Cancelled):
            await trio.aclose_forcefully(stream)
            raise

    async def serve(self, listener: trio.SocketListener) -> None:
        """Accept peers until cancelled; survives a lack of file descriptors."""
        while True:
            try:
                stream = await listener.accept()
            except OSError:
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            self.nursery.start_soon(self._accepted, stream)

    async def _accepted(self, stream: trio.SocketStream) -> None:
        _tune(stream)
        try:
            admitted = await self._admit(stream)
            if admitted is not None:
                carried = _Carried()
                link = self._accept(carried, admitted[1])
                with carried.scope:
                    await self._carry(link, carried, admitted[0])
        finally:
            await trio.aclose_forcefully(stream)

    async def _admit(self, stream: trio.SocketStream) -> tuple[trio.abc.Stream, str] | None:
        """Return the stream to carry and who the peer has proved to be, "" if nobody asked; or refuse it."""
        if self._shaking >= HANDSHAKES_MAX:
            self._statistics.refused["busy"] += 1
            return None
        self._shaking += 1
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                return await self._greet(stream)
        except HandshakeError as error:
            self._refuse(error.reason, _peer_of(stream), str(error))
        except trio.TooSlowError:
            self._statistics.refused["slow"] += 1
        finally:
            self._shaking -= 1
        return None

    async def _greet(self, stream: trio.SocketStream) -> tuple[trio.abc.Stream, str]:
        byte = await first_byte(stream)
        if byte is None:
            raise HandshakeError("closed", "it closed the connection before it said anything")
        if self.credentials is None and byte == CLIENT_HELLO:
            raise HandshakeError("tls", "it has a mesh key, and this node has none")
        if self.credentials is None:
            return stream, ""
        if byte != CLIENT_HELLO:
            raise HandshakeError("clear", "it has no mesh key: it speaks clear")
        if not self._handshakes.take(trio.current_time()):
            raise HandshakeError("busy", "too many connections at once")
        return await self._secure(stream, self.credentials, accepting=True)

    async def _secure(
        self, stream: trio.SocketStream, credentials: "Credentials", accepting: bool
    ) -> tuple[trio.abc.Stream, str]:
        secured = await secure(stream, credentials, accepting)
        self._statistics.secured += 1
        return secured

    def _refuse(self, reason: str, peer: str, message: str) -> None:
        self._statistics.refused[reason] += 1
        told_at = self._told_at.get(reason)
        if reason not in QUIET and (told_at is None or trio.current_time() - told_at >= TELL_S):
            self._told_at[reason] = trio.current_time()
            self.report(Report("link_refused", (("peer", peer), ("reason", reason), ("error", message))))

    def _accept(self, carried: _Carried, node: str) -> LinkId:
        carried.flush.set()
        link = self.step(self.core.link_accepted)
        self._carried[link] = carried
        if node:
            self.step(self.core.link_verified, link, node)
        return link

    async def attach(self, link: LinkId, stream: trio.SocketStream) -> None:
        """Carry a link over a stream that is already open (an engine's) until its end."""
        carried = self._carried[link] = _Carried()
        carried.flush.set()
        with carried.scope:
            await self._carry(link, carried, stream)

    # -- bytes ------------------------------------------------------------------------------------

    async def _carry(self, link: LinkId, carried: _Carried, stream: trio.abc.Stream) -> None:
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link, carried, stream)
                reason = await self._read(link, stream)
                self._lost(link, reason)
                nursery.cancel_scope.cancel()
        finally:
            self._carried.pop(link, None)

    async def _read(self, link: LinkId, stream: trio.abc.Stream) -> str:
        while True:
            try:
                data = await stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return "connection reset"
            if not data:
                return "connection closed"
            self.step(self.core.link_data, link, data)

    async def _write(self, link: LinkId, carried: _Carried, stream: trio.abc.Stream) -> None:
        while True:
            await carried.flush.wait()
            carried.flush = trio.Event()
            while data := self.core.link_output(link, WRITE_BYTES):
                try:
                    await stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    def _lost(self, link: LinkId, reason: str) -> None:
        if self._carried.pop(link, None) is not None:
            self.step(self.core.link_lost, link, reason)


def _peer_of(stream: trio.SocketStream) -> str:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "gone"
    return f"{host}:{port}"


def _tune(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why_not(error: OSError | trio.TooSlowError) -> str:
    """Why a connection failed; "refused" says that the machine answered, and nobody listens there."""
    group = error.__cause__
    causes = group.exceptions if isinstance(group, ExceptionGroup) else (error,)
    if all(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "refused"
    return f"cannot connect: {error.__class__.__name__}"
