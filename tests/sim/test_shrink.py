"""Shrinking: smaller at each step, the same check to the end, in time; and a test that fails as printed."""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.__main__ import main
from sim.cli.common import BAD_USAGE, FAILED
from sim.fault import Strike
from sim.reproduction import Source, pytest_of
from sim.scenario import Scenario, run
from sim.scenario_file import load
from sim.scenarios import kill
from sim.shrink import Failure, Shrinker, fail, named, renamed, sooner, without
from sim.swarm import draw
from sim.troubles.cuts import Partition
from sim.troubles.processes import Crash, CrashRestart
from sim.workload import Request
from tests.sim.plants import PLANTS, Plant, first_failure

EVER = 1e9
SOME = [plant for plant in PLANTS if plant.check in ("flight_forward", "own_life", "exception")]


@pytest.fixture
def doubled() -> Iterator[None]:
    with PLANTS[0].planted():
        yield


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_of(module: ModuleType) -> Callable[[], None]:
    (name,) = (name for name in vars(module) if name.startswith("test_"))
    return vars(module)[name]


test_of.__test__ = False


# -- the whole ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("plant", SOME, ids=lambda plant: plant.name)
def test_a_planted_bug_is_shrunk_and_its_test_fails_with_the_bug_and_passes_without(
    plant: Plant, tmp_path: Path
):
    check = plant.check
    with plant.planted():
        failure = first_failure(check)
        small = Shrinker(failure, lambda: EVER).shrink()
        assert small.check == check
        assert small.scenario.nodes <= min(6, failure.scenario.nodes)
        assert small.events <= min(8, failure.events)
        path = tmp_path / "test_shrunk.py"
        path.write_text(pytest_of(small, "python -m sim run --scenario swarm"))
        with pytest.raises(AssertionError, match=check):
            test_of(imported(path))()
    test_of(imported(path))()


def test_the_command_writes_a_file_that_replays_and_prints_a_test(
    doubled: None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    path, test = tmp_path / "small.toml", tmp_path / "test_small.py"
    argv = ["shrink", "3", "--scenario", "kill", "--seconds", "4", "--save", str(path)]
    assert main([*argv, "--test", str(test)]) == FAILED
    out = capsys.readouterr().out
    assert "text_exact: " in out
    assert f"replay: python -m sim run --scenario {path}" in out
    assert main(["run", "--scenario", str(path)]) == FAILED
    assert "error: text_exact" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="text_exact"):
        test_of(imported(test))()
    assert len(load(path.read_text()).requests) == 1


def test_a_seed_that_holds_is_not_shrunk(capsys: pytest.CaptureFixture):
    assert main(["shrink", "3", "--scenario", "calm", "--seconds", "1"]) == BAD_USAGE
    assert "seed `3` fails no check\nhint: find one" in capsys.readouterr().err


# -- the search -----------------------------------------------------------------------------------


def failing_if(bad: Callable[[Scenario], bool], check: str = "planted") -> Callable[..., Failure | None]:
    def attempt(scenario: Scenario, within_s: float | None = None) -> Failure | None:
        return Failure(scenario, check, "as planted", 5.0) if bad(scenario) else None

    return attempt


def searched(scenario: Scenario, bad: Callable[[Scenario], bool], left_s=lambda: EVER) -> Shrinker:
    attempt = failing_if(bad)
    shrinker = Shrinker(attempt(scenario), left_s, attempt=attempt)
    shrinker.shrink()
    return shrinker


@given(st.integers(0, 2000), st.data())
def test_what_is_needed_stays_and_all_else_goes(seed: int, data: st.DataObject):
    scenario = draw(seed)
    early = [s.fault for s in scenario.strikes if s.at <= 5.0] or None
    kinds = (
        data.draw(st.sets(st.sampled_from([type(fault) for fault in early]), max_size=2)) if early else set()
    )
    shrinker = searched(scenario, lambda now: kinds <= {type(strike.fault) for strike in now.strikes})
    small = shrinker.best.scenario
    assert {type(strike.fault) for strike in small.strikes} == kinds
    assert len(small.strikes) == len(kinds)
    assert small.requests == ()
    assert small.nodes <= scenario.nodes


@given(st.integers(0, 500))
def test_a_scenario_without_some_nodes_names_only_those_it_has(seed: int):
    scenario = draw(seed)
    for gone in ([0], [scenario.nodes - 1], [1]):
        small = without(scenario, gone)
        assert small.nodes == scenario.nodes - 1
        assert named(small) <= {f"node-{index}" for index in range(small.nodes)}
        assert set(small.core) <= {f"node-{index}" for index in range(small.nodes)}
        assert small.workers >= 1


def test_every_step_fails_the_same_check():
    checks = itertools.cycle(("planted", "another"))

    def attempt(scenario: Scenario, within_s: float | None = None) -> Failure | None:
        return Failure(scenario, next(checks), "", 5.0)

    first = Failure(kill(3), "planted", "", 5.0)
    assert Shrinker(first, lambda: EVER, attempt=attempt).shrink().check == "planted"


def test_a_search_ends_when_its_time_is_up_with_the_best_so_far():
    left = iter(range(5, -1, -1))
    shrinker = searched(draw(3), lambda now: True, lambda: next(left))
    assert shrinker.runs == 5
    assert shrinker.doing == "stopped: the time was up"


def test_a_run_that_lasts_longer_than_the_failure_took_is_given_up():
    assert fail(kill(3), 1.0) is None


def test_the_failure_of_a_run_is_what_the_run_says(doubled: None):
    failure = fail(kill(3))
    assert failure.check == "text_exact"
    assert failure.message == run(kill(3)).violation.message
    assert not failure.is_late


# -- parts ----------------------------------------------------------------------------------------


def test_hosts_are_renamed_wherever_they_stand():
    names = {"node-0": "node-0", "node-2": "node-1"}
    assert renamed(Strike(1.0, Crash("node-2")), names) == Strike(1.0, Crash("node-1"))
    assert renamed(Strike(1.0, Crash("node-1")), names) is None
    cut = Strike(1.0, Partition(("node-1", "node-2"), 2.0))
    assert renamed(cut, names) == Strike(1.0, Partition(("node-1",), 2.0))
    request = Request("node-2", 1.0, "node-1 is a word of a prompt", 7, 3)
    assert renamed(request, names).entry == "node-1"


def test_sooner_keeps_the_order():
    before, after = draw(5), sooner(draw(5), 0.5)
    assert after.faults_end_s == before.faults_end_s / 2
    times = sorted(zip([s.at for s in before.strikes], [s.at for s in after.strikes], strict=True))
    assert [at for _, at in times] == sorted(at for _, at in times)
    assert all(at < was for was, at in times)


@pytest.mark.parametrize("seed", range(6))
def test_a_printed_scenario_is_the_scenario(seed: int, tmp_path: Path):
    failure = Failure(draw(seed), "text_exact", 'said """so""" \\ here', 5.0)
    path = tmp_path / f"test_printed_{seed}.py"
    path.write_text(pytest_of(failure, "python -m sim"))
    assert draw(seed) == imported(path).SCENARIO


def test_only_what_differs_from_the_defaults_is_printed():
    source = Source()
    assert source.code(CrashRestart("node-1", 2.0)) == 'CrashRestart(host="node-1", for_s=2.0)'
    assert source.import_lines() == "from sim.troubles.processes import CrashRestart\n"
    assert source.code(attrs.evolve(Request("a", 1.0, "it's", 3, 4))).count("read_s") == 0
