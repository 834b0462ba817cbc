"""Answers that tell of their prompt: `prompt_logprobs`, and an echo with log-probabilities."""

import json

import pytest
from trio.testing import MockClock as Clock

from mesh.flight import Flight
from mesh.frames import Logprob, Prompt, PromptToken, Ranked, Tokens
from node.http.openai import echo_document
from tests.node.http.fake import FakeGateway
from tests.node.http.test_http_api import Client, client  # noqa: F401  a fixture

ASK = {"model": "ember-py", "prompt": "ab", "max_tokens": 1}
PROMPT = (
    PromptToken(7, b"a"),
    PromptToken(8, b"b", -1.5, 3, (Ranked(9, b"x", -0.5), Ranked(10, b"y", -1.0))),
)


async def script(gateway: FakeGateway, flight: Flight) -> None:
    gateway.accept(flight, "node-b")
    assert flight.prompted(flight.attempt, Prompt(0, PROMPT))
    flight.tokens(flight.attempt, Tokens(0, (11,), "c", (Logprob(b"c", -0.25, ((b"c", -0.25),)),)))
    gateway.finish(flight)


async def test_prompt_logprobs_are_told_by_id(autojump_clock: Clock, client: Client):  # noqa: F811
    client.gateway.script = script
    answer = json.loads((await client.ask("/v1/completions", {**ASK, "prompt_logprobs": 2})).body)
    assert client.gateway.submitted[0].parameters.prompt_logprobs == 2
    nothing, second = answer["choices"][0]["prompt_logprobs"]
    assert nothing is None
    assert second == {
        "9": {"logprob": -0.5, "rank": 1, "decoded_token": "x"},
        "10": {"logprob": -1.0, "rank": 2, "decoded_token": "y"},
        "8": {"logprob": -1.5, "rank": 3, "decoded_token": "b"},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_an_echo_has_the_prompts_logprobs_first(autojump_clock: Clock, client: Client, stream: bool):  # noqa: F811
    client.gateway.script = script
    answer = await client.ask("/v1/completions", {**ASK, "echo": True, "logprobs": 2, "stream": stream})
    assert client.gateway.submitted[0].parameters.prompt_logprobs == 2
    parts = [e["choices"][0] for e in answer.events[:-1]] if stream else json.loads(answer.body)["choices"]
    assert "".join(part["text"] for part in parts) == "abc"
    told = [part["logprobs"] for part in parts if part["logprobs"]]
    joined = {name: [item for one in told for item in one[name]] for name in told[0]}
    assert joined == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -1.5, -0.25],
        "top_logprobs": [None, {"x": -0.5, "y": -1.0}, {"c": -0.25}],
        "text_offset": [0, 1, 2],
    }


async def test_fields_that_nobody_knows_are_named_in_a_header(autojump_clock: Clock, client: Client):  # noqa: F811
    answer = await client.ask("/v1/completions", {**ASK, "ordering_of_moons": 1, "zz": 2})
    assert answer.headers["x-inferno-ignored"] == "ordering_of_moons, zz"
    assert "x-inferno-ignored" not in (await client.ask("/v1/completions", ASK)).headers


def test_tokens_that_the_tokeniser_has_added_take_no_room():
    added = (PromptToken(0, b"<|begin|>"), PromptToken(1, b"im", -1.0), PromptToken(2, b"port", -2.0))
    assert echo_document(added, "import os")["text_offset"] == [0, 0, 2]
