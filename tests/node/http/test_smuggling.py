"""What two readers could take for different requests is refused, whole: a catalogue of framing attacks.

Each row is one way in which servers and proxies have been made to disagree about where a request ends or whom
it is for (RFC 9112 2.2, 3.2, 5.1, 5.2, 6, 7.1, 11.2). After each comes a plain request, which whoever forgives the
row would answer.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.http.limits import Limits
from tests.node.http.test_http_parse import CHUNKED, GET, POST, read

LIMITS = Limits()
TE = b"Transfer-Encoding: "

ATTACKS = {
    "chunked after a vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "encoding with a tab before its colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "encoding with a space before its colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "encoding with a nul before its colon": POST + b"Transfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n",
    "encoding on a folded line": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "encoding after a bare line feed": POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding after a bare carriage return": POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": POST + TE + b'"chunked"\r\n\r\n0\r\n\r\n',
    "chunked with a parameter": POST + TE + b"chunked;q=1\r\n\r\n0\r\n\r\n",
    "chunked, then identity": POST + TE + b"chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked after an empty word": POST + TE + b", chunked\r\n\r\n0\r\n\r\n",
    "chunked and its comma": POST + TE + b"chunked,\r\n\r\n0\r\n\r\n",
    "empty encoding": POST + b"Transfer-Encoding:\r\n\r\n",
    "chunked and a length of nothing": POST + TE + b"chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "length before chunked": POST + b"Content-Length: 6\r\n" + TE + b"chunked\r\n\r\n0\r\n\r\nG",
    "two different lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\nx",
    "length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "length with a fraction": POST + b"Content-Length: 1.0\r\n\r\nx",
    "length with an exponent": POST + b"Content-Length: 1e1\r\n\r\nx",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "length in digits of another script": POST + b"Content-Length: \xd9\xa1\r\n\r\nx",
    "length of 20 digits": POST + b"Content-Length: 00000000000000000001\r\n\r\nx",
    "length behind a folded line": POST + b"X: y\r\n\tContent-Length: 1\r\n\r\nx",
    "length after a nul": POST + b"\0Content-Length: 1\r\n\r\nx",
    "first header after a space": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "header without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "header name with a bracket": b"GET / HTTP/1.1\r\nHost: a\r\nX[]: x\r\n\r\n",
    "header name beyond ASCII": b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: x\r\n\r\n",
    "header value with a delete": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "target with a tab": b"GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n",
    "target beyond ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "target of no form": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "space after the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "version in lower case": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "version of another protocol": b"GET / ICY/1.1\r\nHost: a\r\n\r\n",
    "version of two digits": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "HTTP/0.9 with a version": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "absolute target of another host": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes of TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "two empty lines first": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty chunk size": CHUNKED + b"\r\nab\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-1\r\nab\r\n0\r\n\r\n",
    "chunk size after a space": CHUNKED + b" 1\r\na\r\n0\r\n\r\n",
    "chunk size with an underscore": CHUNKED + b"1_0\r\na\r\n0\r\n\r\n",
    "chunk size in digits of another script": CHUNKED + b"\xd9\xa1\r\na\r\n0\r\n\r\n",
    "chunk size with a nul": CHUNKED + b"1\0\r\na\r\n0\r\n\r\n",
    "chunk extension with a bare carriage return": CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "chunk ended by a line feed": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "chunk ended by nothing": CHUNKED + b"1\r\na0\r\n\r\n",
    "trailer after a bare line feed": CHUNKED + b"0\r\nX: y\nZ: z\r\n\r\n",
    "trailer on a folded line": CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n",
}

OTHERWISE = {"chunked after an empty word": "not_implemented", "HTTP/0.9 with a version": "http_version"}
"""Refusals that say more than `malformed_request`."""


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_and_nothing_after_it_is_read(name: str):
    assert read(ATTACKS[name] + GET, LIMITS) == [OTHERWISE.get(name, "malformed_request")]


@given(st.sampled_from([*ATTACKS.values()]), st.lists(st.integers(0, 500), max_size=8))
def test_no_cut_makes_it_pass(attack: bytes, cuts: list[int]):
    assert read(attack + GET, LIMITS, tuple(cuts)) == read(attack + GET, LIMITS)


@given(st.sampled_from([*ATTACKS.values()]))
def test_a_request_before_it_is_answered(attack: bytes):
    first, refusal = read(GET + attack, LIMITS)[:2]
    assert (first, type(refusal)) == (read(GET)[0], str)
