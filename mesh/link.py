"""A link: many flights on one byte stream, as a pure machine of bytes in and bytes out.

Theory of operation. Frames are queued per flight and cut into pieces of at most
64 KiB; pieces of different flights leave in turn, so a large prompt delays
nobody's tokens. Frames of one flight keep their order. Flight 0 carries what is
not a flight's (hello, echo, gossip) and always goes first. Incoming pieces are
joined again, within a bound. The first frame on each side must be HELLO; both
speak the lower of the two protocol versions. The machine knows no socket: the
trio shell and the simulator move its bytes.
"""

import struct
from collections import deque

import attrs

from mesh.errors import DecodeError, LimitError
from mesh.frames import BODY_BYTES_MAX, Frame, Hello, Kind

PROTOCOL = 1
"""The version that this code speaks."""

HEADER = struct.Struct(">BBHIQ")
"""kind u8, flags u8, attempt u16, length u32, flight u64."""

MORE = 0x01
"""Flag: another piece of the same frame follows."""

PIECE_BYTES = 64 * 1024
"""Largest piece: about 0.5 ms of a gigabit link, so a flight waits no longer for its turn."""

OUTBOX_BYTES_MAX = 64 * 2**20
"""Most bytes that wait to be written; a peer that reads slower than that is lost."""

JOINING_BYTES_MAX = 64 * 2**20
"""Most bytes of incomplete bodies that one peer may make us hold."""


@attrs.define
class LinkStatistics:
    """Counters since the link was opened."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    unknown: int = 0
    """Frames of a type that this version does not know; skipped."""


@attrs.define
class Link:
    """One end of a link. `hello` is what this end says of itself."""

    hello: Hello
    peer: Hello | None = None
    """What the other end said of itself; None until its HELLO has come."""
    statistics: LinkStatistics = attrs.Factory(LinkStatistics)
    _queues: dict[int, deque[bytes]] = attrs.field(init=False, factory=dict)
    _outbox_bytes: int = attrs.field(init=False, default=0)
    _buffer: bytearray = attrs.field(init=False, factory=bytearray)
    _joining: dict[tuple[int, int, int], bytearray] = attrs.field(init=False, factory=dict)
    _joining_bytes: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.send(self.hello.frame())

    @property
    def outbox_bytes(self) -> int:
        """Bytes that wait to be taken by `output`."""
        return self._outbox_bytes

    def send(self, frame: Frame) -> None:
        """Queue a frame. Raises LimitError, with nothing queued, if the outbox or the body is too large."""
        size = len(frame.body)
        if size > BODY_BYTES_MAX:
            raise LimitError(f"a body of `{size}` bytes exceeds {BODY_BYTES_MAX}")
        if self._outbox_bytes + size > OUTBOX_BYTES_MAX:
            raise LimitError(f"more than {OUTBOX_BYTES_MAX} bytes wait for the peer to read")
        queue = self._queues.setdefault(frame.flight, deque())
        for start in range(0, max(size, 1), PIECE_BYTES):
            self._enqueue(queue, frame, start)
        self.statistics.frames_out += 1

    def _enqueue(self, queue: deque[bytes], frame: Frame, start: int) -> None:
        piece = frame.body[start : start + PIECE_BYTES]
        flags = MORE if start + len(piece) < len(frame.body) else 0
        queue.append(HEADER.pack(frame.kind, flags, frame.attempt, len(piece), frame.flight) + piece)
        self._outbox_bytes += HEADER.size + len(piece)

    def output(self, bytes_max: int = 4 * PIECE_BYTES) -> bytes:
        """Take the next bytes to write: at least one piece if any waits, about `bytes_max` at most."""
        taken: list[bytes] = []
        size = 0
        while self._queues and size < bytes_max:
            piece = self._next_piece()
            taken.append(piece)
            size += len(piece)
        self._outbox_bytes -= size
        self.statistics.bytes_out += size
        return b"".join(taken)

    def _next_piece(self) -> bytes:
        flight = 0 if 0 in self._queues else next(iter(self._queues))
        queue = self._queues.pop(flight)
        piece = queue.popleft()
        if queue:
            self._queues[flight] = queue
        return piece

    def input(self, data: bytes) -> list[Frame]:
        """Take bytes that were read; return the frames that they complete.

        Raises DecodeError if the peer breaks the protocol: the link must then be closed.
        """
        self.statistics.bytes_in += len(data)
        self._buffer += data
        frames = []
        offset = 0
        while (end := self._piece_end(offset)) is not None:
            frame = self._piece(offset, end)
            offset = end
            if frame is not None:
                frames.extend(self._admit(frame))
        del self._buffer[:offset]
        return frames

    def _piece_end(self, offset: int) -> int | None:
        if len(self._buffer) - offset < HEADER.size:
            return None
        length = HEADER.unpack_from(self._buffer, offset)[3]
        if length > PIECE_BYTES:
            raise DecodeError(f"a piece of `{length}` bytes exceeds {PIECE_BYTES}")
        end = offset + HEADER.size + length
        return end if end <= len(self._buffer) else None

    def _piece(self, offset: int, end: int) -> Frame | None:
        kind, flags, attempt, _, flight = HEADER.unpack_from(self._buffer, offset)
        body = bytes(self._buffer[offset + HEADER.size : end])
        key = (kind, attempt, flight)
        if flags & MORE or key in self._joining:
            body = self._join(key, body, last=not flags & MORE)
            if body is None:
                return None
        return Frame(kind, flight, attempt, body)

    def _join(self, key: tuple[int, int, int], piece: bytes, last: bool) -> bytes | None:
        joined = self._joining.setdefault(key, bytearray())
        joined += piece
        self._joining_bytes += len(piece)
        if len(joined) > BODY_BYTES_MAX or self._joining_bytes > JOINING_BYTES_MAX:
            raise DecodeError(f"a body exceeds {BODY_BYTES_MAX} bytes, or all of them {JOINING_BYTES_MAX}")
        if not last:
            return None
        del self._joining[key]
        self._joining_bytes -= len(joined)
        return bytes(joined)

    def _admit(self, frame: Frame) -> list[Frame]:
        self.statistics.frames_in += 1
        if self.peer is None:
            self._greet(frame)
        elif frame.kind not in _KINDS:
            self.statistics.unknown += 1
            return []
        return [frame]

    def _greet(self, frame: Frame) -> None:
        if frame.kind != Kind.HELLO:
            raise DecodeError(f"the first frame is of type {frame.kind}, not HELLO")
        self.peer = Hello.read(frame)

    @property
    def protocol(self) -> int:
        """The version both ends speak; only once `peer` is known."""
        assert self.peer is not None
        return min(PROTOCOL, self.peer.protocol)


_KINDS = frozenset(Kind)
