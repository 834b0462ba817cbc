"""The promise that failover rests on: a token depends on its own sequence and on nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import probe
from node.engine.plan import Plan, Row, Sampling
from node.engine.runner import Runner
from tests.node.engine.tiny import LLAMA, LONG, LOW, QWEN3, by, generate, load, row, write

SAMPLING = Sampling(
    seed=77, temperature=0.9, top_p=0.95, frequency_penalty=0.3, presence_penalty=0.1, logprobs=2
)
PROMPT = [index * 37 % 320 for index in range(70)]
COUNT = 40
CASES = {
    "llama": (LLAMA, LOW),
    "llama-int8": (LLAMA, "int8"),
    "llama-fp32": (LLAMA, "fp32"),
    "qwen3": (QWEN3, LOW),
    "long": (LONG, LOW),
    "long-int8": (LONG, "int8"),
}


@pytest.fixture(scope="module", params=CASES)
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    config, dtype = CASES[request.param]
    runner = load(write(tmp_path_factory.mktemp(request.param), config), dtype, kv_blocks=32 + 15 * 4)
    assert runner.exact, "this machine has no row-independent path; the engine would say so"
    assert runner.dtype == dtype
    return runner


@pytest.fixture(scope="module")
def undisturbed(runner: Runner) -> list[int]:
    return generate(runner, PROMPT, COUNT, SAMPLING)


def strangers(count: int) -> list[list[Row]]:
    """For each step, `count` other sequences at other lengths: decoding, prefilling, sampling otherwise."""

    def one(number: int, step: int) -> Row:
        blocks = tuple(range(32 + 4 * number, 36 + 4 * number))
        size = 1 if (number + step) % 3 else 5
        start = min(step + 7 * number, 120) if step else 0
        ids = [
            (number * 31 + step + place) % 320 for place in range(size if step else start + 7 * number + 1)
        ]
        return row(ids, start, 100 + number, blocks, Sampling(seed=number, temperature=number % 3 / 2), True)

    return [[one(number, step) for number in range(count)] for step in range(200)]


def test_the_text_is_not_degenerate(undisturbed: list[int]):
    assert len(set(undisturbed)) > 10


def test_the_same_alone_and_in_a_batch_of_sixteen(runner: Runner, undisturbed: list[int]):
    others = strangers(15)
    assert generate(runner, PROMPT, COUNT, SAMPLING, beside=lambda step: others[step]) == undisturbed


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 31, 32, 33, 64])
def test_the_same_with_prefill_in_chunks(runner: Runner, undisturbed: list[int], size: int):
    others = strangers(3)
    assert generate(runner, PROMPT, COUNT, SAMPLING, chunks=by(size)) == undisturbed
    mixed = generate(runner, PROMPT, COUNT, SAMPLING, chunks=by(size), beside=lambda step: others[step])
    assert mixed == undisturbed


def test_the_same_on_two_threads(runner: Runner, undisturbed: list[int]):
    others = strangers(15)
    with probe.threads(2):
        assert generate(runner, PROMPT, COUNT, SAMPLING) == undisturbed
        assert generate(runner, PROMPT, COUNT, SAMPLING, beside=lambda step: others[step]) == undisturbed


@pytest.mark.parametrize("emitted", [0, 1, 2, 13, 25, 26, 27, COUNT - 1])
def test_resumed_from_the_tokens_alone_at_any_offset(runner: Runner, undisturbed: list[int], emitted: int):
    others = strangers(5)
    rest = generate(
        runner,
        PROMPT,
        COUNT - emitted,
        SAMPLING,
        produced=undisturbed[:emitted],
        chunks=by(29),
        beside=lambda step: others[step],
        blocks=range(20, 32),
    )
    assert rest == undisturbed[emitted:]


def test_another_seed_gives_another_text(runner: Runner, undisturbed: list[int]):
    other = Sampling(seed=78, temperature=0.9, top_p=0.95, frequency_penalty=0.3, presence_penalty=0.1)
    assert generate(runner, PROMPT, COUNT, other) != undisturbed


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 2), st.data())
def test_logits_have_the_same_bits_however_the_tokens_are_cut(
    runner: Runner, sizes: list[int], threads: int, data: st.DataObject
):
    ids = [index * 53 % 320 for index in range(sum(sizes))]
    whole = runner.logits(Plan((row(ids),)))
    start = 0
    with probe.threads(threads):
        for size in sizes:
            company = strangers(data.draw(st.integers(0, 15)))[1]
            logits = runner.logits(Plan((*company, row(ids[start : start + size], start))))
            start += size
    assert torch.equal(logits[-1:], whole)


def test_a_poisoned_tenant_leaves_nothing_in_its_blocks(runner: Runner, undisturbed: list[int]):
    runner._cache.fill_(torch.nan)
    assert generate(runner, PROMPT, COUNT, SAMPLING) == undisturbed


SEPARATE = """
import sys
from pathlib import Path
from tests.node.engine.tiny import generate, load
from tests.node.engine.test_invariance import PROMPT, SAMPLING
runner = load(Path(sys.argv[1]), threads=int(sys.argv[2]))
print(runner.policy, runner.digest, *generate(runner, PROMPT, 20, SAMPLING))
"""


def test_another_process_on_other_threads_agrees_in_text_and_policy(tmp_path: Path):
    write(tmp_path, LLAMA)
    root = Path(__file__).parents[3]
    answers = [
        subprocess.run(
            [sys.executable, "-c", SEPARATE, str(tmp_path), threads],
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout.split()
        for threads in ("1", "2")
    ]  # fmt: skip
    assert answers[0] == answers[1]
    assert [int(token) for token in answers[0][2:]] == generate(load(tmp_path), PROMPT, 20, SAMPLING)
