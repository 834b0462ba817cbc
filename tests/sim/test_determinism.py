"""One seed is one history: twice in a process, and in any process."""

import subprocess
import sys
from pathlib import Path

import pytest

from sim.scenario import Result, run
from sim.swarm import draw
from sim.trace import Trace, first_difference

ROOT = Path(__file__).resolve().parents[2]
SEED = 2
TRACE = f"""
from sim.scenario import run
from sim.swarm import draw
trace = run(draw({SEED}, seconds=6.0, keep_trace=True)).world.trace
print(*trace.lines, trace.digest(), sep="\\n")
"""


def played(seed: int) -> Result:
    return run(draw(seed, seconds=6.0, keep_trace=True))


def test_the_same_seed_gives_the_same_trace_twice_in_one_process():
    one, other = played(SEED), played(SEED)
    assert first_difference(one.world.trace, other.world.trace) is None
    assert one.world.trace.digest() == other.world.trace.digest()
    assert one.world.events == other.world.events > 1000


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_the_same_seed_gives_the_same_trace_under_another_hash_seed(hash_seed: str):
    done = subprocess.run(
        [sys.executable, "-c", TRACE],
        cwd=ROOT,
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    here = played(SEED).world.trace
    *lines, digest = done.stdout.splitlines()
    there = Trace(keep=True)
    there.lines.extend(lines)
    assert first_difference(here, there) is None
    assert digest == here.digest()


def test_another_seed_gives_another_trace_and_the_first_difference_is_named():
    difference = first_difference(played(SEED).world.trace, played(SEED + 1).world.trace)
    assert difference is not None
    assert difference.startswith("line ")


def test_a_trace_that_ends_early_differs():
    one, other = Trace(keep=True), Trace(keep=True)
    one.write(1.0, "node-0", "started")
    assert first_difference(one, other) == "line 1:\n      1.000000  node-0    started\n  None"


def test_bytes_change_the_digest_without_a_line():
    one, other = Trace(), Trace()
    one.carried(1.0, "a", "b", b"x")
    other.carried(1.0, "a", "b", b"y")
    assert one.digest() != other.digest()
    assert one.count == other.count == 0


def test_watching_changes_nothing():
    times: list[float] = []
    watched = run(draw(SEED, seconds=6.0), times.append)
    assert watched.world.trace.digest() == played(SEED).world.trace.digest()
    assert times == sorted(times)
