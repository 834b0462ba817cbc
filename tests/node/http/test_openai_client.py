"""The official client, unmodified, against a node's port."""

from array import array
from collections.abc import Iterator

import openai
import pytest

from node.engine.toy import expected_embedding
from tests.node.http.fake import TEXT, FakeGateway
from tests.node.http.harness import Ports, running

pytestmark = pytest.mark.process

SAID = "".join(TEXT)
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with running(FakeGateway()) as made:
        yield made


@pytest.fixture
def client(ports: Ports) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ports.http}/v1", api_key="none", max_retries=0, timeout=20) as made:
        yield made


def test_it_lists_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["ember-py"]
    assert client.models.retrieve("ember-py").owned_by == "inferno"


def test_it_completes(client: openai.OpenAI):
    answer = client.completions.create(model="ember-py", prompt="a b", max_tokens=7, seed=1, n=2, logprobs=1)
    assert [choice.text for choice in answer.choices] == [SAID, SAID]
    assert answer.choices[0].logprobs.tokens == list(TEXT)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 14)


def test_it_embeds(client: openai.OpenAI):
    texts = ["one", "two words", "three"]
    answer = client.embeddings.create(model="ember-py", input=texts)  # the client asks for base64 by itself
    wanted = [list(array("f", expected_embedding(text))) for text in texts]
    assert [one.embedding for one in answer.data] == wanted
    assert [one.index for one in answer.data] == [0, 1, 2] and answer.usage.total_tokens == 4
    plain = client.embeddings.create(model="ember-py", input="one", encoding_format="float")
    assert plain.data[0].embedding == wanted[0]
    short = client.embeddings.create(model="ember-py", input="one", dimensions=4).data[0].embedding
    length = sum(value**2 for value in wanted[0][:4]) ** 0.5
    assert short == pytest.approx([value / length for value in wanted[0][:4]], abs=1e-6)


def test_it_streams(client: openai.OpenAI):
    events = list(client.completions.create(model="ember-py", prompt="a", max_tokens=7, stream=True))
    assert "".join(event.choices[0].text for event in events) == SAID
    assert events[-1].choices[0].finish_reason == "length"


def test_it_chats(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="ember-py", messages=MESSAGES, logprobs=True, top_logprobs=1, stop=["x"], temperature=0
    )
    assert answer.choices[0].message.content == SAID
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "def"


def test_it_streams_a_chat_with_usage(client: openai.OpenAI):
    with client.chat.completions.stream(
        model="ember-py", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_completion()
    assert whole.choices[0].message.content == SAID
    assert whole.usage.completion_tokens == len(TEXT)
    assert kinds.count("content.delta") == 1 + len(TEXT)  # the first is the empty one that names the role


def test_several_choices_of_a_streamed_chat(client: openai.OpenAI):
    texts = {0: "", 1: "", 2: ""}
    for event in client.chat.completions.create(model="ember-py", messages=MESSAGES, n=3, stream=True):
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == dict.fromkeys(range(3), SAID)


def test_its_errors_are_its_own(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="none", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="`temperature` is `3`") as bad:
        client.completions.create(model="ember-py", prompt="a", temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="`functions` is not supported yet"):
        client.chat.completions.create(model="ember-py", messages=MESSAGES, functions=[{"name": "f"}])


def test_closing_a_stream_lets_go_of_the_flight(ports: Ports, client: openai.OpenAI):
    stream = client.completions.create(model="ember-py", prompt="a", max_tokens=10_000_000, stream=True)
    next(stream)
    stream.close()
    for _ in range(200):  # each is a round trip to the node, which notices in one of them
        client.models.list()
        if not ports.gateway.open:
            break
    assert not ports.gateway.open


def test_the_request_id_is_on_every_answer(client: openai.OpenAI):
    raw = client.completions.with_raw_response.create(model="ember-py", prompt="a", max_tokens=1)
    assert raw.headers["x-inferno-node"] == "node-a"
    assert raw.request_id == raw.parse().id.removeprefix("cmpl-")
