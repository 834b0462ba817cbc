"""`python -m sim`: what its commands print and write, and their exit statuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sim.__main__ import COMMANDS, main
from sim.checks import BoundsCheck
from sim.cli.common import BAD_USAGE, FAILED, STOPPED, table
from sim.cli.progress import Progress, bar
from sim.cli.swarm import Task, summary
from sim.faults import FAULTS
from sim.tally import Tally, sums
from tests.tidy.tree import ROOT

CALM = ["run", "--scenario", "calm", "--seed", "3", "--seconds", "3"]


def spoil(self: BoundsCheck, host, effects) -> None:
    if host.world.time > 2.0:
        host.world.fail("bounds", "planted")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundsCheck, "after", spoil)


# -- run ------------------------------------------------------------------------------------------


def test_a_run_that_holds_prints_its_digest_and_ends_with_0(capsys: pytest.CaptureFixture):
    assert main(CALM) == 0
    out = capsys.readouterr().out
    assert "times real time" in out
    assert "failed seeds: none" in out
    assert main(CALM) == 0
    assert capsys.readouterr().out.splitlines()[:2] == out.splitlines()[:2]


def test_a_run_that_fails_prints_the_check_the_trace_and_the_replay_and_ends_with_1(
    capsys: pytest.CaptureFixture, planted: None
):
    assert main(["run", "--scenario", "kill", "--seed", "7", "--seconds", "6", "--nodes", "4"]) == FAILED
    captured = capsys.readouterr()
    assert "error: bounds: planted" in captured.err
    assert "python -m sim run --scenario kill --seed 7 --nodes 4 --seconds 6" in captured.err
    assert "started  generation=0" in captured.err
    assert "failed seeds: 7" in captured.out


def test_options_without_a_command_are_those_of_run(capsys: pytest.CaptureFixture):
    assert main(["--scenario", "calm", "--seed", "3", "--minutes", "0.05"]) == 0
    assert "calm           3     5" in capsys.readouterr().out


def test_figures_go_to_a_file_and_the_page_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    figures, page = tmp_path / "run.json", tmp_path / "run.html"
    assert main([*CALM, "--json", str(figures), "--html", str(page), "--check"]) == 0
    digest = json.loads(figures.read_text())["trace_digest"]
    assert len(digest) == 32
    assert digest in page.read_text()
    assert digest[:12] in capsys.readouterr().out


def test_json_on_standard_output_is_nothing_but_json(capsys: pytest.CaptureFixture):
    assert main([*CALM, "--count", "2", "--json", "-"]) == 0
    assert [run["seed"] for run in json.loads(capsys.readouterr().out)["runs"]] == [3, 4]


def test_two_histories_of_one_seed_fail_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    runs = iter(range(100))
    monkeypatch.setattr("sim.scenario.begin", lambda world, requests: world.note("run", str(next(runs))))
    assert main([*CALM, "--check"]) == FAILED
    err = capsys.readouterr().err
    assert "error: one_history" in err
    assert "run       0" in err
    assert "run       1" in err


def test_a_configuration_changes_the_history(capsys: pytest.CaptureFixture):
    assert main(CALM) == main([*CALM, "--config", "lan,swim.helpers=2"]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("calm"))
    assert first.split()[-1] != second.split()[-1]


def test_a_scenario_file_is_run(capsys: pytest.CaptureFixture, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('nodes = 3\nheal_at_s = 3.0\n[[fault]]\nat = 2.0\nkind = "Crash"\nhost = "node-2"\n')
    assert main(["run", "--scenario", str(path), "--seed", "5"]) == 0
    assert "mine           5     3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["run", "--nodes", "1"], "`--nodes 1` is not within 2 to 1024"),
        (["run", "--scenario", "kill", "--nodes", "2"], "`--nodes 2` is not within 3 to 1024"),
        (["run", "--count", "0"], "`--count 0`"),
        (["--minutes", "0"], "`--minutes 0`"),
        (["run", "--seconds", "nan"], "`--seconds nan`"),
        (["run", "--scenario", "earthquake"], "neither a name nor a file\nhint: the names are calm"),
        (["run", "--scenario", "examples/sim/two-workers-die.toml", "--nodes", "9"], "says itself how many"),
        (["run", "--config", "moon"], "`moon` is no preset\nhint: there are local"),
        (["run", "--count", "2", "--html", "x.html"], "`--html` shows one run"),
        ([*CALM, "--json", "/no/such/folder/x.json"], "cannot be written"),
        (["swarm", "--count", "0"], "`--count 0`"),
        (["swarm", "--jobs", "0"], "`--jobs 0`"),
        (["swarm", "--nodes", "1"], "`--nodes 1`"),
    ],
)
def test_bad_usage_is_named_and_ends_with_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert main(argv) == BAD_USAGE
    assert says in capsys.readouterr().err


def test_an_unknown_option_ends_with_2(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--quick"])
    assert ended.value.code == BAD_USAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command][1][1:] in " ".join(capsys.readouterr().out.split())


# -- swarm ----------------------------------------------------------------------------------------


def test_a_swarm_sums_up_what_struck_and_what_was_reached(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "swarm.json"
    argv = ["swarm", "--count", "3", "--seed", "20", "--seconds", "2", "--jobs", "1", "--json", str(path)]
    status = main(argv)
    out = capsys.readouterr().out
    assert "3 runs" in out
    assert "states reached: " in out
    written = json.loads(path.read_text())
    assert status == (FAILED if written["failed"] else 0)
    assert f"failed seeds: {' '.join(map(str, written['failed'])) or 'none'}" in out
    assert [run["seed"] for run in written["runs"]] == [20, 21, 22]
    assert sum(written["faults"].values()) > 0


@pytest.mark.slow
def test_a_swarm_over_two_processes_finds_what_one_finds(tmp_path: Path):
    digests = []
    for jobs in ("1", "2"):
        path = tmp_path / f"{jobs}.json"
        main(["swarm", "--count", "4", "--seconds", "1", "--jobs", jobs, "--json", str(path)])
        digests.append([run["digest"] for run in json.loads(path.read_text())["runs"]])
    assert digests[0] == digests[1]


def test_a_seed_that_fails_is_printed_with_the_command_that_replays_it(
    planted: None, capsys: pytest.CaptureFixture
):
    argv = ["swarm", "--count", "2", "--seed", "5", "--seconds", "2", "--jobs", "1"]
    assert main(argv) == FAILED
    captured = capsys.readouterr()
    assert "failed seeds: 5 6" in captured.out
    assert "python -m sim run --scenario swarm --seed 5 --seconds 2" in captured.out
    assert "seed 5 failed bounds: " in captured.err
    assert main([*argv, "--stop"]) == FAILED
    assert "1 of 2 (stopped) runs" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_ends_a_swarm_with_what_was_found():
    code = (
        "import signal, sys, sim.cli.swarm as swarm\n"
        "from sim.__main__ import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "show = swarm._show\n"
        "swarm._show = lambda *all: (show(*all), print('one', flush=True))\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main(['swarm', '--count', '5000', '--seconds', '1', '--jobs', '2']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "one\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == STOPPED
    assert "of 5000 (stopped) runs" in out
    assert "Traceback" not in err


def test_a_summary_names_the_kinds_of_fault_that_never_struck():
    said = summary([Tally(1, 3, 10.0, 5, "d", bitten=(("Crash", 2),))], 1, 2.0, FAULTS)
    assert "faults, by how often they bit: Crash 2" in said
    assert "never bit: Restart, " in said
    assert "10 virtual seconds in 2.0 s (5.0 times real time)" in said


def test_counts_are_added_by_name():
    assert sums([(("b", 1), ("a", 2)), (("a", 3),)]) == {"a": 5, "b": 1}


def test_a_task_is_one_seed():
    assert Task(3, 2, 1.0)().digest == Task(3, 2, 1.0)().digest
    assert Task(3, 2, 1.0)().nodes == 2


# -- what is shown --------------------------------------------------------------------------------


def test_progress_says_what_how_far_how_fast_and_how_long(capsys: pytest.CaptureFixture):
    clock = [100.0]
    progress = Progress(40.0, clock=lambda: clock[0])
    progress.begin("kill seed 7, 5 nodes")
    clock[0] += 9.0
    progress.watch(5.0)
    assert capsys.readouterr().err == ""
    clock[0] += 1.0
    progress.note = "1 failed"
    progress.watch(10.0)
    line = f"kill seed 7, 5 nodes  [{bar(0.25)}]  25%  1.0 virtual s/s  30 s left  1 failed\n"
    assert capsys.readouterr().err == line


def test_a_bar_has_one_width():
    assert {len(bar(share)) for share in (-1.0, 0.0, 0.3, 1.0, 7.0)} == {24}


def test_a_table_lines_up():
    assert table(("a", "bb"), [("long", "1"), ("x", "22")]) == "a     bb\nlong   1\nx     22"
