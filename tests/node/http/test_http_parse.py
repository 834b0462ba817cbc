"""The parser: the same bytes give the same requests however they are cut, and doubt is always an error."""

import itertools

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.errors import STATUS, RequestError
from node.http.limits import Limits
from node.http.message import Request
from node.http.parse import Parser, Phase

SMALL = Limits(
    request_line_bytes_max=40, header_bytes_max=30, headers_bytes_max=80, headers_max=6, body_bytes_max=20
)


def read(data: bytes, limits: Limits = SMALL, cuts: tuple[int, ...] = ()) -> list[Request | str]:
    """Feed data in pieces; return the requests, and the code of the error that ended them."""
    parser, out = Parser(limits), []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            parser.feed(data[start:end])
            while (request := parser.next()) is not None:
                out.append(request)
    except RequestError as error:
        out.append(error.code)
    return out


def one(data: bytes, limits: Limits = SMALL) -> Request:
    [request] = read(data, limits)
    assert isinstance(request, Request), request
    return request


HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_a_get_is_read():
    request = one(b"GET /v1/models?a=b HTTP/1.1\r\nHost: a:80\r\nX-A:  v \r\n\r\n")
    assert attrs.astuple(request) == (
        "GET",
        "/v1/models",
        "a=b",
        {b"host": b"a:80", b"x-a": b"v"},
        b"",
        True,
        True,
    )


def test_a_body_of_known_length_is_read():
    assert one(POST + b"Content-Length: 3\r\n\r\nabc").body == b"abc"


def test_a_chunked_body_is_read_and_its_extensions_and_trailers_dropped():
    assert one(CHUNKED + b"3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nX: y\r\n\r\n").body == b"abcde"


def test_requests_may_follow_one_another():
    requests = read(GET + POST + b"Content-Length: 1\r\n\r\nx" + CHUNKED + b"0\r\n\r\n" + GET)
    assert [request.method for request in requests] == ["GET", "POST", "POST", "GET"]


def test_repeated_headers_are_joined():
    assert one(b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\r\na: 2\r\n\r\n").headers[b"a"] == b"1, 2"


def test_one_empty_line_before_a_request_is_forgiven():
    assert one(b"\r\n" + GET).path == "/"


def test_a_path_is_decoded_and_an_absolute_target_stripped():
    assert one(b"GET /a%2Fb%C3%A9 HTTP/1.1\r\n" + HOST + b"\r\n").path == "/a/b\u00e9"
    assert one(b"GET http://A/x?y HTTP/1.1\r\n" + HOST + b"\r\n").path == "/x"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "x, Close", False),
        ("1.0", "", False),
        ("1.0", "Keep-Alive", True),
    ],
)
def test_who_keeps_the_connection(version: str, connection: str, kept: bool):
    header = f"Connection: {connection}\r\n" if connection else ""
    assert one(f"GET / HTTP/{version}\r\nHost: a\r\n{header}\r\n".encode()).keep_alive is kept


def test_a_client_that_waits_is_told_to_continue_once():
    parser = Parser(SMALL)
    parser.feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert parser.next() is None
    assert [parser.take_continue(), parser.take_continue()] == [True, False]
    parser.feed(b"ab")
    assert parser.next().body == b"ab"


def test_a_client_that_does_not_wait_is_not_told_to_continue():
    parser = Parser(SMALL)
    parser.feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\na")
    assert parser.next() is None
    assert not parser.take_continue()
    parser.feed(b"b")
    assert parser.next().body == b"ab"
    assert not parser.take_continue()


