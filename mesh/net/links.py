"""Links over TCP: moves bytes between sockets and the core, and decides nothing.

Each connection has a reader and a writer task. The writer takes bytes from the core
when it can write them, so that pieces of different flights leave in the core's
order. The socketpair to an engine is carried by the same two tasks.
"""

import socket
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import trio

from mesh.effects import Address, LinkId

READ_BYTES = 256 * 1024
"""Most bytes taken from a socket at once."""

WRITE_BYTES = 256 * 1024
"""About how many bytes are taken from the core at once."""

DIAL_TIMEOUT_S = 2.0
"""A connection that is not made by then has failed; far above any round trip."""

ACCEPT_PAUSE_S = 0.1
"""How long to wait for file descriptors before connections are accepted again."""

Step = Callable[..., Any]


class LinkCore(Protocol):
    """The inputs and the output of `node.core` that concern links."""

    def link_accepted(self, now: Any) -> Any: ...
    def link_opened(self, now: Any, link: LinkId) -> Any: ...
    def link_data(self, now: Any, link: LinkId, data: bytes) -> Any: ...
    def link_lost(self, now: Any, link: LinkId, reason: str) -> Any: ...
    def link_output(self, link: LinkId, bytes_max: int) -> bytes: ...


@attrs.define
class _Carried:
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    flush: trio.Event = attrs.Factory(trio.Event)


@attrs.define
class LinkShell:
    """All sockets of links. `step(method, ...)` is the driver's."""

    core: LinkCore
    step: Step
    nursery: trio.Nursery
    _carried: dict[LinkId, _Carried] = attrs.field(init=False, factory=dict)

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
                    stream = await trio.open_tcp_stream(*address)
            except (OSError, trio.TooSlowError) as error:
                self._lost(link, f"cannot connect: {error.__class__.__name__}")
                return
            _tune(stream)
            self.step(self.core.link_opened, link)
            await self._carry(link, carried, stream)

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
        carried = _Carried()
        link = self._accept(carried)
        with carried.scope:
            await self._carry(link, carried, stream)

    def _accept(self, carried: _Carried) -> LinkId:
        carried.flush.set()
        link = self.step(self.core.link_accepted)
        self._carried[link] = carried
        return link

    async def attach(self, link: LinkId, stream: trio.SocketStream) -> None:
        """Carry a link over a stream that is already open (an engine's) until its end."""
        carried = self._carried[link] = _Carried()
        carried.flush.set()
        with carried.scope:
            await self._carry(link, carried, stream)

    # -- bytes ------------------------------------------------------------------------------------

    async def _carry(self, link: LinkId, carried: _Carried, stream: trio.SocketStream) -> None:
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link, carried, stream)
                reason = await self._read(link, stream)
                self._lost(link, reason)
                nursery.cancel_scope.cancel()
        finally:
            self._carried.pop(link, None)

    async def _read(self, link: LinkId, stream: trio.SocketStream) -> str:
        while True:
            try:
                data = await stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return "connection reset"
            if not data:
                return "connection closed"
            self.step(self.core.link_data, link, data)

    async def _write(self, link: LinkId, carried: _Carried, stream: trio.SocketStream) -> None:
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


def _tune(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
