"""`make bench-mesh`: our membership beside serf's, as real processes, through the same schedules in one run.

    python -m tests.bench.mesh [--quick] [--stage NAME ...] [--only inferno|serf] [--json FILE]

Each stage starts its own meshes in private network namespaces (which needs root) and ends every
process that it started. What has been measured is written after each stage.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from tests.bench.machine import processor, wait_quiet
from tests.bench.mesh import burst, crash, idle, linked, loss, partition, pause, space
from tests.bench.mesh.contenders import CONTENDERS, Contender
from tests.bench.mesh.figures import Figures, table
from tests.bench.mesh.herd import HerdError
from tests.bench.mesh.stage import FULL, QUICK, Scale, Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        idle.STAGE,
        crash.STAGE,
        crash.SILENT,
        linked.STAGE,
        burst.STAGE,
        partition.STAGE,
        loss.STAGE,
        pause.STAGE,
    )
}


def main(words: list[str]) -> int:
    """Run what was asked; 0 also where this machine cannot, with the reason."""
    asked = _arguments(words)
    if lacking := space.missing():
        print(f"skipped: {lacking}")
        return 0
    contenders = [CONTENDERS[name] for name in asked.only or CONTENDERS if _can_run(CONTENDERS[name])]
    scale = attrs.evolve(QUICK if asked.quick else FULL, seed=asked.seed)
    kept: dict[str, Any] = {"machine": _machine(), "scale": attrs.asdict(scale), "stages": {}}
    print(", ".join(str(value) for value in kept["machine"].values()))
    for name in asked.stage or STAGES:
        measured = kept["stages"][name] = _stage(STAGES[name], contenders, scale)
        print("\n".join(table(STAGES[name].rows(scale), measured.get("inferno"), measured.get("serf"))))
        if asked.json:
            _keep(asked.json, kept)
    return 0


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mesh", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer nodes and shorter schedules: some minutes"
    )
    parser.add_argument("--stage", action="append", choices=[*STAGES], help="only this one; may be repeated")
    parser.add_argument("--only", action="append", choices=[*CONTENDERS], help="only this contender")
    parser.add_argument("--seed", type=int, default=1, help="draws the schedules (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here after each stage")
    return parser.parse_args(words)


def _can_run(contender: Contender) -> bool:
    if lacking := contender.missing():
        print(f"left out: {contender.name}: {lacking}")
    return not lacking


def _machine() -> dict[str, str]:
    serf = CONTENDERS["serf"]
    told = (
        "" if serf.missing() else subprocess.run(["serf", "version"], capture_output=True, text=True).stdout
    )
    return {
        "cores": f"{os.cpu_count()} cores",
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
        "python": f"Python {sys.version.split()[0]}",
        "serf": f"serf {told.splitlines()[0] if told else 'missing'}",
    }


def _stage(stage: Stage, contenders: list[Contender], scale: Scale) -> dict[str, Figures]:
    print(f"\n{stage.name}: {stage.what}", flush=True)
    measured: dict[str, Figures] = {}
    for contender in contenders:
        busy, began = wait_quiet(), time.monotonic()
        try:
            measured[contender.name] = stage.run(contender, scale) | {"others_busy": busy}
        except HerdError as error:
            print(f"  {contender.name} failed: {error}")
        print(
            f"  {contender.name}: {time.monotonic() - began:.0f} s, others used {busy:.0%} before", flush=True
        )
    return measured


def _keep(path: Path, kept: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_plain(kept), indent=1))
    partial.replace(path)


def _plain(value: Any) -> Any:
    """Replace what JSON has no word for."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case float() if not math.isfinite(value):
            return None
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
