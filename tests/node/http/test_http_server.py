"""The server over streams in memory, in virtual time: no test waits."""

import errno
import io
import json

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from node.errors import RequestError
from node.http.limits import Limits
from node.http.message import TEXT, Request, Response
from node.http.router import Route, Router
from node.http.server import Exchange, Server
from node.logs import Log

LIMITS = Limits(body_bytes_max=1_234_567, connections_max=3)


@attrs.define
class Bench:
    """A server with a few routes, and what they have seen."""

    server: Server
    nursery: trio.Nursery
    log: io.StringIO
    cancelled: list[str] = attrs.Factory(list)

    def connect(self) -> trio.abc.Stream:
        """Open a connection; return the client's end."""
        client, end = trio.testing.memory_stream_pair()
        self.server.counters.connections += 1
        self.nursery.start_soon(self.server.connection, end)
        return client

    async def hang(self, request: Request, exchange: Exchange) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.append(request.path)

    async def drip(self, request: Request, exchange: Exchange) -> None:
        try:
            await exchange.start(200, TEXT)
            for number in range(3):
                await exchange.write(b"%d" % number)
                await trio.sleep(100)
            await exchange.end()
        finally:
            self.cancelled.append(request.path)


def ok(request: Request) -> Response:
    return Response(200, b"ok " + request.body, TEXT)


def broken(request: Request) -> Response:
    raise ZeroDivisionError("secret words")


def refuses(request: Request) -> Response:
    raise RequestError("overloaded", "too much", retry_after_ms=2500)


async def breaks(request: Request, exchange: Exchange) -> None:
    raise ZeroDivisionError("secret words")


async def breaks_late(request: Request, exchange: Exchange) -> None:
    await exchange.start(200, TEXT)
    await exchange.write(b"x")
    raise ZeroDivisionError("secret words")


async def long(request: Request, exchange: Exchange) -> None:
    await exchange.send(Response(200, b"x" * 300_000, TEXT))


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    log = io.StringIO()
    made = Bench(Server(Router.of(()), LIMITS, Log(log)), nursery, log)
    made.server.router = Router.of(
        (
            Route("GET", "/ok", ok),
            Route("POST", "/ok", ok),
            Route("GET", "/thing/{id}", lambda request, name: Response(200, name.encode(), TEXT)),
            Route("GET", "/broken", broken),
            Route("GET", "/refuses", refuses),
            Route("GET", "/breaks", breaks, waits=True),
            Route("GET", "/late", breaks_late, waits=True),
            Route("GET", "/hang", made.hang, waits=True),
            Route("GET", "/drip", made.drip, waits=True),
            Route("GET", "/long", long, waits=True),
        )
    )
    return made


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost:80", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


async def everything(client: trio.abc.ReceiveStream) -> bytes:
    """Read until the server closes."""
    data = b""
    while piece := await client.receive_some(65536):
        data += piece
    return data


async def ask(bench: Bench, data: bytes) -> bytes:
    """Send bytes on a new connection; return all that comes before the server closes it."""
    client = bench.connect()
    await client.send_all(data)
    return await everything(client)


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def error(answer: bytes) -> dict[str, str]:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_requests_on_one_connection_are_answered_in_order(autojump_clock: Clock, bench: Bench):
    client = bench.connect()
    for word in (b"a", b"b"):
        await client.send_all(get("/ok", method="POST", body=word))
        assert (await client.receive_some(1000)).endswith(b"ok " + word)


async def test_pipelined_requests_are_answered_in_order(autojump_clock: Clock, bench: Bench):
    data = get("/ok") + get("/drip") + get("/thing/a/b") + get("/ok", "Connection: close")
    answers = await ask(bench, data)
    assert statuses(answers) == [200, 200, 200, 200]
    assert answers.index(b"ok ") < answers.index(b"0\r\n\r\n") < answers.index(b"a/b")


async def test_an_idle_connection_is_closed_in_silence(autojump_clock: Clock, bench: Bench):
    start = trio.current_time()
    assert await ask(bench, b"") == b""
    assert trio.current_time() - start == pytest.approx(LIMITS.idle_timeout_s, abs=0.5)


async def test_a_kept_connection_is_closed_when_it_rests(autojump_clock: Clock, bench: Bench):
    assert statuses(await ask(bench, get("/ok"))) == [200]
    assert trio.current_time() == pytest.approx(LIMITS.idle_timeout_s, abs=0.5)


