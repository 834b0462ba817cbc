"""The engine with the real model: one text, whatever shares its steps, cuts its prompt or moves it."""

from pathlib import Path

import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Finish, Kind, Tokens
from node.engine.core import EngineCore, Options, describe
from node.engine.detokenizer import Detokenizer
from node.engine.scheduler import Limits
from node.engine.tokenizer import ModelText

MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"
PROMPT = (Path(__file__).parents[3] / "node" / "engine" / "scheduler.py").read_text()[:3500]
COUNT = 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="ember-py has not been exported"),
]


@pytest.fixture(scope="module")
def runner():
    from node.engine.runner import Runner

    return Runner(MODEL)


@pytest.fixture(scope="module")
def text() -> ModelText:
    return ModelText.load(MODEL)


def ask(seed: int, prompt: str | tuple[int, ...] = PROMPT, emitted: tuple[int, ...] = ()) -> Attempt:
    parameters = Parameters(max_tokens=COUNT, temperature=0.8, ignore_eos=True)
    segment = Segment("text", prompt) if isinstance(prompt, str) else Segment("ids", ids=prompt)
    return Attempt("ember-py", (segment,), parameters, seed, emitted)


@pytest.fixture
def say(runner, text):
    """Return a function that runs attempts together and gives ids and text of the first."""

    def run(*attempts: Attempt, chunk: int = 256) -> tuple[tuple[int, ...], str]:
        limits = Limits(step_tokens=chunk)
        core = EngineCore(
            Options(runner.block_tokens, limits, step_s_max=1e9), text, describe("ember-py", runner)
        )
        frames = [f for n, attempt in enumerate(attempts, 1) for f in core.receive(0.0, attempt.frame(n, 1))]
        while not core.idle:
            plan, named = core.plan(0.0)
            frames += named + core.commit(0.1, plan, runner.run(plan))
        core.scheduler.check_integrity()
        tokens = [Tokens.read(f) for f in frames if f.flight == 1 and f.kind == Kind.TOKENS]
        (finish,) = [Finish.read(f) for f in frames if f.flight == 1 and f.kind == Kind.FINISH]
        ids = tuple(id for t in tokens for id in t.ids)
        return ids, "".join(t.text for t in tokens) + finish.text

    return run


@pytest.fixture(scope="module")
def others() -> list[Attempt]:
    return [ask(seed, f"# Lib/case{seed}.py\n" + PROMPT[: 90 * seed]) for seed in range(2, 17)]


def test_alone_and_among_sixteen(say, others):
    alone = say(ask(1))
    assert len(alone[0]) == COUNT
    assert say(ask(1), *others) == alone


@pytest.mark.parametrize("chunk", [16, 100, 1000])
def test_in_chunks_of_any_size(say, others, chunk: int):
    alone = say(ask(1))
    assert say(ask(1), chunk=chunk) == alone
    assert say(ask(1), *others[:3], chunk=chunk) == alone


def test_resumed_at_every_position(say, text, runner):
    prompt = text.encode(ask(1))[: runner.block_tokens - COUNT // 2]  # so that the output enters a new block
    ids, said = say(ask(1, prompt))
    detokenizer, before = Detokenizer(), ""
    for position in range(COUNT + 1):
        assert say(ask(1, prompt, ids[:position])) == (ids[position:], said[len(before) :])
        if position < COUNT:
            before += detokenizer.push(text.piece(ids[position]))


def test_another_seed_says_something_else(say):
    assert say(ask(1)) != say(ask(2))
