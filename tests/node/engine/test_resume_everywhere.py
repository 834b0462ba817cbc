"""Killed at every token, every kind of stream goes on to the same text: the real sampler over invented logits."""

import functools

import pytest
import torch

from kernels.sample import gumbel
from mesh import grammar
from node.engine.plan import Plan, Sampled, choices, yields
from node.engine.process import ToyGrammars
from node.engine.sampler import sample
from node.engine.toy import VOCABULARY, ToyRunner
from tests.node.engine.conversation import Engine, ask
from tests.node.engine.test_core_text import moved


@functools.cache
def invented(state: int) -> torch.Tensor:
    """Logits that are a function of all ids before, peaked enough that penalties and filters matter."""
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(state % 2**63))


class Inventor(ToyRunner):
    """The toy's memory of what came before, and the engine's own sampler."""

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        sampled, states = [], []
        for row in plan.rows:
            known = self._compute(row)
            for one in choices(row) if yields(row) else ():
                sampled.append(one)
                states.append(known[len(one.ids) - 1])
        return (
            sample(torch.stack([invented(state) for state in states]).clone(), sampled, gumbel)
            if sampled
            else ()
        )


def engine(runner=None) -> Engine:
    return Engine(Inventor(blocks=256, block_tokens=4, context_max=512), grammars=ToyGrammars())


TOOLS = {
    "type": "array", "minItems": 1, "maxItems": 2,
    "items": {
        "type": "object", "additionalProperties": False, "required": ["name", "parameters"],
        "properties": {"name": {"enum": ["find", "open"]}, "parameters": {"enum": [{"x": 1}, {"y": [2]}, {}]}},
    },
}  # fmt: skip

KINDS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.1, "top_p": 0.9},
    "filtered": {"top_k": 20, "min_p": 0.01, "typical_p": 0.9},
    "penalised": {"frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.4},
    "biased": {"logit_bias": ((300, 6.0), (301, 6.0)), "bad_words": ("e", " ba"), "min_tokens": 9},
    "stopped": {"stop": ("zz", "q"), "temperature": 1.5, "logit_bias": ((113, 5.0),)},
    "with logprobs": {"logprobs": 3, "temperature": 0.9},
    "constrained": {"grammar": grammar.write("json", {"type": "array", "items": {"type": "integer"}})},
    "tool call": {"grammar": grammar.write("json", TOOLS), "max_tokens": 300},
    "matched": {"grammar": grammar.write("regex", "([a-f]{4}-){3}[0-9]{2}"), "presence_penalty": 1.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_killed_at_any_token_says_the_same(kind: str):
    attempt = ask(f"a {kind} stream", 11, **{"max_tokens": 40, **KINDS[kind]})
    whole, text = moved(attempt, [], make=engine)
    assert text
    logprobs = [one for chunk in whole.log for one in chunk.logprobs]
    for index in range(1, len(whole.ids) + 1):
        flight, again = moved(attempt, [index], make=engine)
        assert (again, flight.ids, flight.finish) == (text, whole.ids, whole.finish)
        assert [one for chunk in flight.log for one in chunk.logprobs] == logprobs


def test_bad_words_are_not_said():
    words = ("e", " ba", "o")
    whole, _ = moved(ask("x", 11, bad_words=words, max_tokens=200, ignore_eos=True), [], make=engine)
    assert len(whole.ids) == 200
    assert not {ord("e"), ord("o")} & set(whole.ids)
    assert tuple(b" ba") not in zip(whole.ids, whole.ids[1:], whole.ids[2:], strict=False)
