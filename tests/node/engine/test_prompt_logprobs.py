"""The prompt's own log-probabilities: each token's, whatever the chunks, the company, the moves and the memory."""

import functools
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mesh.attempt import Attempt, Parameters, Segment
from mesh.flight import Flight
from mesh.frames import Accept, Kind, Prompt, PromptToken, Reject, Tokens
from node.engine.core import EngineCore, Options, describe
from node.engine.plan import Row, Sampling, choices, yields
from node.engine.scheduler import SCORED_MAX, Limits
from node.engine.toy import ROOT, ToyRunner, _advance
from tests.node.engine.conversation import VERBS, Engine, ask
from tests.node.engine.test_resume_everywhere import Inventor, invented

VERBS[Kind.PROMPT] = Prompt


def engine(limits: Limits | None = None, blocks: int = 256) -> Engine:
    runner = Inventor(blocks=blocks, block_tokens=4, context_max=512)
    return Engine(runner, limits=limits or Limits())


def told(one: Engine, flight: int = 1) -> list[PromptToken]:
    """Put the frames together as the entry does."""
    tokens: list[PromptToken] = []
    for frame in one.verbs(Prompt, flight):
        assert frame.position <= len(tokens)
        tokens += frame.tokens[len(tokens) - frame.position :]
    return tokens


@functools.cache
def expected(prompt: bytes) -> list[tuple[int, float, int]]:
    """(id, log-probability, rank) of every token but the first, from the definition."""
    states = itertools.accumulate(prompt, _advance, initial=ROOT)
    scores = [torch.log_softmax(invented(state), -1) for state in list(states)[1:-1]]
    return [
        (id, float(score[id]), int((score > score[id]).sum()) + 1)
        for id, score in zip(prompt[1:], scores, strict=True)
    ]


@pytest.mark.parametrize("size", [1, 2, SCORED_MAX, SCORED_MAX + 1, 3 * SCORED_MAX])
def test_every_token_of_the_prompt_is_scored(size: int):
    prompt = ("how likely is this? " * 12)[:size]
    one = engine()
    one.open(ask(prompt, prompt_logprobs=2, max_tokens=3))
    one.run()
    first, *rest = told(one)
    assert (first.id, first.token, first.logprob, first.rank, first.top) == (ord("h"), b"h", 0.0, 0, ())
    assert [(token.id, token.logprob, token.rank) for token in rest] == expected(prompt.encode())
    assert all(len(token.top) == 2 and token.top[0].logprob >= token.top[1].logprob for token in rest)


@given(st.text("ab", min_size=1, max_size=90), st.integers(3, 40), st.integers(0, 3), st.integers(24, 100))
def test_chunks_company_and_little_memory_change_nothing(prompt: str, step: int, others: int, blocks: int):
    one = engine(Limits(step_tokens=step, draft_rows=8), blocks)
    for flight in range(others):
        one.open(ask("ab" * 7, flight, max_tokens=30), flight + 2)
    one.open(ask(prompt, prompt_logprobs=0, max_tokens=4))
    one.run()
    if one.verbs(Reject):
        return
    assert [(token.id, token.logprob, token.rank) for token in told(one)[1:]] == expected(prompt.encode())
    alone = engine()
    alone.open(ask(prompt, max_tokens=4))
    alone.run()
    assert one.text() == alone.text()


def test_a_prompt_that_is_in_the_cache_is_scored_all_the_same():
    one = engine()
    one.open(ask("a prompt that stays in the cache"))
    one.run()
    one.open(ask("a prompt that stays in the cache", prompt_logprobs=0), 2)
    one.run()
    assert len(told(one, 2)) == 32


def test_who_asks_nothing_is_told_nothing():
    one = engine()
    one.open(ask("hello"))
    one.run()
    assert one.verbs(Prompt) == []


def test_an_engine_that_cannot_score_says_so():
    one = Engine(ToyRunner(blocks=64, block_tokens=4, context_max=512), scores=False)
    (reject,) = one.open(ask(prompt_logprobs=0))
    assert (reject.code, reject.param) == ("unsupported_parameter", "prompt_logprobs")


