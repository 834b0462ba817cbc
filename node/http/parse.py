"""Bytes in, requests out: the framing of HTTP/1.1, pure.

Theory of operation. A request is a head and a body. The end of the head is found here and its meaning
in `node.http.head`; the bytes of the body are counted here, strictly. Every refusal ends the connection.

    IDLE     nothing of the next request has come
    HEAD     part of its head has
    LENGTH   a body of known length is coming
    SIZE, CHUNK, CHUNK_END, TRAILER   a chunked body is coming

`feed` takes bytes, `next` returns a complete request, None if more bytes are needed, or raises
RequestError, after which the parser is of no more use.
"""

import enum
import re

import attrs

from node.errors import RequestError
from node.http.head import (
    Head,
    body_length,
    check_headers,
    check_host,
    check_line,
    check_request_line,
    malformed,
    read_head,
    split_target,
)
from node.http.limits import Limits, exceeded
from node.http.message import Request

CHUNK_LINE_BYTES_MAX = 256
"""Longest size line of a chunk, extensions included; they are ignored, as RFC 9112 7.1.1 demands."""

CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e]*)?")
TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class Phase(enum.IntEnum):
    """What the parser waits for."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    LENGTH = enum.auto()
    SIZE = enum.auto()
    CHUNK = enum.auto()
    CHUNK_END = enum.auto()
    TRAILER = enum.auto()


@attrs.define
class Parser:
    """The read side of one connection."""

    limits: Limits
    phase: Phase = Phase.IDLE
    body: bytearray = attrs.field(factory=bytearray, init=False)
    """What has come of the current request's body."""
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)
    _head: Head | None = attrs.field(default=None, init=False)
    _left: int = attrs.field(default=0, init=False)
    """Bytes still to come of the body, or of the current chunk."""
    _continue: bool = attrs.field(default=False, init=False)
    _seen: int = attrs.field(default=0, init=False)
    """Bytes of an unfinished head that are whole lines already measured."""
    _lines: int = attrs.field(default=0, init=False)
    _size: int = attrs.field(default=0, init=False)
    _skipped: bool = attrs.field(default=False, init=False)

    @property
    def buffered(self) -> int:
        """Bytes taken in and not yet part of a request."""
        return len(self._buffer)

    @property
    def body_received(self) -> int | None:
        """Bytes of the current body so far; None while no body is due."""
        return None if self.phase in (Phase.IDLE, Phase.HEAD) else len(self.body)

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes from the connection. They are looked at by `next`."""
        self._buffer += data

    def take_continue(self) -> bool:
        """Return, once, whether the client waits for `100 Continue` before it sends its body."""
        wanted, self._continue = self._continue and not self.body, False
        return wanted

    def next(self) -> Request | None:
        """Return the next complete request, or None if more bytes are needed. Raises RequestError."""
        while True:
            phase = self.phase
            if not STEPS[phase](self):
                return None
            if self._head is not None and self.phase is Phase.IDLE:
                return self._complete()

    def _complete(self) -> Request:
        head, body = self._head, b""
        assert head is not None
        self._head = None
        self._continue = False
        if self.body:
            body = bytes(self.body)
            self.body.clear()
        path, query = split_target(head)
        return Request(head.method, path, query, head.headers, body, head.keep_alive, head.modern)

    def _idle(self) -> bool:
        if not self._skipped and self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]  # RFC 9112 2.2: one empty line before a request is forgiven
            self._skipped = True
        if not self._buffer or self._buffer == b"\r":
            return False
        self.phase = Phase.HEAD
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", max(0, self._seen - 2))
        if end < 0:
            self._measure()
            return False
        data = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        self._seen = self._lines = self._size = 0
        self._skipped = False
        self._begin_body(read_head(data, self.limits))
        return True

    def _measure(self) -> None:
        """Measure the whole lines of an unfinished head, and the start of the next."""
        while (end := self._buffer.find(b"\r\n", self._seen)) >= 0:
            line = bytes(self._buffer[self._seen : end])
            check_line(line, self.limits, first=self._lines == 0)
            if self._lines == 0:
                check_request_line(line)
            else:
                self._size = check_headers(self._size + len(line) + 2, self._lines, self.limits)
            self._lines += 1
            self._seen = end + 2
        rest = bytes(self._buffer[self._seen :]).removesuffix(b"\r")
        check_line(rest, self.limits, first=self._lines == 0)

    def _begin_body(self, head: Head) -> None:
        check_host(head)
        length = body_length(head)
        expect = head.headers.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            raise RequestError("expectation_failed", "the only expectation understood is `100-continue`")
        self._continue = expect is not None and length != 0 and head.modern
        self._head = head
        if length is None:
            self.phase = Phase.SIZE
        elif length == 0:
            self.phase = Phase.IDLE
        else:
            self._check_body(length)
            self._left = length
            self.phase = Phase.LENGTH

    def _check_body(self, size: int) -> None:
        size_max = self.limits.body_bytes_max
        if size > size_max:
            raise exceeded("body_too_large", "the body is too large", "body_bytes_max", size_max)

    def _take(self, after: Phase) -> bool:
        """Move what has come of `_left` bytes into the body."""
        piece = self._buffer[: self._left]
        self.body += piece
        del self._buffer[: self._left]
        self._left -= len(piece)
        if self._left:
            return False
        self.phase = after
        return True

    def _read_length(self) -> bool:
        return self._take(Phase.IDLE)

    def _read_chunk(self) -> bool:
        return self._take(Phase.CHUNK_END)

    def _line(self, size_max: int) -> bytes | None:
        """Take one line; None while it is unfinished."""
        end = self._buffer.find(b"\r\n", 0, size_max + 2)
        if end < 0:
            if len(self._buffer) >= size_max + 2:
                raise malformed("a line within a chunked body is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_size(self) -> bool:
        line = self._line(CHUNK_LINE_BYTES_MAX)
        if line is None:
            return False
        match = CHUNK_LINE.fullmatch(line)
        if not match:
            raise malformed("the size of a chunk is no hexadecimal number")
        self._left = int(match[1], 16)
        self._check_body(len(self.body) + self._left)
        self.phase = Phase.CHUNK if self._left else Phase.TRAILER
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if not self._buffer.startswith(b"\r\n"):
            raise malformed("a chunk is longer than its size")
        del self._buffer[:2]
        self.phase = Phase.SIZE
        return True

    def _read_trailer(self) -> bool:
        line = self._line(self.limits.header_bytes_max)
        if line is None:
            return False
        if not line:
            self._lines = self._size = 0
            self.phase = Phase.IDLE
            return True
        if not TRAILER_LINE.fullmatch(line):
            raise malformed("a trailer is no header")
        self._lines += 1
        self._size = check_headers(self._size + len(line) + 2, self._lines, self.limits)
        return True


STEPS = {
    Phase.IDLE: Parser._idle,
    Phase.HEAD: Parser._read_head,
    Phase.LENGTH: Parser._read_length,
    Phase.SIZE: Parser._read_size,
    Phase.CHUNK: Parser._read_chunk,
    Phase.CHUNK_END: Parser._read_chunk_end,
    Phase.TRAILER: Parser._read_trailer,
}
"""What each phase does with the buffer: whether it got anywhere."""