async def drip(client: trio.abc.SendStream, data: bytes, every_s: float) -> None:
    """Send one byte at a time until the server has had enough."""
    try:
        for index in range(len(data)):
            await client.send_all(data[index : index + 1])
            await trio.sleep(every_s)
    except trio.BrokenResourceError:
        pass


async def dripped(bench: Bench, data: bytes, every_s: float) -> tuple[bytes, float]:
    """Drip bytes; return the answer and when the connection ended."""
    client = bench.connect()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip, client, data, every_s)
        answer = await everything(client)
        nursery.cancel_scope.cancel()
    return answer, trio.current_time() - start


async def test_slow_headers_are_answered_408_at_the_deadline(autojump_clock: Clock, bench: Bench):
    answer, took_s = await dripped(bench, get("/ok", "X: " + "a" * 200), every_s=1)
    assert status(answer) == 408
    assert "header_timeout_s" in error(answer)["message"]
    assert "--http-read-timeout-s" in error(answer)["message"]
    assert took_s == pytest.approx(LIMITS.header_timeout_s, abs=LIMITS.header_timeout_s / 4)


async def test_a_body_below_the_rate_floor_is_answered_408(autojump_clock: Clock, bench: Bench):
    data = get("/ok", method="POST", body=b"x" * 5000)
    answer, took_s = await dripped(bench, data, every_s=0.01)
    assert status(answer) == 408
    assert "body_bytes_per_s_min" in error(answer)["message"]
    assert took_s == pytest.approx(LIMITS.body_grace_s, rel=0.5)


async def test_a_body_above_the_rate_floor_is_taken(autojump_clock: Clock, bench: Bench):
    client = bench.connect()
    body = b"x" * 60_000
    data = get("/ok", "Connection: close", method="POST", body=body)
    for start in range(0, len(data), 3000):  # twice the floor, for twenty seconds
        await client.send_all(data[start : start + 3000])
        await trio.sleep(1)
    assert status(await everything(client)) == 200


async def test_a_body_that_stops_is_answered_408(autojump_clock: Clock, bench: Bench):
    client = bench.connect()
    await client.send_all(get("/ok", method="POST", body=b"x" * 90_000)[:-1])
    assert status(await everything(client)) == 408


async def test_the_client_is_told_to_continue(autojump_clock: Clock, bench: Bench):
    client = bench.connect()
    head = get("/ok", "Expect: 100-continue", "Content-Length: 2", method="POST")
    await client.send_all(head)
    assert await client.receive_some(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send_all(b"hi")
    assert (await client.receive_some(1000)).endswith(b"ok hi")


async def test_an_oversized_body_is_refused_before_it_is_sent(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/ok", "Expect: 100-continue", "Content-Length: 1234568", method="POST"))
    assert status(answer) == 413
    assert b"100 Continue" not in answer
    assert "`body_bytes_max` is 1234567\nhint: `--http-body-bytes-max`" in error(answer)["message"]


async def test_what_is_malformed_closes_the_connection(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + get("/ok"))
    assert statuses(answer) == [400]
    assert b"connection: close" in answer
    assert bench.server.counters.refused == {"malformed_request": 1}


async def test_head_has_the_length_but_no_body(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/ok", "Connection: close", method="HEAD"))
    assert b"content-length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_options_names_the_methods(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/ok", "Connection: close", method="OPTIONS"))
    assert (status(answer), b"allow: GET, HEAD, OPTIONS, POST" in answer) == (204, True)
    assert b"content-length" not in answer


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (get("/none"), 404, "not_found"),
        (get("/thing/"), 404, "not_found"),
        (get("/ok", method="DELETE"), 405, "method_not_allowed"),
        (get("/broken"), 500, "internal_error"),
        (get("/breaks"), 500, "internal_error"),
        (get("/refuses"), 503, "overloaded"),
        (get("/ok", "Origin: http://evil.example", method="POST"), 403, "cross_origin"),
        (get("/ok", "Origin: null", method="POST"), 403, "cross_origin"),
        (get("/ok", "Origin: http://[", method="POST"), 403, "cross_origin"),
        (get("/ok").replace(b"localhost", b"evil.example"), 421, "misdirected"),
    ],
)
async def test_errors_have_openais_form_and_keep_the_connection(
    bench: Bench, data: bytes, code: int, words: str
):
    client = bench.connect()
    await client.send_all(data)
    answer = await client.receive_some(10_000)
    assert (status(answer), error(answer)["code"]) == (code, words)
    assert b"secret" not in answer
    await client.send_all(get("/ok", "Connection: close"))
    assert status(await everything(client)) == 200