@pytest.mark.parametrize("kill_at", range(6))
def test_the_entry_has_each_token_once_whenever_the_engine_dies(kill_at: int):
    prompt = "p" * (2 * SCORED_MAX + 10)
    flight = Flight(1, ask(prompt, prompt_logprobs=1, max_tokens=3))
    flight.route()
    for steps in (kill_at, 100):
        one = engine()
        one.open(flight.open("worker", 0), 1, flight.attempt)
        for _ in range(steps):
            one.step()
        for _, number, verb in one.said:
            match verb:
                case Accept():
                    flight.accept(number, verb)
                case Prompt():
                    assert flight.prompted(number, verb)
                case Tokens():
                    assert flight.tokens(number, verb)
        flight.lost(flight.attempt, "killed")
    assert [(token.id, token.logprob, token.rank) for token in flight.prompt[1:]] == expected(prompt.encode())
    assert flight.delivered == 3


def test_scores_of_another_attempt_or_with_a_gap_are_not_taken():
    flight = Flight(1, ask("hello", prompt_logprobs=1))
    flight.route()
    flight.open("worker", 0)
    token = PromptToken(1, b"a")
    assert not flight.prompted(1, Prompt(0, (token,))), "before it was accepted"
    flight.accept(1, Accept(5))
    assert not flight.prompted(2, Prompt(0, (token,)))
    assert not flight.prompted(1, Prompt(1, (token,)))
    assert flight.prompted(1, Prompt(0, (token,) * 2))
    assert flight.prompted(1, Prompt(1, (token,) * 2))
    assert len(flight.prompt) == 3
    flight.tokens(1, Tokens(0, (1,)))
    assert not flight.prompted(1, Prompt(3, (token,))), "after the output has begun"


def test_a_scored_row_is_one_row_per_token_to_the_sampler():
    row = Row(1, (5, 6, 7), 4, (0,), True, Sampling(9), (1, 2, 3, 4, 5, 6, 7), scored=2)
    assert yields(row) == 3
    assert [(one.target, one.sampling.logprobs) for one in choices(row)] == [(6, 2), (7, 2), (None, None)]
    first = Row(1, (1, 2), 0, (0,), False, Sampling(9), (1, 2, 3), scored=0)
    assert [one.target for one in choices(first)] == [2, 3]


MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"


@pytest.mark.slow
@pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="ember-py has not been exported")
def test_what_the_model_said_is_as_likely_as_a_prompt_to_the_bit():
    from node.engine.runner import Runner
    from node.engine.tokenizer import ModelText

    runner, text = Runner(MODEL, threads=1), ModelText.load(MODEL)

    def run(attempt: Attempt) -> list:
        core = EngineCore(Options(runner.block_tokens, step_s_max=1e9), text, describe("ember-py", runner))
        frames = core.receive(0.0, attempt.frame(1, 1))
        while not core.idle:
            plan, named = core.plan(0.0)
            frames += named + core.commit(0.1, plan, runner.run(plan))
        return frames

    prompt = text.encode(Attempt("m", (Segment("text", "def f(x):\n"),), Parameters(), 1))
    said = run(
        Attempt("m", (Segment("ids", ids=prompt),), Parameters(max_tokens=90, ignore_eos=True, logprobs=3), 5)
    )
    tokens = [Tokens.read(frame) for frame in said if frame.kind == Kind.TOKENS]
    ids = tuple(id for one in tokens for id in one.ids)
    again = Attempt(
        "m", (Segment("ids", ids=(*prompt, *ids)),), Parameters(max_tokens=1, prompt_logprobs=3), 5
    )
    scored = [t for frame in run(again) if frame.kind == Kind.PROMPT for t in Prompt.read(frame).tokens]
    assert [t.id for t in scored] == [*prompt, *ids]
    generated = [one for t in tokens for one in t.logprobs]
    assert [t.logprob for t in scored[len(prompt) :]] == [one.logprob for one in generated]
    tops = [tuple((r.token, r.logprob) for r in t.top) for t in scored[len(prompt) :]]
    assert tops == [one.top for one in generated]
