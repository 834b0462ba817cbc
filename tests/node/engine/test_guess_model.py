"""Guessing ahead with the real model: the same bits, so the same text; and what it costs where it cannot help."""

from pathlib import Path

import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Finish, Kind, Tokens
from node.engine.core import EngineCore, Options, describe
from node.engine.scheduler import Limits
from node.engine.tokenizer import ModelText

MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="ember-py has not been exported"),
]

PROMPTS = (
    "def add_one(x):\n    return x + 1\n\n\ndef add_two(x):\n    return x + 2\n\n\ndef add_three(x):\n",
    "import os\n",
)
KINDS = (
    Parameters(max_tokens=80, temperature=0.0, ignore_eos=True),
    Parameters(max_tokens=80, temperature=0.7, top_p=0.95, ignore_eos=True, logprobs=1),
    Parameters(max_tokens=80, temperature=0.9, frequency_penalty=0.2, stop=("five",)),
)


@pytest.fixture(scope="module")
def text() -> ModelText:
    return ModelText.load(MODEL)


def run(runner, text: ModelText, draft_rows: int) -> tuple[EngineCore, list, int]:
    options = Options(runner.block_tokens, Limits(draft_rows=draft_rows), step_s_max=1e9)
    core = EngineCore(options, text, describe("ember-py", runner))
    said, steps = [], 0
    for number, parameters in enumerate(KINDS * len(PROMPTS)):
        attempt = Attempt("ember-py", (Segment("text", PROMPTS[number // len(KINDS)]),), parameters, number)
        frames = core.receive(0.0, attempt.frame(1, number))
        while not core.idle:
            plan, named = core.plan(0.0)
            frames += named + core.commit(0.1, plan, runner.run(plan))
            steps += 1
        tokens = [Tokens.read(f) for f in frames if f.kind == Kind.TOKENS]
        (finish,) = [Finish.read(f) for f in frames if f.kind == Kind.FINISH]
        ids = [id for one in tokens for id in one.ids]
        logprobs = [one for t in tokens for one in t.logprobs]
        said.append((ids, "".join(one.text for one in tokens) + finish.text, finish.reason, logprobs))
    core.scheduler.check_integrity()
    return core, said, steps


@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_the_real_model_says_the_same_with_guesses(text: ModelText, dtype: str):
    from node.engine.config_hf import ModelError
    from node.engine.runner import Runner

    try:
        runner = Runner(MODEL, dtype=dtype, threads=1)
    except ModelError as error:
        pytest.skip(str(error))
    _, plain, steps = run(runner, text, 0)
    core, guessed, fewer = run(runner, text, 16)
    assert guessed == plain
    assert core.scheduler.accepted > 20
    assert fewer < steps
