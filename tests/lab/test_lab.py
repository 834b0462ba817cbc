"""Real processes through the scenarios of the lab, and the same files in the simulator."""

import pytest

from sim.scenario import run as simulate
from tests.lab.__main__ import SCENARIOS, named
from tests.lab.page import page
from tests.lab.run import run

NAMES = sorted(path.stem for path in SCENARIOS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_holds_in_virtual_time(name: str) -> None:
    result = simulate(named(name))
    assert result.violation is None
    assert all(result.world.bitten.get(kind) for kind in result.world.struck)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_file_holds_with_real_processes(name: str) -> None:
    outcome = run(named(name))
    drawn = page(outcome)
    assert "<script" not in drawn and drawn.count("<svg") == 5
    assert outcome.violation is None, outcome.line()
    assert outcome.clients and not outcome.outcomes.get("unserved")
