"""Membership alone: the same history each time, deaths noticed as they happened, a planted bug found."""

import json
from pathlib import Path

import attrs
import pytest

from mesh.facts import MemberChanged
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.swim_options import SwimOptions
from sim.__main__ import main
from sim.cli.common import BAD_USAGE, FAILED
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.members import DRAWS, Watcher, draw, run

LOCAL = SwimOptions.local()


@pytest.mark.parametrize("name", DRAWS)
def test_each_scenario_holds_and_has_one_history(name: str):
    plan = draw(name, 3, 9, 5.0, LOCAL)
    figures = run(plan)
    assert figures["violation"] is None
    assert run(plan) == figures
    assert run(attrs.evolve(plan, seed=4))["trace_digest"] != figures["trace_digest"]


def test_a_kill_is_noticed_by_the_first_and_by_everybody():
    figures = run(draw("kill", 3, 20, 6.0, LOCAL))
    (found,) = figures["detections"]
    assert 0.0 < found["dead_first_s"] <= found["dead_all_s"] < 6.0
    assert found["out_of_routing_first_s"] <= found["dead_first_s"]
    assert figures["membership"]["false_deaths"] == 0


def test_a_restart_is_no_death():
    (found,) = run(draw("restart", 3, 12, 6.0, LOCAL))["detections"]
    assert found["back_s"] is not None


def test_who_is_declared_dead_though_it_runs_fails_the_check(monkeypatch: pytest.MonkeyPatch):
    def hasty(self: Crowd, seconds: float) -> None:
        self.time += seconds
        row = attrs.evolve(self.core(2).me, liveness=Liveness.DEAD)
        for tap in self.taps:
            tap(self.peers[1], [MemberChanged(None, row)])

    plan = draw("calm", 3, 4, 1.0, LOCAL)
    monkeypatch.setattr(Crowd, "run_for", hasty)
    violation = run(plan)["violation"]
    assert violation == {"check": "false_death", "message": "node-1: node-2 runs, and is declared dead"}


def test_the_death_of_an_earlier_life_is_not_false():
    crowd = Crowd(3, CrowdOptions(swim=LOCAL, keep_log=False))
    crowd.form(3)
    crowd.restart(2, [1])
    seen = Watcher(crowd)
    me = crowd.core(2).me
    first = attrs.evolve(me, identity=Identity(me.node, 1), liveness=Liveness.DEAD)
    seen(crowd.peers[1], [MemberChanged(None, first)])
    assert seen.false_deaths == 0
    again: Member = attrs.evolve(me, liveness=Liveness.DEAD)
    seen(crowd.peers[1], [MemberChanged(None, again)])
    assert seen.false_deaths == 1


def test_the_command_prints_a_row_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "members.json"
    argv = ["run", "--members-only", "--nodes", "12", "--seconds", "3", "--check", "--config", "local"]
    assert main([*argv, "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures["trace_digest"][:12] in capsys.readouterr().out
    assert figures["replay"].endswith("--scenario kill --seed 0 --nodes 12 --seconds 3 --config local")


def test_a_failure_is_told_with_its_replay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sim.members.VIEWS_S", -1.0)
    monkeypatch.setattr(Crowd, "converged", lambda self: False)
    assert main(["run", "--members-only", "--nodes", "5", "--seconds", "1", "--scenario", "calm"]) == FAILED
    err = capsys.readouterr().err
    assert "error: views_agree" in err
    assert "hint: replay it with: python -m sim run --members-only --scenario calm --seed 0" in err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--scenario", "poison"], "`--scenario poison` is none of members alone\nhint: there are calm"),
        (["--html", "x.html"], "members alone have no page"),
        (["--nodes", "20000"], "`--nodes 20000` is not within 2 to 16384"),
        (["--config", "moon"], "`moon` is no preset"),
    ],
)
def test_what_makes_no_sense_is_refused(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert main(["run", "--members-only", *argv]) == BAD_USAGE
    assert says in capsys.readouterr().err
