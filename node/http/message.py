"""A request as it was read, an answer as it will be written, and the bytes of an answer's head."""

import time
from functools import cache
from http import HTTPStatus

import attrs

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
EVENTS = b"text/event-stream; charset=utf-8"

Headers = tuple[tuple[bytes, bytes], ...]


@attrs.frozen
class Request:
    """One complete request. Header names are lower case; values of repeated headers are joined by commas."""

    method: str
    path: str
    """Decoded, without the query."""
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    """Whether the client will send another request on this connection."""
    chunked: bool
    """Whether the client understands a chunked answer: HTTP/1.1."""

    def header(self, name: bytes) -> str:
        """Return a header's value; empty if there is none."""
        return self.headers.get(name, b"").decode("latin-1")


@attrs.frozen
class Response:
    """One complete answer. The length, date and connection headers are the server's business."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


@cache
def status_line(status: int) -> bytes:
    """Return the first line of an answer, with its line end."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Client Closed Request" if status == 499 else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


class DateHeader:
    """The Date header's line, made once per second."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """Return `date: ...` with its line end."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(second)).encode()
        return self._line


_date = DateHeader()
"""A cache of a pure function of the second; not state."""

CONNECTION = {
    (True, True): b"",
    (True, False): b"connection: keep-alive\r\n",
    (False, True): b"connection: close\r\n",
    (False, False): b"connection: close\r\n",
}
"""The connection header by (kept, HTTP/1.1): what each version assumes need not be said."""


def head(
    status: int, content_type: bytes, headers: Headers, framing: bytes, kept: bool, modern: bool
) -> bytes:
    """Encode an answer's head. `framing` is its length or transfer-encoding line; `modern` means HTTP/1.1."""
    lines = [
        status_line(status),
        _date.line(),
        b"content-type: ",
        content_type,
        b"\r\n",
        framing,
        CONNECTION[kept, modern],
    ]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def whole(response: Response, kept: bool, modern: bool, bodiless: bool = False, more: Headers = ()) -> bytes:
    """Encode a complete answer; `bodiless` leaves the body out but not its length, as HEAD wants it."""
    framing = b"" if response.status == 204 else b"content-length: %d\r\n" % len(response.body)
    top = head(response.status, response.content_type, response.headers + more, framing, kept, modern)
    return top if bodiless else top + response.body


def header_value(text: str) -> bytes:
    """Encode a label that another machine may have chosen, so that it stays within its header."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text).encode()


def chunk(data: bytes) -> bytes:
    """Encode one piece of a chunked answer; `data` must not be empty, for that would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
