"""Repeat the experiments of the Lifeguard paper, with their configurations and with ours.

    python -m sim.papers threshold --configurations swim,lan --repetitions 10 --out threshold.jsonl
    python -m sim.papers interval  --configurations swim,lifeguard,lan --repetitions 1 --jobs 2 --out interval.jsonl
    python -m sim.papers report threshold.jsonl interval.jsonl

One repetition is a tenth of the paper's grid. Each finished cell is a line of the file; started again, the
command goes on with the cells that are missing. Everything is virtual time: the machine does not matter.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from sim.papers_cells import CONFIGURATIONS, Cell, Outcome, grid, run
from sim.papers_report import falsehood_table, falsehoods, latencies, latency_table, share_table

PROGRESS_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    if options.command == "report":
        print(report(read(options.files)))
        return 0
    names = options.configurations.split(",")
    wrong = [name for name in names if name not in CONFIGURATIONS]
    if wrong:
        known = ", ".join(CONFIGURATIONS)
        print(f"no configuration is called `{wrong[0]}`\nhint: there are {known}", file=sys.stderr)
        return 2
    cells = [cell for name in names for cell in grid(options.command, name, options.repetitions)]
    campaign(cells[:: options.every], Path(options.out), options.jobs)
    print(report(read([options.out])))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim.papers", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("threshold", "interval"):
        command = commands.add_parser(name)
        command.add_argument("--configurations", default="swim,lifeguard,lan", help="comma-separated")
        command.add_argument("--repetitions", type=int, default=1, help="1 to 10; the paper's 10")
        command.add_argument("--every", type=int, default=1, help="run only each n-th cell")
        command.add_argument("--jobs", type=int, default=1, help="processes")
        command.add_argument("--out", default=f"{name}.jsonl", help="finished cells, one per line")
    commands.add_parser("report").add_argument("files", nargs="+")
    return parser


def campaign(cells: Sequence[Cell], out: Path, jobs: int) -> None:
    """Run the cells that `out` does not hold yet, and add them to it."""
    done = {cell for cell, _ in read([out])}
    missing = [cell for cell in cells if cell not in done]
    began = said = time.monotonic()
    with multiprocessing.Pool(jobs) as pool, out.open("a") as file:
        for count, (cell, outcome) in enumerate(pool.imap_unordered(_run, missing), 1):
            file.write(json.dumps({**attrs.asdict(cell), "outcome": attrs.asdict(outcome)}) + "\n")
            file.flush()
            passed_s = time.monotonic() - began
            if time.monotonic() - said >= PROGRESS_S or count == len(missing):
                said = time.monotonic()
                left_s = passed_s / count * (len(missing) - count)
                print(f"{count} of {len(missing)} cells, {left_s:.0f} s left", file=sys.stderr, flush=True)


def _run(cell: Cell) -> tuple[Cell, Outcome]:
    return cell, run(cell)


def read(files: Iterable[str | Path]) -> list[tuple[Cell, Outcome]]:
    """Read finished cells, each once, its last run; a file that is not there holds none."""
    results = {}
    for path in map(Path, files):
        for line in path.read_text().splitlines() if path.exists() else ():
            row = json.loads(line)
            seen = {name: tuple(v) if isinstance(v, list) else v for name, v in row.pop("outcome").items()}
            results[Cell(**row)] = Outcome(**seen)
    return list(results.items())


def report(results: Sequence[tuple[Cell, Outcome]]) -> str:
    """The tables of the paper, as far as there are results."""
    parts = []
    for experiment in ("threshold", "interval"):
        chosen = [(cell, outcome) for cell, outcome in results if cell.experiment == experiment]
        names = [name for name in CONFIGURATIONS if any(cell.configuration == name for cell, _ in chosen)]
        if names and experiment == "threshold":
            parts.append(latency_table([latencies(name, chosen) for name in names]))
        elif names:
            parts.append(falsehood_table([falsehoods(name, chosen) for name in names]))
            parts.append(share_table(names, chosen))
    return "\n\n".join(filter(None, parts))


if __name__ == "__main__":
    sys.exit(main())
