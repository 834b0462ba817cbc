"""Logits and texts equal those of transformers, for every architecture that we claim to run."""

import subprocess
import sys
from array import array
from importlib.util import find_spec
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file

from node.engine.plan import Plan
from node.engine.pool import embedding_of
from node.engine.runner import Runner
from tests.node.engine.tiny import LOW, generate, row

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")

ORACLE = Path(__file__).with_name("oracle_transformers.py")
CASES = (
    *("llama", "llama3", "linear", "yarn", "mistral", "qwen2", "qwen2 sliding", "qwen3"),
    *("phi3", "phi3 longrope", "smollm3"),
)
LOGPROB_ERROR_MAX = 1e-4
PROMPT, GENERATED = 40, 256


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("oracle")
    done = subprocess.run(
        [sys.executable, ORACLE, directory], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory


def logprobs(runner: Runner, ids: list[int]) -> torch.Tensor:
    """[positions, vocabulary], decoded token by token."""
    steps = [
        runner.logits(Plan((row([token], position, blocks=(3, 0, 5)),))) for position, token in enumerate(ids)
    ]
    return torch.cat(steps).double().log_softmax(-1)


@pytest.mark.parametrize("case", CASES)
def test_fp32_logits_and_greedy_text_are_those_of_transformers(answers: Path, case: str):
    expected = load_file(answers / case / "answers.safetensors")
    runner = Runner(answers / case / "fp32", dtype="fp32", threads=1, kv_blocks=8)
    assert runner.exact
    ids = expected["ids"].tolist()
    got = logprobs(runner, ids)
    error = (got - expected["fp32"].double().log_softmax(-1)).abs().max()
    assert float(error) <= LOGPROB_ERROR_MAX
    assert got.exp().max(-1).values.mean() > 0.05, "a flat distribution would show nothing"
    text = generate(runner, ids[:PROMPT], GENERATED, blocks=(1, 6))
    assert text == expected["greedy"].tolist()


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("case", ["llama", "phi3"])
def test_embeddings_are_those_of_transformers(answers: Path, case: str, pooling: str):
    expected = load_file(answers / case / "answers.safetensors")
    runner = Runner(answers / case / "fp32", dtype="fp32", threads=1, kv_blocks=8)
    ids, states = expected["ids"].tolist(), expected["states"].double()
    wanted = states[-1] if pooling == "last" else states.mean(0)
    got = torch.tensor(array("f", embedded(runner, ids, pooling, 200))).double()
    assert float((got - wanted / wanted.norm()).abs().max()) <= 1e-5
    assert embedded(runner, ids, pooling, 64) == embedded(runner, ids, pooling, 512)


def embedded(runner: Runner, ids: list[int], pooling: str, size: int) -> bytes:
    """The embedding of a prompt that is prefilled in chunks, beside a stranger who decodes."""
    carry, stranger = b"", row([5], 0, sequence=9, blocks=(7,))
    for start in range(0, len(ids), size):
        last = start + size >= len(ids)
        mine = attrs.evolve(
            row(ids[start : start + size], start, blocks=(3, 0, 5), sample=last), pooling=pooling, carry=carry
        )
        given = {one.sequence: one for one in runner.run(Plan((stranger, mine)))}
        assert 9 in given and given[9].vector == b""
        carry = given[0].vector if 0 in given else b""
    return embedding_of(pooling, carry, len(ids))


@pytest.mark.skipif(LOW != "bf16", reason="this CPU has no bf16 products")
@pytest.mark.parametrize("case", CASES)
def test_bf16_is_no_farther_from_fp32_than_half_again_transformers_own(answers: Path, case: str):
    expected = load_file(answers / case / "answers.safetensors")
    runner = Runner(answers / case / "bf16", threads=1, kv_blocks=8)
    assert runner.dtype == "bf16"
    reference = expected["fp32"].double().log_softmax(-1)
    theirs = (expected["bf16"].double().log_softmax(-1) - reference).abs()
    ours = (logprobs(runner, expected["ids"].tolist()) - reference).abs()
    assert float(ours.mean()) <= 1.5 * float(theirs.mean())
    assert float(ours.max()) <= 1.5 * float(theirs.max())
