"""The OpenAI routes over a scripted worker, in memory and in virtual time."""

import io
import json
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from mesh.flight import Flight
from node.http import page
from node.http.api import Api
from node.http.limits import Limits
from node.http.router import Router
from node.http.server import Server
from node.logs import Log
from tests.node.http.fake import DIGEST, TEXT, FakeGateway


@attrs.define
class Client:
    """Asks a server in memory."""

    gateway: FakeGateway
    server: Server
    nursery: trio.Nursery

    def connect(self) -> trio.abc.Stream:
        client, end = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server.connection, end)
        return client

    async def ask(self, path: str, body: Any = None, *headers: str) -> "Answer":
        client = self.connect()
        await client.send_all(request(path, body, "Connection: close", *headers))
        data = b""
        while piece := await client.receive_some(65536):
            data += piece
        return Answer.of(data)


def request(path: str, body: Any = None, *headers: str) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> "Answer":
        top, _, body = data.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(chunks(body))
        return cls(int(first.split()[1]), headers, body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        parts = self.body.decode().split("\n\n")
        assert parts.pop() == ""
        assert all(part.startswith("data: ") for part in parts)
        return [part[6:] if part == "data: [DONE]" else json.loads(part[6:]) for part in parts]


def chunks(body: bytes) -> list[bytes]:
    """Take a chunked body apart; fails unless it is whole."""
    found = []
    while True:
        size, _, body = body.partition(b"\r\n")
        piece, body = body[: int(size, 16)], body[int(size, 16) :]
        assert body.startswith(b"\r\n")
        body = body[2:]
        if not piece:
            assert body == b""
            return found
        found.append(piece)


@pytest.fixture
async def client(nursery: trio.Nursery) -> Client:
    gateway = FakeGateway()
    await nursery.start(gateway.run)
    router = Router.of((*Api(gateway, lambda: 1_700_000_000.9).routes(), *page.routes()))
    return Client(gateway, Server(router, Limits(), Log(io.StringIO())), nursery)


ASK = {"model": "ember-py", "prompt": "one two three", "max_tokens": 3}
CHAT = {"model": "ember-py", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
SAID = "".join(TEXT[:3])


async def test_a_completion(autojump_clock: Clock, client: Client):
    answer = await client.ask("/v1/completions", ASK)
    flight = answer.headers["x-request-id"]
    assert answer.headers["x-inferno-worker"] == "node-b"
    assert answer.json == {
        "id": f"cmpl-{flight}",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "ember-py",
        "system_fingerprint": "fp_0123456789abcdef",
        "choices": [{"index": 0, "text": SAID, "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
        "inferno": {"worker": "node-b", "moves": 0},
    }
    assert (len(flight), client.gateway.closed) == (16, [int(flight, 16)])


async def test_a_chat_completion(autojump_clock: Clock, client: Client):
    answer = await client.ask("/v1/chat/completions", CHAT)
    assert answer.json["object"] == "chat.completion"
    assert answer.json["id"].startswith("chatcmpl-")
    [choice] = answer.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": SAID, "refusal": None}


async def test_a_streamed_completion_has_an_event_per_chunk(autojump_clock: Clock, client: Client):
    answer = await client.ask("/v1/completions", {**ASK, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done = answer.events
    assert done == "[DONE]"
    assert [event["choices"][0]["text"] for event in events] == [*TEXT[:3], ""]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "length"]
    assert [event["inferno"]["tokens"] for event in events] == [1, 2, 3, 3]
    assert {event["id"] for event in events} == {f"cmpl-{answer.headers['x-request-id']}"}
    assert not any("usage" in event for event in events)


async def test_a_streamed_chat_begins_with_the_role(autojump_clock: Clock, client: Client):
    answer = await client.ask("/v1/chat/completions", {**CHAT, "stream": True})
    deltas = [event["choices"][0]["delta"] for event in answer.events[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, *({"content": word} for word in TEXT[:3]), {}]


async def test_the_usage_is_the_last_event_if_asked_for(autojump_clock: Clock, client: Client):
    answer = await client.ask(
        "/v1/completions", {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    )
    *others, usage, _ = answer.events
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 6)
    assert [event["usage"] for event in others] == [None] * 4


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_flights_with_seeds_of_their_own(
    autojump_clock: Clock, client: Client, stream: bool
):
    body = {**ASK, "prompt": ["a b", "c"], "n": 2, "seed": 0, "stream": stream}
    usage_wanted = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await client.ask("/v1/completions", {**body, **usage_wanted})
    submitted = client.gateway.submitted
    assert [(one.choice, one.prompt[0].text) for one in submitted] == [
        (0, "a b"),
        (1, "a b"),
        (2, "c"),
        (3, "c"),
    ]
    assert [one.seed for one in submitted] == [0, 0xE220A8397B1DCDAF] * 2
    texts: dict[int, str] = {}
    for document in answer.events[:-1] if stream else [answer.json]:
        for choice in document["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == dict.fromkeys(range(4), SAID)
    usage = answer.events[-2]["usage"] if stream else answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 12)
    assert sorted(client.gateway.closed) == sorted(set(client.gateway.closed))
    assert len(client.gateway.closed) == 4


async def test_a_seed_is_drawn_for_who_names_none(autojump_clock: Clock, client: Client):
    for _ in range(2):
        await client.ask("/v1/completions", ASK)
    seeds = {one.seed for one in client.gateway.submitted}
    assert len(seeds) == 2
    assert all(0 <= seed < 2**64 for seed in seeds)


async def test_what_a_worker_is_told(autojump_clock: Clock, client: Client):
    await client.ask("/v1/chat/completions", {**CHAT, "temperature": 0.5}, "x-request-id: mine")
    [attempt] = client.gateway.submitted
    assert (attempt.model, attempt.rendered_at, attempt.trace) == ("ember-py", 1_700_000_000, "mine")
    assert attempt.prompt[0].text == '{"messages":[{"role":"user","content":"hi"}]}'
    assert attempt.parameters.temperature == 0.5


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_is_echoed(autojump_clock: Clock, client: Client, stream: bool):
    answer = await client.ask("/v1/completions", {**ASK, "echo": True, "stream": stream})
    documents = answer.events[:-1] if stream else [answer.json]
    assert "".join(one["choices"][0]["text"] for one in documents) == "one two three" + SAID


async def test_the_logprobs_of_a_completion(autojump_clock: Clock, client: Client):
    expected = {
        "tokens": ["def", " main"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"def": -0.5, "bytes:\\xc3": -1.5}, {" main": -0.5, "bytes:\\xc3": -1.5}],
        "text_offset": [0, 3],
    }
    body = {**ASK, "max_tokens": 2, "logprobs": 2}
    assert (await client.ask("/v1/completions", body)).json["choices"][0]["logprobs"] == expected
    events = (await client.ask("/v1/completions", {**body, "stream": True})).events[:-2]
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in events] == [[0], [3]]


async def test_the_logprobs_of_a_chat(autojump_clock: Clock, client: Client):
    body = {**CHAT, "max_tokens": 1, "logprobs": True, "top_logprobs": 2}
    token = {"token": "def", "logprob": -0.5, "bytes": [100, 101, 102]}
    half = {"token": "\ufffd", "logprob": -1.5, "bytes": [0xC3]}
    expected = {"content": [{**token, "top_logprobs": [token, half]}], "refusal": None}
    assert (await client.ask("/v1/chat/completions", body)).json["choices"][0]["logprobs"] == expected
    events = (await client.ask("/v1/chat/completions", {**body, "stream": True})).events
    assert events[1]["choices"][0]["logprobs"] == expected


async def test_a_move_is_told(autojump_clock: Clock, client: Client):
    client.gateway.pace_s = 1
    events = (await client.ask("/v1/completions", {**ASK, "max_tokens": 22, "stream": True})).events[:-1]
    told = [(event["inferno"]["worker"], event["inferno"]["moves"]) for event in events]
    assert told == [("node-b", 0)] * 20 + [("node-c", 1)] * 3
    assert "".join(event["choices"][0]["text"] for event in events) == "".join(TEXT) * 3 + TEXT[0]


async def test_a_move_to_another_numerical_policy_is_told(autojump_clock: Clock, client: Client):
    client.gateway.policies["node-c"] = "another device"
    client.gateway.pace_s = 1
    body = {**ASK, "max_tokens": 22}
    events = (await client.ask("/v1/completions", {**body, "stream": True})).events[:-1]
    told = [event["inferno"].get("policy_changed", False) for event in events]
    assert told == [False] * 20 + [True] * 3
    assert (await client.ask("/v1/completions", body)).json["inferno"]["policy_changed"] is True
    del client.gateway.policies["node-c"]
    assert "policy_changed" not in (await client.ask("/v1/completions", body)).json["inferno"]


# -- failures --------------------------------------------------------------------------------------


async def refuse_at_once(gateway: FakeGateway, flight: Flight) -> None:
    gateway.refuse(flight, "no_worker", "no worker could take it")


async def fail_midway(gateway: FakeGateway, flight: Flight) -> None:
    gateway.accept(flight, "node-b")
    gateway.say(flight)
    await trio.sleep(1)
    if flight.request.choice == 0:
        gateway.refuse(flight, "engine_crash", "the engine died twice")
    else:
        await trio.sleep_forever()


async def never(gateway: FakeGateway, flight: Flight) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_byte_has_its_status(
    autojump_clock: Clock, client: Client, stream: bool
):
    client.gateway.script = refuse_at_once
    answer = await client.ask("/v1/completions", {**ASK, "stream": stream})
    assert (answer.status, answer.error["code"], answer.error["type"]) == (503, "no_worker", "server_error")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "2500")
    assert len(client.gateway.closed) == 1


async def test_a_failure_of_a_whole_answer_has_its_status(autojump_clock: Clock, client: Client):
    client.gateway.script = fail_midway
    answer = await client.ask("/v1/completions", ASK)
    assert (answer.status, answer.error["code"]) == (500, "engine_crash")


@pytest.mark.parametrize("n", [1, 3])
async def test_a_failure_in_a_stream_is_its_last_event(autojump_clock: Clock, client: Client, n: int):
    client.gateway.script = fail_midway
    answer = await client.ask("/v1/completions", {**ASK, "stream": True, "n": n})
    assert answer.status == 200
    *told, error = answer.events
    assert [one["choices"][0]["text"] for one in told] == ["def"] * n
    assert error["error"]["code"] == "engine_crash"
    assert len(client.gateway.closed) == n


async def test_a_client_that_leaves_lets_go_of_its_flights(autojump_clock: Clock, client: Client):
    client.gateway.script = never
    connection = client.connect()
    await connection.send_all(request("/v1/completions", {**ASK, "n": 3}))
    await trio.testing.wait_all_tasks_blocked()
    assert len(client.gateway.open) == 3
    await connection.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert (client.gateway.open, len(client.gateway.closed)) == ({}, 3)


async def test_a_client_that_leaves_in_mid_stream_lets_go(autojump_clock: Clock, client: Client):
    client.gateway.pace_s = 1
    connection = client.connect()
    await connection.send_all(request("/v1/completions", {**ASK, "max_tokens": 1000, "stream": True}))
    await trio.sleep(10.5)
    [flight] = client.gateway.open.values()
    await connection.aclose()
    await trio.sleep(100)
    assert (client.gateway.open, flight.delivered) == ({}, 10)


@pytest.mark.parametrize("n", [1, 3])
async def test_a_write_that_fails_lets_go_in_silence(autojump_clock: Clock, client: Client, n: int):
    """The client resets: the write may notice it before the read does, in any choice's task."""
    client.gateway.pace_s = 1
    sent, inward = [], trio.testing.memory_stream_one_way_pair()

    async def send_all_hook() -> None:
        sent.append(1)
        if len(sent) > 5:
            raise trio.BrokenResourceError

    end = trio.StapledStream(trio.testing.MemorySendStream(send_all_hook), inward[1])
    await inward[0].send_all(request("/v1/completions", {**ASK, "max_tokens": 1000, "stream": True, "n": n}))
    await client.server.connection(end)
    assert (client.gateway.open, len(client.gateway.closed)) == ({}, n)
    assert client.server.log.stream.getvalue() == ""
    assert client.server.counters.disconnects == 1


async def test_a_workers_name_stays_within_its_header(autojump_clock: Clock, client: Client):
    async def rename(gateway: FakeGateway, flight: Flight) -> None:
        gateway.accept(flight, "bad\r\nset-cookie: x\u00e9")
        gateway.finish(flight)

    client.gateway.script = rename
    answer = await client.ask("/v1/completions", ASK)
    assert answer.headers["x-inferno-worker"] == "bad??set-cookie: x?"
    assert answer.json["inferno"]["worker"] == "bad\r\nset-cookie: x\u00e9"


async def test_nothing_is_written_before_a_worker_has_accepted(autojump_clock: Clock, client: Client):
    client.gateway.script = never
    connection = client.connect()
    await connection.send_all(request("/v1/completions", {**ASK, "stream": True}))
    with trio.move_on_after(100) as waited:
        await connection.receive_some(1000)
    assert waited.cancelled_caught


async def test_a_refused_choice_lets_go_of_those_before_it(autojump_clock: Clock, client: Client):
    client.gateway.admits = 2
    answer = await client.ask("/v1/completions", {**ASK, "n": 4})
    assert (answer.status, len(client.gateway.closed)) == (500, 2)


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({**ASK, "model": "none"}, 404, "model_not_found", "model"),
        ({**ASK, "tools": [{}]}, 400, "unsupported_parameter", "tools"),
        ({**ASK, "temperature": -1}, 400, "invalid_request", "temperature"),
        (b"{", 400, "invalid_request", None),
        (b"", 400, "invalid_request", None),
    ],
)
async def test_a_bad_request(
    autojump_clock: Clock, client: Client, body: Any, status: int, code: str, param: str
):
    answer = await client.ask("/v1/completions", body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert answer.error["type"] == "invalid_request_error"
    assert client.gateway.submitted == []


# -- the other routes ------------------------------------------------------------------------------


async def test_the_models(autojump_clock: Clock, client: Client):
    listed = (await client.ask("/v1/models")).json
    assert [one["id"] for one in listed["data"]] == ["ember-py"]
    assert listed["data"][0]["inferno"] == {"digest": DIGEST, "ready": True, "nodes": ["node-a", "node-b"]}
    assert (await client.ask("/v1/models/ember-py")).json == listed["data"][0]
    assert (await client.ask("/v1/models/a/b")).error["code"] == "model_not_found"


async def test_the_mesh(autojump_clock: Clock, client: Client):
    mesh = (await client.ask("/v1/mesh")).json
    assert (mesh["name"], mesh["ready"], [one["name"] for one in mesh["members"]]) == (
        "node-a",
        True,
        ["node-a", "node-b", "node-c"],
    )


@pytest.mark.parametrize("path", page.FILES)
async def test_the_page_is_served_under_a_policy(autojump_clock: Clock, client: Client, path: str):
    answer = await client.ask(path)
    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", page.FILES)
async def test_the_page_asks_nobody_else_and_has_no_inline_code(
    autojump_clock: Clock, client: Client, path: str
):
    text = (
        (await client.ask(path))
        .body.decode()
        .replace("http://www.w3.org/2000/svg", "")
        .replace("http://${", "")
    )
    assert "://" not in text
    assert "innerHTML" not in text
    assert ' style="' not in text
    assert " onclick" not in text
