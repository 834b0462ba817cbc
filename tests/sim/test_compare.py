"""Comparing configurations: paired, honest about chance, the same table every time."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.__main__ import main
from sim.cli.common import BAD_USAGE
from sim.compare import METRICS, Pair, differences, interval, pair
from sim.configuration import parse
from sim.scenarios import kill

GOSSIP = "gossip (bytes/node/s)"
values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


def pairs(one: list[float], other: list[float]) -> list[Pair]:
    blank = dict.fromkeys(METRICS)
    return [
        Pair(seed, blank | {GOSSIP: a}, blank | {GOSSIP: b})
        for seed, (a, b) in enumerate(zip(one, other, strict=True))
    ]


def row(of: list[Pair]):
    return next(each for each in differences(of) if each.metric == GOSSIP)


@given(values)
def test_an_interval_lies_within_the_values_around_their_mean(some: list[float]):
    low, high = interval(some, random.Random(7))
    mean = sum(some) / len(some)
    assert min(some) - 1e-6 <= low <= mean + 1e-6
    assert mean - 1e-6 <= high <= max(some) + 1e-6


@given(st.lists(st.floats(0, 100), min_size=5, max_size=20), st.floats(1, 50))
def test_a_shift_is_seen_whatever_the_seeds_differ_by(some: list[float], shift: float):
    """The seeds differ by far more than the shift: only pairs can see it."""
    found = row(pairs(some, [value + shift for value in some]))
    assert found.verdict == "more"
    assert found.difference == pytest.approx(shift)
    assert row(pairs([value + shift for value in some], some)).verdict == "less"


def test_noise_around_nothing_is_unclear_and_equality_is_the_same():
    assert row(pairs([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])).verdict == "unclear"
    assert row(pairs([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])).verdict == "same"


def test_few_pairs_give_no_interval_and_missing_figures_no_pair():
    few = row(pairs([1, 2], [3, 4]))
    assert (few.pairs, few.low, few.verdict) == (2, None, "too few")
    holes = row(pairs([1, None, 3], [1, 2, None]))
    assert holes.pairs == 1


def test_a_configuration_against_itself_differs_in_nothing():
    seen = pair(kill(3, seconds=3.0), parse("local"), parse("local"))
    assert seen.one == seen.other
    assert {each.verdict for each in differences([seen] * 6)} <= {"same", "too few"}


def test_slower_probing_costs_less_and_both_see_the_same_faults():
    seen = pair(kill(3, seconds=6.0), parse("local"), parse("local,swim.probe_period_s=2.0"))
    assert seen.other[GOSSIP] < seen.one[GOSSIP]
    assert (seen.failed_one, seen.failed_other) == ("", "")


def test_the_command_prints_a_table_and_writes_the_pairs(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "compared.json"
    argv = [
        "compare",
        "local",
        "local,swim.probe_period_s=2",
        "--count",
        "2",
        "--seconds",
        "3",
        "--jobs",
        "1",
    ]
    assert main([*argv, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "B: local,swim.probe_period_s=2.0" in out
    assert GOSSIP in out
    written = json.loads(path.read_text())
    assert [each["seed"] for each in written["pairs"]] == [0, 1]
    assert [each["metric"] for each in written["rows"]] == [*METRICS]
    assert main(argv) == 0
    assert capsys.readouterr().out == out


def test_membership_alone_is_compared_without_rows_of_clients(capsys: pytest.CaptureFixture):
    argv = [
        "compare",
        "local",
        "local,swim.probe_period_s=2",
        "--members-only",
        "--nodes",
        "10",
        "--count",
        "5",
    ]
    assert main([*argv, "--seconds", "6", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "5 seeds of kill" in out
    assert "dead, everywhere (s)" in out
    assert "longest client pause" not in out
    gossip = next(line for line in out.splitlines() if line.startswith("gossip (bytes"))
    assert gossip.endswith("less")
    assert main([*argv, "--scenario", "poison"]) == BAD_USAGE


def test_a_configuration_that_makes_no_sense_is_refused(capsys: pytest.CaptureFixture):
    assert main(["compare", "lan", "lan,swim.warp=9"]) == BAD_USAGE
    assert "`swim.warp` is no knob\nhint: there are" in capsys.readouterr().err
