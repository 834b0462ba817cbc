"""One request that engines on different devices serve in turn: what each must say, and what must fit together."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Accept, Finish, Kind, Tokens
from node.engine.core import EngineCore, Options, describe
from node.engine.detokenizer import Detokenizer
from node.engine.scheduler import Limits
from node.engine.tokenizer import ModelText

MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"
PROMPT = "def mean(values):\n    return sum("
COUNT = 9


@attrs.frozen
class Leg:
    """What one engine said of the request before it was taken away, or to its end."""

    position: int
    """Of its first token."""
    ids: tuple[int, ...]
    text: str
    policy: str
    finished: bool


def serve(runner, emitted: Sequence[int], count: int, prompt: str = PROMPT) -> Leg:
    """Go on after `emitted` for `count` tokens, or to the end; the engine is gone then, without a word."""
    text = ModelText.load(MODEL)
    core = EngineCore(
        Options(runner.block_tokens, Limits(), step_s_max=1e9), text, describe("ember-py", runner)
    )
    parameters = Parameters(max_tokens=COUNT, temperature=0.8, ignore_eos=True)
    attempt = Attempt("ember-py", (Segment("text", prompt),), parameters, 5, tuple(emitted))
    frames = core.receive(0.0, attempt.frame(1, 1))
    while not core.idle and _said(frames) < count:
        plan, named = core.plan(0.0)
        frames += named + core.commit(0.1, plan, runner.run(plan))
    (accept,) = [Accept.read(frame) for frame in frames if frame.kind == Kind.ACCEPT]
    tokens = [Tokens.read(frame) for frame in frames if frame.kind == Kind.TOKENS]
    finish = [Finish.read(frame) for frame in frames if frame.kind == Kind.FINISH]
    said = "".join(one.text for one in tokens) + "".join(one.text for one in finish)
    ids = tuple(id for one in tokens for id in one.ids)
    return Leg(tokens[0].position, ids, said, accept.policy_digest, bool(finish))


def _said(frames: list) -> int:
    return sum(len(Tokens.read(frame).ids) for frame in frames if frame.kind == Kind.TOKENS)


def check(legs: Sequence[Leg]) -> None:
    """Fail unless the legs are one gapless text: each position once, in order, each byte once."""
    ids: tuple[int, ...] = ()
    for leg in legs:
        assert leg.position == len(ids)
        ids += leg.ids
    assert [leg.finished for leg in legs] == [False] * (len(legs) - 1) + [True]
    assert len(ids) == COUNT
    text, whole = ModelText.load(MODEL), Detokenizer()
    assert (
        "".join(leg.text for leg in legs) == "".join(whole.push(text.piece(id)) for id in ids) + whole.rest()
    )


def move(runners: Sequence[object]) -> list[Leg]:
    """Serve one request on engines in turn, some tokens each, the last to the end; check that it is one text."""
    share, ids, legs = COUNT // len(runners), (), []
    for runner in runners:
        count = COUNT if runner is runners[-1] and len(legs) == len(runners) - 1 else share
        legs.append(serve(runner, ids, count))
        ids += legs[-1].ids
    check(legs)
    for runner, leg in zip(runners, legs, strict=True):
        assert runner.policy.startswith(leg.policy)
    return legs
