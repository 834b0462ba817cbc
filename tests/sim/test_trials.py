"""The hard days of `sim.trials`, at small sizes: nobody who lives is buried, and the figures mean what they say."""

import json

import attrs
import pytest

from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.trials import Watch, accuse_everybody, accusers, crash, flipflop, lossy, main, mass, pause

LOCAL = SwimOptions.local()


def test_a_lossy_member_is_left_out_and_nobody_else_dies():
    figures = lossy(3, 16, LOCAL, seconds=25.0)
    assert figures["false"] == 0
    assert figures["out_at_20_s"] >= 0.9


def test_one_that_flips_is_taken_back_at_most_once():
    figures = flipflop(4, 12, LOCAL)
    assert figures["false"] == 0
    assert figures["back_most"] <= 1
    assert figures["out_5_s_after_each_cut"] == [1.0, 1.0, 1.0]


def test_the_stopped_are_soon_back_and_bury_nobody():
    figures = pause(5, 12, LOCAL, pauses=3)
    assert figures["false"] == figures["by_stopped"] == 0
    assert figures["back_s"] <= 1.5


def test_two_that_accuse_everybody_bury_nobody():
    figures = accusers(6, 16, LOCAL, seconds=6.0)
    assert figures["false"] == 0
    assert figures["accused_B_s"] > figures["idle_B_s"], "they were heard"


def test_a_broken_node_doubts_all_others():
    crowd = Crowd(7, CrowdOptions(LOCAL))
    crowd.form(6)
    crowd.run_for(5.0)
    accuse_everybody(crowd, 2)
    assert len(crowd.core(2).doubted) == 5


@pytest.mark.parametrize("trial", [crash, mass])
def test_the_dead_are_known_by_all_and_only_they(trial):
    figures = trial(8, 12, LOCAL)
    assert figures["false"] == 0
    assert all(figures.get(name) is not None for name in figures)
    assert figures.get("missed", 0) == 0


def test_a_false_death_is_seen_and_ends_with_1(monkeypatch, capsys):
    def careless(seed, nodes, swim):
        crowd = Crowd(seed, CrowdOptions(SwimOptions.plain_swim(alpha=0.2)))
        crowd.form(nodes)
        watch = Watch(crowd)
        crowd.taps.append(watch)
        crowd.run_for(5.0)
        crowd.pause(1)
        crowd.run_for(20.0)
        return {"false": watch.false}

    monkeypatch.setitem(__import__("sim.trials").trials.TRIALS, "crash", careless)
    assert main(["crash", "--nodes", "6"]) == 1
    assert json.loads(capsys.readouterr().out)["false"] == 5


def test_a_budget_of_accusations_makes_broken_accusers_cheaper_and_buries_nobody():
    free = accusers(9, 24, attrs.evolve(LOCAL, accusations_per_window=0), seconds=5.0)
    bounded = accusers(9, 24, attrs.evolve(LOCAL, accusations_per_window=2), seconds=5.0)
    assert bounded["false"] == 0
    assert bounded["accused_B_s"] < 0.8 * free["accused_B_s"]


def test_doubts_that_need_witnesses_make_broken_accusers_cheap():
    one_word = accusers(9, 24, attrs.evolve(LOCAL, witnesses=0), seconds=5.0)
    witnessed = accusers(9, 24, LOCAL, seconds=5.0)
    assert witnessed["false"] == 0
    assert witnessed["accused_B_s"] < 0.1 * one_word["accused_B_s"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_budget_of_accusations_delays_no_mass_failure(seed):
    free = mass(seed, 24, attrs.evolve(LOCAL, accusations_per_window=0))
    bounded = mass(seed, 24, attrs.evolve(LOCAL, accusations_per_window=2))
    assert bounded["false"] == 0
    assert bounded["all_dead_s"] <= free["all_dead_s"] + LOCAL.probe_period_s
