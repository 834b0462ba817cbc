"""`sim compare A B`: two configurations under the same clients and faults, over many seeds."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from node.core import NodeOptions
from sim.cli.common import (
    COUNT_MAX,
    FAILED,
    STOPPED,
    add_scenario,
    as_json,
    build,
    check_scenario,
    table,
    within,
    write,
)
from sim.cli.members import NODES, SECONDS, check_members, scenario_of
from sim.cli.parallel import JOBS_MAX, results
from sim.cli.progress import Progress
from sim.compare import CLIENT_METRICS, CONFIDENCE, Difference, Pair, differences, pair, pair_members
from sim.configuration import describe, parse
from sim.members import Plan, draw
from sim.scenario import Scenario

COUNT = 30
HEADER = ("", "pairs", "A", "B", "B - A", f"{CONFIDENCE:.0%} interval", "B is")


def add(parse_: argparse.ArgumentParser) -> None:
    """Add the options."""
    parse_.add_argument(
        "a", metavar="A", help="a configuration, as in `lan` or `lan,swim.probe_period_s=0.5`"
    )
    parse_.add_argument("b", metavar="B", help="another")
    add_scenario(parse_, "kill")
    parse_.add_argument(
        "--count", type=int, default=COUNT, metavar="N", help=f"how many seeds (default {COUNT})"
    )
    parse_.add_argument("--members-only", action="store_true", help="membership cores alone, as in `sim run`")
    parse_.add_argument("--jobs", type=int, metavar="J", help="processes (default: one per core)")
    parse_.add_argument("--json", metavar="FILE", help="write rows and pairs; - is standard output")


@attrs.frozen
class Task:
    """One seed to be run under both, in some process."""

    run: Scenario | Plan
    one: NodeOptions
    other: NodeOptions

    def __call__(self) -> Pair:
        if isinstance(self.run, Plan):
            return pair_members(self.run, self.one, self.other)
        return pair(self.run, self.one, self.other)


def _run(task: Task) -> Pair:
    return task()


def main(arguments: argparse.Namespace) -> int:
    """Compare and tell; return the exit status. Raises Usage, ConfigurationError."""
    within("--count", arguments.count, 1, COUNT_MAX)
    within("--jobs", arguments.jobs, 1, JOBS_MAX)
    one, other = parse(arguments.a), parse(arguments.b)
    runs = _members(arguments, one) if arguments.members_only else _scenarios(arguments)
    pairs, stopped = _all([Task(each, one, other) for each in runs], arguments.jobs)
    out = sys.stderr if arguments.json == "-" else sys.stdout
    rows = [
        row for row in differences(pairs) if row.metric not in CLIENT_METRICS or not arguments.members_only
    ]
    print(said(pairs, rows, one, other, runs[0].name), file=out)
    if arguments.json:
        write(arguments.json, as_json(figures(pairs, rows, one, other)))
    failed = any(each.failed_one or each.failed_other for each in pairs)
    return STOPPED if stopped else FAILED if failed else 0


def _scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    check_scenario(arguments)
    first = build(arguments, arguments.seed)
    return [build(arguments, seed) for seed in range(first.seed, first.seed + arguments.count)]


def _members(arguments: argparse.Namespace, options: NodeOptions) -> list[Plan]:
    check_members(arguments)
    nodes, seconds, first = arguments.nodes or NODES, arguments.seconds or SECONDS, arguments.seed or 0
    seeds = range(first, first + arguments.count)
    return [draw(scenario_of(arguments), seed, nodes, seconds, options.swim) for seed in seeds]


def _all(tasks: Sequence[Task], jobs: int | None) -> tuple[list[Pair], bool]:
    progress = Progress(len(tasks), "pairs", label="compare")
    pairs: list[Pair] = []
    try:
        for each in results(_run, tasks, jobs):
            pairs.append(each)
            progress.end(1)
            progress.watch()
    except KeyboardInterrupt:
        return sorted(pairs, key=_seed), True
    finally:
        progress.clear()
    return sorted(pairs, key=_seed), False


def _seed(of: Pair) -> int:
    return of.seed


def said(
    pairs: Sequence[Pair], rows: Sequence[Difference], one: NodeOptions, other: NodeOptions, name: str
) -> str:
    """Return the comparison in words and as a table."""
    failed_one = [f"{each.seed} ({each.failed_one})" for each in pairs if each.failed_one]
    failed_other = [f"{each.seed} ({each.failed_other})" for each in pairs if each.failed_other]
    cells = [
        (
            row.metric,
            str(row.pairs),
            _number(row.one),
            _number(row.other),
            _number(row.difference, sign=True),
            f"{_number(row.low, sign=True)} to {_number(row.high, sign=True)}"
            if row.low is not None
            else "-",
            row.verdict,
        )
        for row in rows
    ]
    failed = f"A {', '.join(failed_one) or 'none'}; B {', '.join(failed_other) or 'none'}"
    head = f"A: {describe(one)}\nB: {describe(other)}\n{len(pairs)} seeds of {name}; failed checks: {failed}"
    return f"{head}\n{table(HEADER, cells)}"


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:{'+' if sign else ''},.3f}"


def figures(
    pairs: Sequence[Pair], rows: Sequence[Difference], one: NodeOptions, other: NodeOptions
) -> dict[str, Any]:
    """Return the comparison, ready for JSON."""
    return {
        "a": describe(one),
        "b": describe(other),
        "confidence": CONFIDENCE,
        "rows": [{**attrs.asdict(row), "verdict": row.verdict} for row in rows],
        "pairs": [attrs.asdict(each) for each in pairs],
    }
