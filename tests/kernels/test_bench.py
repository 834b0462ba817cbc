"""The bench: what it writes down, how it judges, and that its whole way is open without a GPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import parity, rms_norm
from kernels._triton import installed
from kernels.bench import faulty, report
from kernels.choose import Control, Controls
from kernels.op import Op
from kernels.record import Ceilings, Figure, Goal, Record
from tests.tidy.tree import ROOT

CPU = torch.device("cpu")
CASE = rms_norm.OP.cases[2]


def made(path: Path | None = None, dry: bool = False, budget_s: float = 100.0) -> Record:
    return Record(CPU, dry, path, budget_s, say=lambda _: None)


def spoiled(spoil) -> Op:
    """A record whose kernel is torch's, spoiled."""
    kernels = {"triton": lambda *inputs: spoil(rms_norm.rms_norm(*inputs))}
    return Op("rms_norm", rms_norm.rms_norm_reference, kernels, rms_norm.OP.cases)


def refuse(_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel image")


def test_a_kernel_that_agrees_holds():
    verdict = parity.judge(spoiled(lambda y: y), CASE, torch.float32, CPU)
    assert verdict.holds
    assert 0 < verdict.error < verdict.allowed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda y: y * 1.001,
        lambda y: y.index_fill(0, torch.tensor([3]), math.nan),
        lambda y: y[:-1],
        lambda y: y.half(),
        lambda y: torch.empty_like(y),  # poisoned
    ],
    ids=["off", "nan", "short", "another dtype", "not written"],
)
def test_a_kernel_that_does_not_is_caught(spoil):
    assert not parity.judge(spoiled(spoil), CASE, torch.float32, CPU).holds


def test_a_kernel_that_cannot_run_is_named_with_its_fault():
    verdict = parity.judge(spoiled(refuse), CASE, torch.float32, CPU)
    assert (verdict.holds, verdict.fault) == (False, "RuntimeError: no kernel image")


@pytest.mark.parametrize(("got", "expected", "far"), [
    ([1.0, math.nan], [1.0, math.nan], 0.0), ([math.inf], [math.inf], 0.0), ([math.inf], [1.0], math.inf),
    ([1.0], [math.inf], math.inf), ([1.5, 2.0], [1.0, 2.0], 0.25), ([], [], 0.0),
])  # fmt: skip
def test_distance(got: list[float], expected: list[float], far: float):
    assert parity.distance(torch.tensor(got), torch.tensor(expected)) == far


def test_what_moves_keeps_its_gaps_and_all_its_tensors():
    narrow = torch.arange(24.0).view(4, 6)[:, 1:4]
    controls = Controls.of([Control(3, 0.5)], "cpu")
    there = parity.moved((narrow, (controls, 5)), torch.device("meta"))
    assert (there[0].stride(), there[0].shape) == (narrow.stride(), narrow.shape)
    assert there[1][0].keys.is_meta
    assert there[1][1] == 5
    assert torch.equal(parity.moved(narrow, CPU), narrow)


def test_every_case_of_every_kernel_is_a_job():
    chosen = parity.jobs()
    assert len(chosen) == len(set(chosen))
    named = {(parity.TABLE[place][0].name, parity.TABLE[place][1][index].name) for place, index, _ in chosen}
    assert len(named) >= 80
    for op, cases in parity.PRODUCTION:
        assert "triton" in op.implementations
        assert all(case.make for case in cases)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_a_goal_is_kept_or_missed_or_not_measured(wanted: float, got: float):
    most, least = Goal("a", "s", wanted, got, least=False), Goal("a", "s", wanted, got)
    assert {most.verdict, least.verdict} == {"kept", "missed"} or wanted == got
    assert Goal("a", "s", wanted, None).verdict == "not measured"
    assert Goal("a", "s", wanted, got, dry=True).verdict == "not measured"


def test_a_figure_is_held_against_the_slower_of_both_ceilings():
    ceilings = Ceilings(bytes_per_s=100.0, flops=1000.0)
    assert ceilings.floor_s(Figure("a", "b", 1.0, bytes_moved=50, operations=100)) == 0.5
    assert ceilings.floor_s(Figure("a", "b", 1.0, bytes_moved=5, operations=100)) == 0.1


def test_the_file_is_written_after_each_stage_and_a_fault_ends_only_its_stage(tmp_path: Path):
    path, seen = tmp_path / "figures.json", []
    record = made(path, dry=True)
    record.stage("one", 0, lambda r: r.time("one", "nothing", lambda: None, moved=1))
    seen.append(json.loads(path.read_text()))
    record.stage("two", 0, lambda _: refuse(torch.empty(0)))
    record.stage("three", 10**9, refuse)
    written = json.loads(path.read_text())
    assert [figure["name"] for figure in seen[0]["figures"]] == ["nothing"]
    assert written["facts"]["two: fault"] == "RuntimeError: no kernel image"
    assert written["skipped"] == ["three"]
    assert faulty(record)
    assert not list(tmp_path.glob("*.new"))


def test_a_peer_that_cannot_run_is_kept_with_its_fault_and_ours_is_an_error():
    record = made(dry=True)
    figure = record.time("a", "b", lambda: refuse(torch.empty(0)), by="peer")
    assert figure.fault == "RuntimeError: no kernel image"
    assert record.find("b", "peer") is None
    with pytest.raises(RuntimeError):
        record.time("a", "b", lambda: refuse(torch.empty(0)))


def test_a_dry_run_says_so_and_keeps_no_goal_of_speed():
    record = made(dry=True)
    record.time("stage", "thing", lambda: None, 10.0, 10.0)
    record.promise("speed", "TB/s", 4.0, 5.0)
    record.promise("wrong", "cases", 0, 0, least=False, certain=True)
    assert [goal.verdict for goal in record.goals] == ["not measured", "kept"]
    assert report(record).count("DRY RUN: no figure below is a measurement.") == 2
    assert not faulty(record)
    record.promise("wrong", "cases", 0, 1, least=False, certain=True)
    assert faulty(record)


def bench(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    words = [sys.executable, "-m", "kernels.bench", *arguments]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_what_can_be_had():
    done = bench(interpret=False)
    assert done.returncode == 2
    assert "cannot run here" in done.stderr
    assert "hint: `--plan` needs no GPU" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not installed() or torch.cuda.is_available(), reason="no Triton, or a GPU")
def test_its_whole_way_is_open_in_the_interpreter(tmp_path: Path):
    path = tmp_path / "figures.json"
    done = bench("--dry", "--json", str(path), interpret=True)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(path.read_text())
    assert written["dry"]
    assert not [name for name in written["facts"] if name.endswith(": fault")]
    assert {"decode", "prefill", "products", "others"} <= {figure["stage"] for figure in written["figures"]}
    assert not [figure for figure in written["figures"] if figure["fault"]]
    assert {goal["verdict"] for goal in written["goals"]} <= {"not measured", "kept"}
