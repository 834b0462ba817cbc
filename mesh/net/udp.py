"""The UDP shell: one socket, read in bursts, written without waiting.

A datagram may be lost, so nothing here waits for the network on behalf of the core: what the
kernel will not take at once is queued up to OUTBOX_MAX and then dropped, counted. Errors of
single datagrams (EPERM from a firewall, ENOBUFS, ECONNREFUSED from an earlier one, EMSGSIZE,
no route, an interface that is gone) are counted and survived: memberlist lost its sight to such an
error (its PR 242). What the kernel itself dropped is read from the socket where Linux tells it.

An IPv6 socket that also takes IPv4 speaks of such peers by their IPv4 address, as everybody else does.
"""

import collections
import errno
import ipaddress
import socket
import struct

import attrs
import trio

from mesh.effects import Address

BURST_MAX = 64
"""Datagrams returned per wake-up: enough to drain a burst before timers fire, and still bounded."""
OUTBOX_MAX = 512
"""Datagrams that wait for the kernel's buffer; a full one means that the network is the bottleneck."""
READ_BYTES = 2048
"""Largest datagram read; more than the codec accepts, so that an oversized one is seen as such."""
KERNEL_BUFFER_BYTES = 2**20
"""Asked of the kernel in each direction: about 700 full datagrams, a burst of rumours."""

MAPPED = "::ffff:"
"""What precedes an IPv4 address where an IPv6 socket means it (RFC 4291, section 2.5.5.2)."""

_SO_MEMINFO = 55
_DROPS_AT = 8
"""Linux: socket option and index of the count of datagrams that found the receive buffer full."""

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)


@attrs.frozen
class UdpStatistics:
    """Counters since the socket was bound."""

    received: int
    sent: int
    dropped: int
    """Not sent because the outbox was full."""
    send_errors: dict[str, int]
    """By errno name."""
    receive_errors: dict[str, int]
    """By errno name."""
    overflowed: int = 0
    """Datagrams that the kernel dropped because nobody read them in time."""


class Udp:
    """A bound UDP socket. `run` must be running for queued datagrams to leave."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a bound socket."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        self._socket = sock
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._outbox: collections.deque[tuple[Address, bytes]] = collections.deque()
        self._queued = trio.Event()
        self._received = 0
        self._sent = 0
        self._dropped = 0
        self._send_errors: collections.Counter[str] = collections.Counter()
        self._receive_errors: collections.Counter[str] = collections.Counter()

    @classmethod
    def bind(cls, host: str, port: int) -> "Udp":
        """Bind to a numeric address; port 0 lets the kernel choose. Raises OSError when it is taken."""
        version = ipaddress.ip_address(host).version
        sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        return cls(sock)

    @property
    def address(self) -> Address:
        """Where it is bound."""
        host, port = self._socket.getsockname()[:2]
        return (host, port)

    def overflowed(self) -> int:
        """How many datagrams the kernel has dropped for want of room; 0 where it does not say."""
        try:
            told = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS_AT + 1))
        except OSError:
            return 0
        return struct.unpack(f"{_DROPS_AT + 1}I", told)[_DROPS_AT] if len(told) == 4 * (_DROPS_AT + 1) else 0

    def statistics(self) -> UdpStatistics:
        """Counters, as a snapshot."""
        return UdpStatistics(
            self._received,
            self._sent,
            self._dropped,
            dict(self._send_errors),
            dict(self._receive_errors),
            self.overflowed(),
        )

    def fileno(self) -> int:
        """The descriptor of the socket, to wait on."""
        return self._socket.fileno()

    async def receive_many(self) -> list[tuple[bytes, Address]]:
        """Wait for datagrams; return 1 to BURST_MAX of them, with where each came from.

        Raises trio.ClosedResourceError when the socket is closed meanwhile.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            burst = self.receive_nowait()
            if burst:
                return burst

    def send(self, address: Address, data: bytes) -> None:
        """Send one datagram, or queue it, or drop it; never wait, never raise for the network's faults."""
        if self._outbox or not self._try_send(address, data):
            self._enqueue(address, data)

    async def run(self) -> None:
        """Send what is queued as the kernel takes it, until cancelled."""
        while True:
            await self._queued.wait()
            await trio.lowlevel.wait_writable(self._socket)
            self._flush()

    def close(self) -> None:
        """Close the socket; whoever waits on it gets trio.ClosedResourceError."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def receive_nowait(self) -> list[tuple[bytes, Address]]:
        """Return what has arrived, at most BURST_MAX datagrams, perhaps none."""
        burst: list[tuple[bytes, Address]] = []
        for _ in range(BURST_MAX):
            try:
                data, source = self._socket.recvfrom(READ_BYTES)
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    break
                self._receive_errors[_name(error)] += 1
                continue
            burst.append((data, (source[0].removeprefix(MAPPED) if self._is_ipv6 else source[0], source[1])))
        self._received += len(burst)
        return burst

    def _try_send(self, address: Address, data: bytes) -> bool:
        """Whether the datagram is dealt with, sent or failed; False when the kernel's buffer is full."""
        if self._is_ipv6 and ":" not in address[0]:
            address = (MAPPED + address[0], address[1])
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return False
            self._send_errors[_name(error)] += 1
            return True
        self._sent += 1
        return True

    def _enqueue(self, address: Address, data: bytes) -> None:
        if len(self._outbox) >= OUTBOX_MAX:
            self._dropped += 1
            return
        self._outbox.append((address, data))
        self._queued.set()

    def _flush(self) -> None:
        while self._outbox and self._try_send(*self._outbox[0]):
            self._outbox.popleft()
        if not self._outbox:
            self._queued = trio.Event()


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown")
