"""A request's head: bytes in, method, target and headers out, or a refusal; pure.

The head is measured against the limits line by line, in order, so that the verdict never depends on how its
bytes were cut into packets; then httptools (llhttp) checks and splits it; and the framing of its body
is decided here, by one rule: whatever two servers could read differently is refused.
"""

import re
from urllib.parse import unquote_to_bytes

import attrs
import httptools

from node.errors import RequestError
from node.http.limits import Limits, exceeded

REQUEST_LINE = re.compile(rb"[A-Z]{3,20} [^ ]+ HTTP/([0-9])\.([0-9])")
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
ABSOLUTE = re.compile(r"https?://([^/?#@]*)", re.IGNORECASE)

SINGLE = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"expect",
        b"origin",
    )
)
"""Headers that may stand only once: what two readers could take from different lines."""


def malformed(what: str) -> RequestError:
    """Say that the bytes are no HTTP that only one reading is possible of."""
    return RequestError("malformed_request", f"malformed HTTP: {what}")


class _Lines:
    """Where httptools puts what it has split."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))


@attrs.frozen
class Head:
    """A request's head, and how its body is framed."""

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    modern: bool
    """HTTP/1.1, not 1.0."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection outlives this request, as far as the client is concerned."""
        said = self.headers.get(b"connection")
        if said is None:
            return self.modern
        words = [word.strip() for word in said.lower().split(b",")]
        return b"close" not in words and (self.modern or b"keep-alive" in words)


def read_head(data: bytes, limits: Limits) -> Head:
    """Turn the bytes of a head, its empty line included, into a Head. Raises RequestError."""
    lines = data[:-4].split(b"\r\n")
    check_lines(data, lines, limits)
    split = _Lines()
    parser = httptools.HttpRequestParser(split)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise malformed(str(error).lower()) from None
    return Head(parser.get_method().decode(), split.target, merge(split.headers), lines[0].endswith(b"1"))


def check_lines(data: bytes, lines: list[bytes], limits: Limits) -> None:
    """Measure a head's lines, the request line first. Raises RequestError for the first that is too much."""
    check_line(lines[0], limits, first=True)
    check_request_line(lines[0])
    if is_plainly_small(data, lines, limits):
        return
    total = 0
    for number, line in enumerate(lines[1:], 1):
        check_line(line, limits, first=False)
        total = check_headers(total + len(line) + 2, number, limits)


def is_plainly_small(data: bytes, lines: list[bytes], limits: Limits) -> bool:
    """Whether a head is within the limits by so much that no line need be looked at: the usual case."""
    few = len(lines) <= limits.headers_max and len(data) <= limits.headers_bytes_max
    return few and max(map(len, lines)) <= limits.header_bytes_max and data.count(b"\n") == len(lines) + 1


def check_line(line: bytes, limits: Limits, first: bool) -> None:
    """Measure one line, or the part of one that has come. Raises RequestError."""
    size_max = limits.request_line_bytes_max if first else limits.header_bytes_max
    if b"\n" in line[: size_max + 1]:
        raise malformed("a line ends without a carriage return")
    if len(line) <= size_max:
        return
    if first:
        raise exceeded("uri_too_long", "the request line is too long", "request_line_bytes_max", size_max)
    raise exceeded("headers_too_large", "a header is too long", "header_bytes_max", size_max)


def check_request_line(line: bytes) -> None:
    """Insist on `METHOD TARGET HTTP/1.0` or `1.1`, with single spaces."""
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        raise malformed("the request line is not `METHOD TARGET HTTP/1.1`")
    if match[1] != b"1" or match[2] not in (b"0", b"1"):
        version = f"{match[1].decode()}.{match[2].decode()}"
        raise RequestError("http_version", f"HTTP/{version} is not spoken here; HTTP/1.1 is")


def check_headers(size: int, count: int, limits: Limits) -> int:
    """Measure all headers so far; return their size."""
    if count > limits.headers_max:
        raise exceeded("headers_too_large", "there are too many headers", "headers_max", limits.headers_max)
    if size > limits.headers_bytes_max:
        raise exceeded(
            "headers_too_large", "the headers are too large", "headers_bytes_max", limits.headers_bytes_max
        )
    return size


def merge(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join repeated headers by commas, except those that must be single."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name not in headers:
            headers[name] = value
        elif name in SINGLE:
            raise malformed(f"more than one `{name.decode()}` header")
        else:
            headers[name] += b", " + value
    return headers


def body_length(head: Head) -> int | None:
    """Return the body's length in bytes, or None if it is chunked. Raises RequestError for any doubt."""
    length = head.headers.get(b"content-length")
    encoding = head.headers.get(b"transfer-encoding")
    if encoding is None:
        if length is None:
            return 0
        if not length.isdigit() or len(length) > 19:
            raise malformed("`content-length` is no number")
        return int(length)
    if length is not None:
        raise malformed("both `content-length` and `transfer-encoding`")
    if not head.modern:
        raise malformed("`transfer-encoding` in HTTP/1.0")
    if encoding.lower() != b"chunked":
        raise RequestError("not_implemented", "the only transfer-encoding understood is `chunked`")
    return None


def split_target(head: Head) -> tuple[str, str]:
    """Return the decoded path and the raw query. Raises RequestError."""
    target = head.target.decode("latin-1")
    absolute = ABSOLUTE.match(target)
    if absolute:
        host = head.headers.get(b"host", b"").decode("latin-1")
        if host and host.lower() != absolute[1].lower():
            raise malformed("the target names another host than the `host` header")
        target = target[absolute.end() :] or "/"
    if target == "*" and head.method == "OPTIONS":
        return "*", ""
    path, _, query = target.partition("?")
    if not path.startswith("/") or "#" in target:
        raise malformed("the target is neither a path nor an http address")
    return (_decode(path) if "%" in path else path), query


def _decode(path: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", path):
        raise malformed("a `%` in the path is not followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise malformed("the path is not UTF-8") from None
    if not decoded.isprintable():
        raise malformed("the path has unprintable characters")
    return decoded


def check_host(head: Head) -> None:
    """Insist on one well-formed Host where the version demands it."""
    host = head.headers.get(b"host")
    if host is None and head.modern:
        raise malformed("no `host` header")
    if host is not None and not HOST.fullmatch(host):
        raise malformed("the `host` header is no host")
