"""The experiments of the Lifeguard paper: the model of the blocked node, and what a cell shows."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cases import CaseKey
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.goroutines import Goroutines, LoopAgenda
from sim.papers import campaign, main, read, report
from sim.papers_cells import CONFIGURATIONS, Cell, Outcome, grid, run
from sim.papers_report import quantile, share


def test_a_held_agenda_lets_suspicions_run_out_and_nothing_else():
    agenda = LoopAgenda()
    agenda.set("probe", 1.0)
    agenda.set(CaseKey("a"), 2.0)
    agenda.hold()
    agenda.set("gossip", 1.5)
    agenda.set(CaseKey("b"), 3.0)
    assert "probe" in agenda
    assert agenda.at("gossip") == 1.5
    assert list(agenda.due(9.0)) == [CaseKey("a"), CaseKey("b")]
    agenda.cancel("gossip")
    agenda.release()
    assert agenda.next_deadline() == 1.0
    assert list(agenda.due(9.0)) == ["probe"]


def blocked(duration_s, seed=1):
    crowd = Crowd(seed, CrowdOptions(SwimOptions.plain_swim(), core=Goroutines))
    crowd.form(16)
    crowd.run_for(5.5)
    crowd.block(1)
    crowd.call(1, "hold")
    crowd.run_for(duration_s)
    before = crowd.core(1).statistics().rounds_failed
    crowd.call(1, "release")
    crowd.unblock(1)
    return crowd, crowd.core(1).statistics().rounds_failed - before


@pytest.mark.parametrize("duration_s", [2.5, 16.0])
def test_a_probe_that_was_stuck_for_longer_than_its_round_accuses_one_member(duration_s):
    crowd, failed = blocked(duration_s)
    assert failed == 1, "one loop is stuck in one round, however long"
    suspects = [row for row in crowd.core(1).members() if row.liveness is Liveness.SUSPECT]
    assert len(suspects) == 1


def test_a_probe_that_was_stuck_for_a_moment_accuses_nobody():
    assert blocked(0.3)[1] == 0


def test_a_stuck_member_that_nobody_waits_for_is_dead_and_comes_back():
    crowd, _ = blocked(16.0)
    assert crowd.run_until(crowd.converged, within_s=10.0) is not None
    assert [fact for _, _, fact in crowd.log if getattr(fact, "event", "") == "refuted"]


@pytest.mark.parametrize("configuration", ["swim", "lifeguard", "lan"])
def test_a_blocked_member_is_detected_by_all(configuration):
    outcome = run(Cell("threshold", configuration, 2, 16384), members=16)
    assert len(outcome.first_s) == len(outcome.all_s) == 2
    assert all(
        0 < first <= everywhere for first, everywhere in zip(outcome.first_s, outcome.all_s, strict=True)
    )
    assert outcome.false_at_healthy == 0


def test_a_cell_is_the_same_in_every_run_and_its_schedule_in_every_configuration():
    cell = Cell("threshold", "swim", 2, 16384)
    assert run(cell, members=8) == run(cell, members=8)
    assert cell.seed == Cell("threshold", "lan", 2, 16384).seed != Cell("threshold", "swim", 3, 16384).seed


def test_a_campaign_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.papers_cells.MEMBERS", 8)
    cells = [Cell("threshold", "lan", 1, 128, repetition=index) for index in range(3)]
    out = tmp_path / "cells.jsonl"
    campaign(cells[:1], out, 1)
    before = out.read_text()
    campaign(cells, out, 1)
    assert out.read_text().startswith(before)
    assert {cell for cell, _ in read([out])} == set(cells)
    assert "| lan |" in report(read([out]))
    assert all(json.loads(line)["configuration"] == "lan" for line in out.read_text().splitlines())


def test_the_grid_is_the_papers():
    assert len(grid("interval", "swim", 10)) == 4320
    assert len(grid("threshold", "swim", 10)) == 9 * 2 * 10, (
        "shorter blocks than the least suspicion show nothing"
    )


def test_a_quantile_is_a_value_that_was_seen():
    assert quantile(range(1000), 0.999) == 999
    assert quantile([3.0], 0.5) == 3.0


def test_an_unknown_configuration_is_refused_with_a_hint(capsys):
    assert main(["threshold", "--configurations", "raft"]) == 2
    assert "hint: " in capsys.readouterr().err
    assert "lifeguard" in CONFIGURATIONS


def seen(configuration, concurrent, false, repetition=0):
    return Cell("interval", configuration, concurrent, 512, 64, repetition), Outcome(
        false=false, seconds=120.0
    )


def test_shares_are_of_schedules_that_both_have_run():
    results = [
        seen("swim", 1, 100),
        seen("swim", 1, 300, repetition=1),
        seen("swim", 4, 10_000),
        seen("lifeguard", 1, 4),
        seen("lifeguard", 1, 4, repetition=1),
        seen("lan", 4, 0),
    ]
    found = share("lifeguard", "swim", results)
    assert (found.percent, found.cells, found.runs) == (2.0, 1, 2)
    assert found.paper == pytest.approx(1.53, abs=0.005)
    assert share("lan", "lifeguard", results).runs == 0
    assert share("lan", "swim", results).paper is None
    text = report(results)
    assert "| lifeguard | swim | 2.00 % (1.53 %) | - (1.89 %) | 1, 2 |" in text
    assert "| swim | 2, 3 | 10400 | 0 | 3466.7 (78.5) |" in text


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_a_share_of_itself_is_all_of_it(counts):
    results = [seen("swim", 1, false, index) for index, false in enumerate(counts)]
    found = share("swim", "swim", results)
    assert found.percent == (100.0 if any(counts) else None)
    assert found.runs == len(counts)


def test_a_cell_that_two_files_hold_counts_once(tmp_path):
    rows = [seen("lan", 1, false) for false in (5, 7)]
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path, (cell, outcome) in zip(files, rows, strict=True):
        path.write_text(json.dumps({**attrs.asdict(cell), "outcome": attrs.asdict(outcome)}) + "\n")
    assert read(files) == [rows[1]]
