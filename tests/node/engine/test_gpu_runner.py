"""On a real GPU: the texts of ember-py, replayed steps, and moves between CPU and GPU."""

import os
import subprocess
import sys

import pytest

from node.engine.plan import Plan, Sampling
from node.engine.runner import Runner
from tests.node.engine.moves import MODEL, move
from tests.node.engine.tiny import GREEDY, by, generate, row
from tests.tidy.tree import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = [index * 37 % 4096 for index in range(700)]
COUNT = 60
DRAWN = Sampling(seed=77, temperature=0.9, top_p=0.95, frequency_penalty=0.3)


@pytest.fixture(scope="module")
def runner():
    from node.engine.device_runner import DeviceOptions, open_device_runner

    return open_device_runner(MODEL, "cuda:0", DeviceOptions(kv_blocks=256))


def say(runner, sampling: Sampling, **company: object) -> list[int]:
    return generate(runner, PROMPT, COUNT, sampling, blocks=range(16), **company)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_text_is_the_same_alone_in_company_and_in_chunks(runner, sampling: Sampling):
    def beside(count: int):
        def rows(step: int):
            for number in range(count):
                size = 5 * number + 3 if step == 0 else 1
                start = step + 5 * number + 2 if step else 0
                blocks = range(20 + 4 * number, 24 + 4 * number)
                yield row([step + number] * size, start, 100 + number, blocks, Sampling(number))

        return lambda step: tuple(rows(step))

    alone = say(runner, sampling)
    assert runner.exact
    assert say(runner, sampling) == alone  # replayed now
    assert say(runner, sampling, beside=beside(40)) == alone
    assert say(runner, sampling, chunks=by(61), beside=beside(3)) == alone


def test_decode_steps_are_replayed(runner):
    say(runner, GREEDY)
    before = runner.graphs.replays
    say(runner, GREEDY)
    assert runner.graphs.recorded >= 1
    assert runner.graphs.replays >= before + COUNT - 2
    assert 0 <= runner.graphs.bytes < 1 << 30


def test_logits_are_near_the_cpus(runner):
    expected = Runner(MODEL, device="cpu", threads=4).logits(Plan((row(PROMPT[:200]),)))
    got = runner.logits(Plan((row(PROMPT[:200], blocks=range(16)),)))
    assert (got - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("order", [("cpu", "cuda", "cpu"), ("cuda", "cpu", "cuda")], ids="-".join)
def test_a_request_moves_between_cpu_and_gpu_without_a_gap(runner, order: tuple[str, ...]):
    engines = {"cuda": runner, "cpu": Runner(MODEL, device="cpu", threads=4)}
    assert engines["cpu"].digest == runner.digest
    move([engines[name] for name in order])


def test_the_engine_process_takes_the_gpu_by_itself():
    code = "from node.engine.open_runner import open_runner; import sys; print(open_runner(sys.argv[1])[1].device)"
    words = [sys.executable, "-c", code, str(MODEL)]
    done = subprocess.run(words, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "cuda:0"