def test_the_phase_says_what_is_awaited():
    parser, seen = Parser(SMALL), []
    for piece in (b"", b"POST /p HT", b"TP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"a", b"b"):
        parser.feed(piece)
        parser.next()
        seen.append((parser.phase, parser.body_received))
    idle, length = (Phase.IDLE, None), Phase.LENGTH
    assert seen == [idle, (Phase.HEAD, None), (length, 0), (length, 1), idle]


REFUSED = {
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "malformed_request"),
    "length and chunked": (
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "malformed_request",
    ),
    "length with sign": (POST + b"Content-Length: +1\r\n\r\nx", "malformed_request"),
    "length list": (POST + b"Content-Length: 1,1\r\n\r\nx", "malformed_request"),
    "length of spaces": (POST + b"Content-Length: 1 1\r\n\r\nx", "malformed_request"),
    "gzip and chunked": (POST + b"Transfer-Encoding:gzip,chunked\r\n\r\n", "not_implemented"),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", "malformed_request"),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", "malformed_request"),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed_request"),
    "chunked twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "malformed_request",
    ),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", "malformed_request"),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", "malformed_request"),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "malformed_request"),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "malformed_request"),
    "bare line feed": (b"GET / HTTP/1.1\nHost: a\n\n", "malformed_request"),
    "bare line feed in a header": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "malformed_request"),
    "bare carriage return": (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "malformed_request"),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "malformed_request"),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "malformed_request"),
    "header without colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "malformed_request"),
    "nul": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", "malformed_request"),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "lower-case method": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "unknown method": (b"FETCHED / HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "no version": (b"GET /\r\n\r\n", "malformed_request"),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "path with a control character": (b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "path of no UTF-8": (b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "path with half an escape": (b"GET /%f HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "connect": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", "malformed_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http_version"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", "http_version"),
    "other expectation": (POST + b"Expect: x\r\nContent-Length: 1\r\n\r\nx", "expectation_failed"),
    "chunk size of no digits": (CHUNKED + b"x\r\n", "malformed_request"),
    "chunk size with 0x": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", "malformed_request"),
    "chunk size with sign": (CHUNKED + b"+1\r\na\r\n0\r\n\r\n", "malformed_request"),
    "chunk size of many digits": (CHUNKED + b"000000001\r\na\r\n0\r\n\r\n", "malformed_request"),
    "chunk with bare line feed": (CHUNKED + b"1\na\r\n0\r\n\r\n", "malformed_request"),
    "chunk extension with line feed": (CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n", "malformed_request"),
    "chunk longer than said": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", "malformed_request"),
    "endless chunk line": (CHUNKED + b"1;" + b"x" * 300, "malformed_request"),
    "trailer of no header": (CHUNKED + b"0\r\nx y\r\n\r\n", "malformed_request"),
    "request line too long": (b"GET /" + b"a" * 40, "uri_too_long"),
    "header too long": (b"GET / HTTP/1.1\r\nX: " + b"a" * 40, "headers_too_large"),
    "headers too long": (b"GET / HTTP/1.1\r\n" + b"X: aaaaaaaaaaaaaaaaaaa\r\n" * 4, "headers_too_large"),
    "too many headers": (b"GET / HTTP/1.1\r\n" + b"X:\r\n" * 7, "headers_too_large"),
    "too many trailers": (CHUNKED + b"0\r\n" + b"X:\r\n" * 7, "headers_too_large"),
    "body too long": (POST + b"Content-Length: 21\r\n\r\n", "body_too_large"),
    "chunks too long": (CHUNKED + b"a\r\n0123456789\r\nb\r\n", "body_too_large"),
    "absurd length": (POST + b"Content-Length: 9999999999999\r\n\r\n", "body_too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str):
    data, code = REFUSED[name]
    assert read(data) == [code]
    assert 400 <= STATUS[code] < 600


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_its_limit(name: str):
    data, code = REFUSED[name]
    parser = Parser(SMALL)
    parser.feed(data)
    with pytest.raises(RequestError) as caught:
        parser.next()
    assert code == "malformed_request" or "`" in caught.value.message or "HTTP/1.1" in caught.value.message


@pytest.mark.parametrize("over", [0, 1])
def test_limits_are_exact(over: int):
    """What is as large as a limit allows passes; one byte more does not."""
    line = b"GET /" + b"a" * (26 + over) + b" HTTP/1.1\r\n"
    header = b"X: " + b"a" * (27 + over) + b"\r\n"
    six = b"".join(b"%d:\r\n" % number for number in range(5 + over))
    body = b"Content-Length: %d\r\n\r\n" % (20 + over) + b"x" * (20 + over)
    cases = {
        line + HOST + b"\r\n": "uri_too_long",
        b"GET / HTTP/1.1\r\n" + HOST + header + b"\r\n": "headers_too_large",
        b"GET / HTTP/1.1\r\n" + HOST + six + b"\r\n": "headers_too_large",
        POST + body: "body_too_large",
    }
    for data, code in cases.items():
        [got] = read(data)
        assert got == code if over else isinstance(got, Request)


STREAMS = [
    GET + GET,
    *(data for data, _ in REFUSED.values()),
    CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n\r\n" + GET,
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 500), max_size=8))
def test_any_cut_gives_the_same(data: bytes, cuts: list[int]):
    assert read(data, cuts=tuple(cuts)) == read(data)


@pytest.mark.parametrize("data", STREAMS)
def test_byte_by_byte_gives_the_same(data: bytes):
    assert read(data, cuts=tuple(range(len(data)))) == read(data)


WORDS = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b"/",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: a",
        b"Content-Length: ",
        b"0",
        b"3",
        b"Transfer-Encoding: chunked",
        b":",
        b"\x00",
        b"\xff",
        b" ",
        b"abc",
        b"%",
        b"5;x",
        b"X: y",
        b"Expect: ",
    ]
)


@given(
    st.lists(st.one_of(WORDS, st.binary(max_size=6)), max_size=40), st.lists(st.integers(0, 300), max_size=4)
)
@example([GET, GET], [])
def test_any_bytes_give_requests_or_a_typed_error(words: list[bytes], cuts: list[int]):
    data = b"".join(words)
    whole = read(data)
    assert whole == read(data, cuts=tuple(cuts))
    assert all(isinstance(item, Request) or item in STATUS for item in whole)
