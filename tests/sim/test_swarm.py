"""Scenarios drawn from one number each: faults with safety checks, then healing and liveness."""

from collections import Counter
from pathlib import Path

import attrs
import pytest

from mesh.replay import ReplayWindow
from sim.fault import Strike
from sim.faults import FAULTS, Liar
from sim.rule import Rule
from sim.scenario import run
from sim.scenarios import SCENARIOS
from sim.swarm import draw

SEEDS = Path(__file__).with_name("seeds.txt")
FRESH = range(1000, 1000 + len(FAULTS))
"""As many in a row as there are kinds of fault: each comes at least once."""

STATES = (
    "alive suspect dead left returned refuted quarantined quarantine_lifted member_dead true_death paused"
    " rumour load routed exam"
).split()
"""What must have been seen to happen, lest the checks about it said nothing."""


def kept() -> list[str]:
    """Seeds, those with `@` followed by the seconds under faults."""
    lines = SEEDS.read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def explained(result) -> str:
    hint = f"replay: python -m sim --scenario {result.scenario.name} --seed {result.scenario.seed}"
    return "\n".join([str(result.violation), *result.world.trace.tail(30), hint])


@pytest.mark.slow
@pytest.mark.parametrize("seed", kept())
def test_seeds_that_once_failed_hold(seed: str):
    number, _, seconds = seed.partition("@")
    result = run(draw(int(number), seconds=float(seconds or 12.0)))
    assert result.violation is None, explained(result)


@pytest.mark.slow
def test_fresh_seeds_hold_and_meet_every_kind_of_fault():
    struck, bitten, reached = Counter(), Counter(), Counter()
    served = 0
    for seed in FRESH:
        result = run(draw(seed, seconds=5.0))
        assert result.violation is None, explained(result)
        served += result.outcomes.get("done", 0)
        struck.update(result.world.struck)
        bitten.update(result.world.bitten)
        reached.update(result.world.reached)
    assert {kind.__name__ for kind in FAULTS} <= set(struck)
    assert len(bitten) > 0.9 * len(FAULTS), "tests/sim/test_faults.py sees each of them bite"
    assert [state for state in STATES if reached[state] < 10] == []
    assert served > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "swarm"])
def test_each_named_scenario_holds(name: str):
    result = run(SCENARIOS[name](11, 5, 6.0))
    assert result.violation is None, explained(result)
    assert result.outcomes["done"] > 5


def test_a_third_of_all_scenarios_is_sealed_and_the_rest_as_it_was():
    drawn = [draw(seed) for seed in range(300)]
    assert sum(scenario.sealed for scenario in drawn) == pytest.approx(100, abs=20)
    assert [scenario.sealed for scenario in drawn] == [draw(seed).sealed for seed in range(300)]


def test_a_sealed_scenario_seals_every_packet_keeps_the_ledger_and_meets_its_liars_sealed(monkeypatch):
    seed = next(seed for seed in range(100) if draw(seed).sealed)
    lie = Strike(3.0, Liar("node-0", "node-1", "dead", 1, 1.0))
    scenario = attrs.evolve(draw(seed, nodes=6, seconds=4.0), strikes=(lie,), exam=False)
    result = run(scenario)
    assert result.violation is None, explained(result)
    ledger = result.world.checks[-1]
    assert len(ledger.opened) > 100
    assert result.world.reached["rumour"] >= 3, "packets are read before they are sealed"
    assert any(host.core.swim.statistics().refutations for host in result.world.running), "the lie was opened"
    monkeypatch.setattr(ReplayWindow, "is_fresh", lambda window, counter: True)
    twice = Rule(delay_s=0.001, duplicate=0.5)
    doubled = attrs.evolve(scenario, options=attrs.evolve(scenario.options, network=twice))
    assert run(doubled).violation.check == "ledger"


def test_a_scenario_is_a_function_of_its_seed():
    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
