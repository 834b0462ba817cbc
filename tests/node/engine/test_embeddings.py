"""Embeddings through the engine: the same vector however the prompt is cut, shared or pre-empted."""

import random

import attrs
import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Finish, Frame, Kind, Reject
from node.engine.core import EngineCore, Options, describe
from node.engine.scheduler import Limits
from node.engine.toy import ToyRunner, ToyText, expected_embedding, expected_text

TEXT = "a prompt that is longer than three blocks of sixteen tokens, so that it is cut"


def attempt(text: str = TEXT, pooling: str = "last", **more: object) -> Attempt:
    return Attempt("toy", (Segment("text", text),), Parameters(max_tokens=0), 0, pooling=pooling, **more)  # type: ignore[arg-type]


def engine(step_tokens: int = 256, blocks: int = 64, embeds: bool = True) -> tuple[EngineCore, ToyRunner]:
    runner = ToyRunner(blocks=blocks)
    options = Options(runner.block_tokens, Limits(step_tokens), embeds=embeds)
    return EngineCore(options, ToyText(), describe("toy", runner)), runner


def drain(core: EngineCore, runner: ToyRunner) -> dict[int, list[Frame]]:
    """Compute until there is nothing left; return the frames of each ticket."""
    frames: dict[int, list[Frame]] = {}
    while (planned := core.plan(0.0))[0] is not None:
        plan = planned[0]
        for frame in (*planned[1], *core.commit(0.0, plan, runner.run(plan))):
            frames.setdefault(frame.flight, []).append(frame)
    core.scheduler.check_integrity()
    return frames


def vector_of(frames: list[Frame]) -> bytes:
    (finish,) = [Finish.read(frame) for frame in frames if frame.kind == Kind.FINISH]
    assert finish.position == 0 and not any(frame.kind == Kind.TOKENS for frame in frames)
    return finish.vector


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("step_tokens", [1, 5, 16, 256])
def test_the_vector_does_not_depend_on_the_size_of_steps(pooling: str, step_tokens: int):
    core, runner = engine(step_tokens)
    core.receive(0.0, attempt(pooling=pooling).frame(1, 1))
    assert vector_of(drain(core, runner)[1]) == expected_embedding(TEXT, pooling)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_prompt_that_was_asked_before_gives_the_same_vector(pooling: str):
    core, runner = engine()
    for flight in (1, 2):
        core.receive(0.0, attempt(pooling=pooling).frame(flight, 1))
        assert vector_of(drain(core, runner)[flight]) == expected_embedding(TEXT, pooling)


def test_embeddings_and_streams_share_steps_and_memory():
    source, (core, runner) = random.Random(4), engine(step_tokens=24, blocks=16)
    texts = ["".join(source.choices("abcdef ", k=source.randint(1, 90))) for _ in range(24)]
    for flight, text in enumerate(texts, start=1):
        pooling = ("", "last", "mean")[flight % 3]
        asked = attempt(text, pooling)
        if not pooling:
            asked = attrs.evolve(asked, parameters=Parameters(max_tokens=40))
        core.receive(0.0, asked.frame(flight, 1))
    frames = drain(core, runner)
    assert core.scheduler.preemptions > 0
    for flight, text in enumerate(texts, start=1):
        if flight % 3:
            assert vector_of(frames[flight]) == expected_embedding(text, ("", "last", "mean")[flight % 3])
        else:
            assert expected_text(text, 0, 40).startswith(said(frames[flight]))


def said(frames: list[Frame]) -> str:
    from mesh.frames import Tokens

    text = "".join(Tokens.read(frame).text for frame in frames if frame.kind == Kind.TOKENS)
    assert text
    return text


def test_one_token_is_embedded_too():
    core, runner = engine()
    core.receive(0.0, attempt("x", "mean").frame(1, 1))
    assert vector_of(drain(core, runner)[1]) == expected_embedding("x")


def test_an_engine_that_cannot_sends_the_request_elsewhere_and_an_unknown_pooling_is_refused_for_good():
    for embeds, pooling, retryable in ((False, "last", True), (True, "max", False)):
        core, _ = engine(embeds=embeds)
        frame = next(
            f for f in core.receive(0.0, attempt(pooling=pooling).frame(1, 1)) if f.kind == Kind.REJECT
        )
        reject = Reject.read(frame)
        assert (reject.param, reject.retryable) == ("pooling", retryable)
