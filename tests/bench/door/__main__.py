"""`make bench-door`: a node as front door beside proxies and routers, before an engine that computes nothing.

    python -m tests.bench.door [--quick] [--stage NAME ...] [--only NAME ...] [--json FILE]

The door under test has one core; the load generator and what stands behind the door share the other. Peers are
measured in the same run where they are installed: nginx and haproxy from the system, vllm-router from a virtual
environment of the bench's own, `~/.cache/inferno-bench/peers`. Those that are missing are named.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from node.cli.fleet import FleetError
from tests.bench.door.contenders import CONTENDERS, OURS, Contender
from tests.bench.door.stages import QUICK, STAGES, Scale, Stage
from tests.bench.machine import processor, wait_quiet
from tests.bench.mesh.figures import Figures, Row, met

FAILURES = (FleetError, RuntimeError, OSError, subprocess.CalledProcessError)
"""What the loss of one contender may look like; the others are measured all the same."""


def main(words: list[str]) -> int:
    """Run what was asked; 0 also where this machine cannot, with the reason."""
    asked = _arguments(words)
    lacking = [program for program in ("wrk", "nginx", "taskset") if not shutil.which(program)]
    if lacking or (os.cpu_count() or 1) < 2:
        print(f"skipped: {', '.join(lacking) or 'a second core'} is missing")
        return 0
    scale = QUICK if asked.quick else Scale()
    kept: dict[str, Any] = {"machine": _machine(), "scale": attrs.asdict(scale), "stages": {}}
    print(", ".join(kept["machine"].values()))
    print("the door has core 0; the load generator and the engine or upstream share core 1")
    contenders = [CONTENDERS[name] for name in asked.only or CONTENDERS if _can_run(CONTENDERS[name])]
    for name in asked.stage or STAGES:
        stage = STAGES[name]
        kept["stages"][name] = measured = _stage(stage, contenders if stage.peers else [OURS], scale)
        print("\n".join(table(stage.rows, measured)), flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(kept, indent=1))
    return 0


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.door", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer streams, shorter rounds: a minute or two")
    parser.add_argument("--stage", action="append", choices=[*STAGES], help="only this one; may be repeated")
    parser.add_argument("--only", action="append", choices=[*CONTENDERS], help="only this contender")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here after each stage")
    return parser.parse_args(words)


def _can_run(contender: Contender) -> bool:
    if lacking := contender.missing():
        print(f"left out: {contender.name}: {lacking}")
    return not lacking


def _machine() -> dict[str, str]:
    return {
        "cores": f"{os.cpu_count()} cores",
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
        "python": f"Python {sys.version.split()[0]}",
    }


def _stage(stage: Stage, contenders: list[Contender], scale: Scale) -> dict[str, Figures]:
    print(f"\n{stage.name}: {stage.what}", flush=True)
    measured: dict[str, Figures] = {}
    busy = wait_quiet()
    print(f"  others used {busy:.0%} of the machine before", flush=True)
    for contender in contenders:
        try:
            measured[contender.name] = stage.run(contender, scale) | {"others_busy": busy}
        except FAILURES as error:
            print(f"  {contender.name} failed: {error}")
    return measured


def table(rows: tuple[Row, ...], measured: dict[str, Figures]) -> list[str]:
    """Lines for a terminal: a column per contender, the promise, and whether ours keeps it."""
    cells = [("", *measured, "promised", "")]
    for row in rows:
        shown = [_shown(figures.get(row.key), row.digits) for figures in measured.values()]
        promised = "-" if row.at_most is None else f"≤ {row.at_most:g}"
        kept = met(row, measured.get(OURS.name, {}).get(row.key))
        cells.append((f"{row.what}, {row.unit}", *shown, promised, kept))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [_line(line, widths) for line in cells]


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = line
    padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    return "  " + "  ".join((first.ljust(widths[0]), *padded)).rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
