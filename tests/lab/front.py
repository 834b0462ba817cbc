"""The front of a node: the address that it advertises, held by the lab, through which all of its traffic goes.

    node A --udp--> front of B --network--> (from the front of A) --udp--> node B
    node A --tcp--> front of B ==network==> node B

Each node hears others from their fronts, so that no node learns where another really is.
Who sends to a front is asked of the kernel (`tests.lab.sockets`). What befalls datagrams
is decided by the simulator's network (`sim.network`), rules, chances and all; streams
follow the law of `sim.pipe`: in order, a lost segment comes a retransmission later and
holds up those behind it, and a cut is silent until it heals.

One thing differs from a wire: a dial to a front is answered by the lab's own kernel, so that a
dial through a cut succeeds and then hears nothing.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from mesh.effects import Address
from node.listen import bind_gossip
from node.values import HostPort
from sim.network import Path
from sim.pipe import RETRANSMIT_S
from tests.lab.wire import Wire

if TYPE_CHECKING:
    from tests.lab.machine import Machine

READ_BYTES = 64 * 1024
BURST_MAX = 256
"""Datagrams read at one wake-up, so that other tasks get their turn."""

SEGMENTS_MAX = 256
"""Segments under way in one direction of a stream; then the writer waits."""

BACKLOG = 128

Segment = tuple[float, bytes | None]
"""When it arrives, and its bytes; None is the stream's end."""


@attrs.define(eq=False)
class Front:
    """The sockets of one node's advertised address."""

    machine: "Machine"
    wire: Wire
    identify: Callable[[str, Address, Address | None], "Machine | None"]
    """Names the sender by protocol, its end and ours."""
    datagrams: socket.socket = attrs.field(init=False)
    address: Address = attrs.field(init=False)
    _listener: socket.socket | None = attrs.field(init=False)
    _scopes: dict[trio.CancelScope, tuple["Machine", "Machine"]] = attrs.field(init=False, factory=dict)
    """Of each connection, and who is at its ends."""

    def __attrs_post_init__(self) -> None:
        both = bind_gossip(HostPort("127.0.0.1", 0), False, "the front")
        self.datagrams, self._listener = both.datagrams, both.links
        self.address = self.datagrams.getsockname()
        self.datagrams.setblocking(False)

    def close(self) -> None:
        """Give the address up."""
        self.datagrams.close()
        self.shut()

    # -- datagrams --------------------------------------------------------------------------------

    async def carry_datagrams(self) -> None:
        """Hand each datagram that comes in to the network; runs until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self.datagrams)
            for _ in range(BURST_MAX):
                try:
                    data, source = self.datagrams.recvfrom(READ_BYTES)
                except OSError:
                    break
                self._forward(source, data)

    def _forward(self, source: Address, data: bytes) -> None:
        sender = self.identify("udp", source, None)
        if sender is not None:
            self.wire.send(sender, self.address, data)

    def deliver(self, target: Address, data: bytes) -> bool:
        """Send a datagram to where a node really is, as from the node of this front."""
        try:
            self.datagrams.sendto(data, target)
        except OSError:
            return False
        return True

    # -- streams ----------------------------------------------------------------------------------

    async def carry_streams(self) -> None:
        """Accept and carry connections while the node listens; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if self._listener is None:
                    await self.wire.moved()
                    continue
                try:
                    with trio.move_on_after(1.0):
                        await trio.lowlevel.wait_readable(self._listener)
                    self._listener.setblocking(False)
                    connection, peer = self._listener.accept()
                except (OSError, trio.ClosedResourceError):
                    continue
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
                nursery.start_soon(self._connected, stream, peer)

    def shut(self) -> None:
        """Refuse connections from now on: nobody listens there any more."""
        if self._listener is not None:
            trio.lowlevel.notify_closing(self._listener)
            self._listener.close()
            self._listener = None

    def open(self) -> None:
        """Listen again, at the same address."""
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.address)
            listener.listen(BACKLOG)
            self._listener = listener
            self.wire.move()

    def reset(self, machine: "Machine") -> None:
        """End every connection here that a machine is part of, as its kernel does when it starts."""
        for scope, ends in tuple(self._scopes.items()):
            if machine in ends:
                scope.cancel()

    async def _connected(self, near: trio.SocketStream, peer: Address) -> None:
        async with near:
            dialler = self.identify("tcp", peer, self.address)
            if dialler is None or self.machine.bind is None:
                _set_reset(near)
                return
            try:
                far = await trio.open_tcp_stream(*self.machine.bind)
            except OSError:
                _set_reset(near)
                return
            async with far:
                await self._joined(near, far, dialler)

    async def _joined(self, near: trio.SocketStream, far: trio.SocketStream, dialler: "Machine") -> None:
        with trio.CancelScope() as scope:
            self._scopes[scope] = (dialler, self.machine)
            try:
                await self._carry(near, far, dialler)
            finally:
                del self._scopes[scope]
        if scope.cancelled_caught:
            _set_reset(near)
            _set_reset(far)

    async def _carry(self, near: trio.SocketStream, far: trio.SocketStream, dialler: "Machine") -> None:
        for stream in (near, far):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            for source, target, ends in (
                (near, far, (dialler, self.machine)),
                (far, near, (self.machine, dialler)),
            ):
                send, receive = trio.open_memory_channel[Segment](SEGMENTS_MAX)
                nursery.start_soon(self._read, source, ends, send)
                nursery.start_soon(self._write, target, receive, nursery.cancel_scope)

    async def _read(
        self,
        stream: trio.SocketStream,
        ends: tuple["Machine", "Machine"],
        out: trio.MemorySendChannel[Segment],
    ) -> None:
        path = self.wire.path(ends[0].name, ends[1].name)
        arrive_at = 0.0
        while True:
            try:
                data = await stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data and not ends[0].powered:
                await trio.sleep_forever()
            arrive_at = max(arrive_at, await self._passes(path))
            await out.send((arrive_at, bytes(data) or None))
            if not data:
                return

    async def _passes(self, path: Path) -> float:
        """Wait until a segment passes; return when it arrives."""
        while path.condition.tcp_cut or path.condition.clog:
            self.wire.blame(path, "tcp_cut")
            self.wire.blame(path, "clog")
            await self.wire.moved()
        lost_s = RETRANSMIT_S if self.wire.loses(path) else 0.0
        return self.wire.now() + self.wire.time_on(path) + lost_s

    async def _write(
        self, stream: trio.SocketStream, segments: trio.MemoryReceiveChannel[Segment], both: trio.CancelScope
    ) -> None:
        async for arrive_at, data in segments:
            await trio.sleep(max(0.0, arrive_at - self.wire.now()))
            if data is None:
                both.cancel()
                return
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                await trio.sleep_forever()  # the other direction hears of it, and ends both


def _set_reset(stream: trio.SocketStream) -> None:
    """Let the close that follows be a reset."""
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
