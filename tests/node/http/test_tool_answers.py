"""Answers that call tools, whole and streamed, over a scripted worker."""

import json

import pytest
from trio.testing import MockClock as Clock

from mesh.flight import Flight
from mesh.frames import Tokens
from tests.node.http.fake import FakeGateway
from tests.node.http.test_http_api import Client, client  # noqa: F401  a fixture

CALL = '{"name": "find", "arguments": {"q": "x y"}}'
FIND = {"type": "function", "function": {"name": "find"}}
ASK = {"model": "ember-py", "messages": [{"role": "user", "content": "hi"}], "tools": [FIND]}


def saying(text: str, size: int = 7, moves_at: int = -1):
    async def script(gateway: FakeGateway, flight: Flight) -> None:
        gateway.accept(flight, "node-b")
        for index, start in enumerate(range(0, len(text), size)):
            if index == moves_at:
                gateway.accept(flight, "node-c")
            flight.tokens(flight.attempt, Tokens(index, (index,), text[start : start + size]))
            gateway.wake(flight)
        gateway.finish(flight, "stop")

    return script


def joined(events: list) -> tuple[str, list[dict], list[str]]:
    """Put a stream together as OpenAI's client does."""
    content, calls, reasons = "", [], []
    for event in events:
        if type(event) is not dict:
            continue
        (choice,) = event["choices"]
        content += choice["delta"].get("content") or ""
        for part in choice["delta"].get("tool_calls", []):
            if part["index"] == len(calls):
                calls.append({"id": part["id"], **part["function"]})
            else:
                calls[part["index"]]["arguments"] += part["function"]["arguments"]
        if choice["finish_reason"]:
            reasons.append(choice["finish_reason"])
    return content, calls, reasons


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("text", [f"<tool_call>\n{CALL}\n</tool_call>", CALL, f"[{CALL}]"])
async def test_a_call_is_told_in_openais_form(autojump_clock: Clock, client: Client, text: str, size: int):  # noqa: F811
    client.gateway.script = saying(text, size, moves_at=3)
    streamed = await client.ask("/v1/chat/completions", {**ASK, "stream": True})
    content, calls, reasons = joined(streamed.events)
    assert (content, reasons) == ("", ["tool_calls"])
    ((call),) = calls
    assert (call["name"], json.loads(call["arguments"])) == ("find", {"q": "x y"})
    whole = json.loads((await client.ask("/v1/chat/completions", ASK)).body)["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    (said,) = whole["message"]["tool_calls"]
    assert said["function"] == {"name": call["name"], "arguments": call["arguments"]}
    assert said["id"].startswith("call_")


async def test_words_beside_calls_stay_words(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.script = saying(f"I look. <tool_call>{CALL}</tool_call>")
    message = json.loads((await client.ask("/v1/chat/completions", ASK)).body)["choices"][0]["message"]
    assert message["content"] == "I look. "
    assert len(message["tool_calls"]) == 1


async def test_an_answer_without_a_call_is_as_ever(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.script = saying('{"answer": 42}')
    content, calls, reasons = joined(
        (await client.ask("/v1/chat/completions", {**ASK, "stream": True})).events
    )
    assert (content, calls, reasons) == ('{"answer": 42}', [], ["stop"])
    choice = json.loads((await client.ask("/v1/chat/completions", ASK)).body)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"answer": 42}', "stop")
    assert "tool_calls" not in choice["message"]


async def test_a_named_function_ends_with_stop(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.script = saying('{"q": 1}', 3)
    choice = {"type": "function", "function": {"name": "find"}}
    body = {**ASK, "tool_choice": choice, "stream": True}
    content, calls, reasons = joined((await client.ask("/v1/chat/completions", body)).events)
    assert (content, reasons) == ("", ["stop"])
    assert [(call["name"], call["arguments"]) for call in calls] == [("find", '{"q": 1}')]
    assert client.gateway.submitted[-1].grammar
