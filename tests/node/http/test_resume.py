"""Resumable streams at the entry that has them, over a scripted worker: all that follows, and nothing twice."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock as Clock

from mesh.claims import ClaimOptions
from mesh.flight import Flight
from node.http.cursor import CHARACTERS_MAX
from tests.node.http.fake import FakeGateway
from tests.node.http.test_http_api import ASK, CHAT, Answer, Client, client, request  # noqa: F401  a fixture
from tests.node.http.test_tool_answers import ASK as TOOLS
from tests.node.http.test_tool_answers import CALL, saying

STREAM = {**ASK, "stream": True, "resumable": True}
Event = tuple[str, Any]

KINDS = {
    "completion": {**STREAM, "max_tokens": 9},
    "usage": {**STREAM, "stream_options": {"include_usage": True}},
    "echo": {**STREAM, "echo": True},
    "logprobs": {**STREAM, "logprobs": 1},
    "choices": {**STREAM, "n": 3, "stream_options": {"include_usage": True}},
    "chat": {**CHAT, "stream": True, "resumable": True},
    "tools": {**TOOLS, "stream": True, "resumable": True},
}


def numbered(body: bytes) -> list[Event]:
    """Take events apart: the id of each, and what it says."""
    events = []
    for part in body.decode().split("\n\n")[:-1]:
        *ids, data = part.split("\n")
        word = data.removeprefix("data: ")
        events.append(
            (ids[0].removeprefix("id: ") if ids else "", word if word == "[DONE]" else json.loads(word))
        )
    return events


def path_of(answer: Answer) -> str:
    return answer.headers["x-inferno-events"]


async def begin(client: Client, kind: str) -> Answer:  # noqa: F811
    if kind == "tools":
        client.gateway.script = saying(f"well <tool_call>{CALL}</tool_call> and {CALL}", 5)
    where = "/v1/chat/completions" if "messages" in KINDS[kind] else "/v1/completions"
    return await client.ask(where, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
async def test_after_each_event_comes_all_that_followed_it(autojump_clock: Clock, client: Client, kind: str):  # noqa: F811
    answer = await begin(client, kind)
    events = numbered(answer.body)
    assert len({id for id, _ in events}) == len(events) > 3
    assert events[-1][1] == "[DONE]"
    for number, (id, _) in enumerate(events[:-1]):
        rest = await client.ask(f"{path_of(answer)}?after={id}")
        assert rest.status == 200
        assert by_choice(numbered(rest.body)) == by_choice(events[number + 1 :])


def by_choice(events: list[Event]) -> dict[int, list[Any]]:
    """What each choice says, in order: how choices interleave is left to chance. -1 has what is of none."""
    told: dict[int, list[Any]] = {}
    for _, event in events:
        choices = event["choices"] if event != "[DONE]" else []
        told.setdefault(choices[0]["index"] if choices else -1, []).append(event)
    return told


@pytest.mark.parametrize("kind", ["completion", "chat", "tools"])
async def test_the_ids_are_the_same_when_it_is_told_again(autojump_clock: Clock, client: Client, kind: str):  # noqa: F811
    answer = await begin(client, kind)
    again = await client.ask(path_of(answer))
    assert again.body == answer.body


async def test_a_client_that_is_cut_off_comes_back_for_the_rest(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.pace_s = 1
    connection = client.connect()
    await connection.send_all(request("/v1/completions", {**STREAM, "max_tokens": 30}))
    await trio.sleep(10.5)
    head = Answer.of((await connection.receive_some(65536)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n0\r\n\r\n")
    await connection.aclose()
    await trio.sleep(5)
    [flight] = client.gateway.open.values()
    assert flight.delivered == 15
    rest = await client.ask(path_of(head), None, "Last-Event-ID: 10.37")
    events = numbered(rest.body)
    assert [event["inferno"]["tokens"] for _, event in events[:-1]] == [*range(11, 31), 30]
    assert events[-1][1] == "[DONE]"


async def test_who_does_not_come_back_in_time_is_forgotten(autojump_clock: Clock, client: Client):  # noqa: F811
    answer = await client.ask("/v1/completions", STREAM)
    await trio.sleep(59)
    client.gateway.pass_time()
    assert (await client.ask(path_of(answer))).status == 200
    await trio.sleep(61)
    client.gateway.pass_time()
    assert client.gateway.open == {}
    late = await client.ask(path_of(answer))
    assert (late.status, late.error["code"]) == (404, "not_found")


async def test_two_may_read_at_once_and_neither_ends_it_for_the_other(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.pace_s = 1
    answers: list[Answer] = []
    first = client.connect()
    await first.send_all(request("/v1/completions", STREAM))
    await trio.sleep(1.5)
    head = Answer.of((await first.receive_some(65536)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n0\r\n\r\n")
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            answers.append(await client.ask(path_of(head)))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()
    assert [event for _, event in numbered(answers[0].body)][-1] == "[DONE]"


async def test_an_error_is_told_again_to_who_comes_back(autojump_clock: Clock, client: Client):  # noqa: F811
    async def fail(gateway: FakeGateway, flight: Flight) -> None:
        gateway.accept(flight, "node-b")
        gateway.say(flight)
        gateway.refuse(flight, "engine_crash", "the engine died twice")

    client.gateway.script = fail
    answer = await client.ask("/v1/completions", STREAM)
    said, error = numbered(answer.body)
    assert (said[0], error[0], error[1]["error"]["code"]) == ("1.3", "", "engine_crash")
    again = numbered((await client.ask(path_of(answer) + "?after=1.3")).body)
    assert again == [error]


async def test_a_request_that_nobody_takes_is_not_kept(autojump_clock: Clock, client: Client):  # noqa: F811
    async def refuse(gateway: FakeGateway, flight: Flight) -> None:
        gateway.refuse(flight, "no_worker", "no worker could take it")

    client.gateway.script = refuse
    answer = await client.ask("/v1/completions", STREAM)
    assert (answer.status, client.gateway.open, client.gateway.claims.held) == (503, {}, {})


async def test_after_the_end_there_is_nothing(autojump_clock: Clock, client: Client):  # noqa: F811
    answer = await client.ask("/v1/completions", STREAM)
    last = numbered(answer.body)[-1][0]
    assert (await client.ask(f"{path_of(answer)}?after={last}")).status == 204


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?after=x", 400),
        ("?after=1.2,1.2", 400),
        (f"?after={'1' * (CHARACTERS_MAX + 1)}", 400),
        ("?" + "&".join("a=1" for _ in range(17)), 400),
    ],
)
async def test_what_is_no_id_is_refused_and_holds_nothing(
    autojump_clock: Clock,
    client: Client,  # noqa: F811
    query: str,
    status: int,
):
    answer = await client.ask("/v1/completions", STREAM)
    assert (await client.ask(path_of(answer) + query)).status == status
    assert client.gateway.claims.readers(int(answer.headers["x-request-id"], 16)) == 0


@pytest.mark.parametrize("id", ["0" * 16, "x", "1" * 17, "0x" + "1" * 14, "%D9%A1" * 16])
async def test_a_stream_that_nobody_made_is_not_found(autojump_clock: Clock, client: Client, id: str):  # noqa: F811
    assert (await client.ask(f"/v1/flights/{id}/events")).status == 404


async def test_the_head_alone_can_be_asked_for(autojump_clock: Clock, client: Client):  # noqa: F811
    answer = await client.ask("/v1/completions", STREAM)
    connection = client.connect()
    asked = request(path_of(answer), None, "Connection: close").replace(b"GET", b"HEAD", 1)
    await connection.send_all(asked)
    data = b""
    while piece := await connection.receive_some(65536):
        data += piece
    assert data.startswith(b"HTTP/1.1 200 OK\r\n") and data.endswith(b"\r\n\r\n")


async def test_a_whole_answer_is_not_resumable(autojump_clock: Clock, client: Client):  # noqa: F811
    answer = await client.ask("/v1/completions", {**ASK, "resumable": True})
    assert (answer.status, answer.error["param"]) == (400, "resumable")


async def test_what_waits_is_bounded_by_its_bytes(autojump_clock: Clock, client: Client):  # noqa: F811
    first = await client.ask("/v1/completions", STREAM)
    client.gateway.claims.options = ClaimOptions(waiting_bytes_max=1500)
    second = await client.ask("/v1/completions", STREAM)
    assert (await client.ask(path_of(first))).status == 404
    assert (await client.ask(path_of(second))).status == 200
