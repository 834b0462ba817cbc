"""Scenario files: what is written is read back, and what makes no sense is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.configuration import ConfigurationError
from sim.fault import Strike
from sim.faults import CrashRestart, OneWayCut, Partition
from sim.scenario_file import dump, load
from sim.scenarios import SCENARIOS
from sim.swarm import draw
from tests.tidy.tree import ROOT

EXAMPLES = sorted((ROOT / "examples/sim").glob("*.toml"))


@given(st.integers(0, 2**64 - 1))
def test_whatever_the_swarm_draws_is_read_back_as_it_was_written(seed: int):
    scenario = draw(seed)
    assert load(dump(scenario)) == scenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_named_scenario_is_read_back_as_it_was_written(name: str):
    scenario = SCENARIOS[name](3, 6, 8.0)
    assert load(dump(scenario)) == scenario


def test_a_short_file_is_filled_in():
    scenario = load(
        'nodes = 4\n[[fault]]\nat = 5\nkind = "CrashRestart"\nhost = "node-3"\nfor_s = 2\n', "short"
    )
    assert (scenario.name, scenario.seed, scenario.workers, scenario.requests) == ("short", 0, 2, ())
    assert scenario.strikes == (Strike(5.0, CrashRestart("node-3", 2.0)),)
    assert scenario.core == ("node-0", "node-1", "node-2", "node-3")


def test_a_workload_draws_clients_from_the_seed():
    text = "seed = {}\n[workload]\nrate_per_s = 5.0\n"
    assert load(text.format(1)) == load(text.format(1))
    assert load(text.format(1)).requests != load(text.format(2)).requests
    assert {request.entry for request in load(text.format(1)).requests} == {"node-0", "node-1"}


def test_the_example_says_what_it_says():
    scenario = load((ROOT / "examples/sim/two-workers-die.toml").read_text())
    assert scenario.options.node.swim.probe_period_s == 0.5
    assert scenario.strikes[2] == Strike(8.0, OneWayCut("node-3", "node-0", 3.0))


def test_groups_of_hosts_are_lists():
    text = '[[fault]]\nat = 5.0\nkind = "Partition"\ngroup = ["node-0", "node-1"]\nfor_s = 2.0\n'
    assert load(text).strikes == (Strike(5.0, Partition(("node-0", "node-1"), 2.0)),)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("nodes = ", "this is no TOML", "sim-cli.md"),
        ("nodes = 1", "`nodes` is `1`", "2 to 1024"),
        ("nodes = 5.5", "`nodes` is `5.5`", "int"),
        ("noods = 5", "`noods` is unknown in the file", "nodes"),
        ("workers = 9", "`workers` is `9`", "0 to 5"),
        ("heal_at_s = -1.0", "`heal_at_s` is `-1.0`", "0 to"),
        ("heal_at_s = nan", "`heal_at_s` is `nan`", "0 to"),
        ('preset = "moon"', "`moon` is no preset", "lan"),
        ('[knobs]\n"swim.warp" = 9', "`swim.warp` is no knob", "helpers"),
        ("[network]\ndelay = 1", "`delay` is unknown in [network]", "delay_s"),
        ('[[fault]]\nat = 1.0\nkind = "Earthquake"', "`Earthquake` is no kind of fault", "Crash"),
        ('[[fault]]\nkind = "Crash"\nhost = "node-1"', "`[[fault]] at` is `None`", "float"),
        ('[[fault]]\nat = 1.0\nkind = "Crash"', "`[[fault]] Crash` lacks `host`", "power"),
        ('[[fault]]\nat = 1.0\nkind = "Crash"\nhost = "node-9"', "`Crash host` names `node-9`", "node-4"),
        ('[[fault]]\nat = 1.0\nkind = "Partition"\ngroup = ["x"]\nfor_s = 1.0', "names `x`", "node-0"),
        ("fault = 3", "`fault` is `3`", "list"),
        ('[workload]\nentries = ["node-7"]', "`[workload] entries` names `node-7`", "node-4"),
        ("[workload]\nrate_per_s = 0.0", "asks for nothing", "rate_per_s"),
        ('[expect]\ncore = ["node-8"]', "`core` names `node-8`", "node-4"),
    ],
)
def test_what_makes_no_sense_is_named_with_what_would(text: str, says: str, hint: str):
    with pytest.raises(ConfigurationError) as refused:
        load(text)
    assert says in str(refused.value)
    assert hint in refused.value.hint


@given(st.text(max_size=200))
def test_any_text_is_a_scenario_or_is_refused(text: str):
    try:
        load(text)
    except ConfigurationError:
        return