@pytest.mark.parametrize("path", ["/broken", "/breaks"])
async def test_what_breaks_is_logged(autojump_clock: Clock, bench: Bench, path: str):
    await ask(bench, get(path, "Connection: close"))
    assert "secret words" in bench.log.getvalue()


async def test_a_refusal_says_when_to_come_back(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/refuses", "Connection: close"))
    assert b"retry-after: 3\r\nretry-after-ms: 2500\r\n" in answer


async def test_the_pages_own_origin_may_post(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/ok", "Origin: http://localhost:80", "Connection: close", method="POST"))
    assert status(answer) == 200


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3", "localhost"])
async def test_addresses_and_localhost_are_ours(autojump_clock: Clock, bench: Bench, name: str):
    answer = await ask(bench, f"GET /ok HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 200


async def test_a_streamed_answer_is_chunked(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/drip", "Connection: close"))
    assert answer.endswith(b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n")
    assert b"transfer-encoding: chunked" in answer


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/drip", "Connection: keep-alive", version="1.0"))
    assert answer.endswith(b"\r\n\r\n012")
    assert b"chunked" not in answer


@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_a_client_that_goes_away_cancels_its_request(autojump_clock: Clock, bench: Bench, path: str):
    client = bench.connect()
    await client.send_all(get(path))
    await trio.sleep(1)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.cancelled == [path]
    assert bench.server.counters.disconnects == 1
    assert trio.current_time() < 2


async def test_a_stream_that_breaks_late_ends_without_its_end(autojump_clock: Clock, bench: Bench):
    answer = await ask(bench, get("/late"))
    assert answer.endswith(b"1\r\nx\r\n")


async def test_a_client_that_does_not_read_is_let_go(autojump_clock: Clock, bench: Bench):
    send, _unread = trio.testing.lockstep_stream_one_way_pair()  # takes nothing until it is read
    inward_send, inward_receive = trio.testing.memory_stream_one_way_pair()
    await inward_send.send_all(get("/long"))
    bench.server.counters.connections += 1
    await bench.server.connection(trio.StapledStream(send, inward_receive))
    assert trio.current_time() == pytest.approx(LIMITS.write_timeout_s, abs=0.5)


async def test_what_is_read_ahead_is_bounded(autojump_clock: Clock, bench: Bench):
    client, end = trio.testing.lockstep_stream_pair()  # a write ends when it has been read
    bench.server.counters.connections += 1
    bench.nursery.start_soon(bench.server.connection, end)
    await client.send_all(get("/hang"))
    taken = 0
    with trio.move_on_after(1):
        while True:
            await client.send_all(b"x" * 4096)
            taken += 4096
    assert taken == LIMITS.pipeline_bytes_max
    assert bench.cancelled == []


class BrokenListener(trio.abc.Listener[trio.abc.Stream]):
    """Fails as a machine without free descriptors does, then gives connections."""

    def __init__(self, streams: list[trio.abc.Stream]) -> None:
        self.streams = streams
        self.failures = 2

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        if self.streams:
            return self.streams.pop()
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_accept_errors_are_survived(autojump_clock: Clock, bench: Bench):
    client, end = trio.testing.memory_stream_pair()
    bench.nursery.start_soon(bench.server.serve, BrokenListener([end]))
    await client.send_all(get("/ok", "Connection: close"))
    assert status(await everything(client)) == 200
    assert bench.server.counters.accept_errors == 2


async def test_connections_beyond_the_limit_are_closed_at_once(autojump_clock: Clock, bench: Bench):
    pairs = [trio.testing.memory_stream_pair() for _ in range(5)]
    bench.nursery.start_soon(bench.server.serve, BrokenListener([end for _, end in pairs]))
    await trio.sleep(1)
    assert (bench.server.counters.accepted, bench.server.counters.turned_away) == (3, 2)
    gone = [client for client, _ in pairs[:2]]
    assert [await everything(client) for client in gone] == [b"", b""]


async def test_connections_are_counted_back(autojump_clock: Clock, bench: Bench):
    await ask(bench, get("/ok", "Connection: close"))
    await ask(bench, b"\x16\x03\x01\r\n\r\n")
    await trio.sleep(5)  # after a refusal the server reads on for a moment
    assert bench.server.counters.connections == 0
