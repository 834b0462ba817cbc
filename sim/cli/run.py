"""`sim run`: one scenario, or the same with several seeds; figures as a line, as JSON, as a page."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs

from sim.cli import members
from sim.cli.common import (
    COUNT_MAX,
    FAILED,
    Usage,
    add_scenario,
    as_json,
    build,
    check_scenario,
    explain,
    replay,
    within,
    write,
)
from sim.cli.progress import Progress
from sim.journal import Journal
from sim.page import page
from sim.page_verdicts import explained
from sim.report import report
from sim.scenario import Result, Scenario, run
from sim.trace import first_difference
from sim.world import Violation

HEADER = "scenario    seed nodes  virtual   events clients moves  pause  faults                   digest"


def add(parse: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_scenario(parse)
    parse.add_argument("--count", type=int, default=1, metavar="N", help="run so many seeds (default 1)")
    parse.add_argument("--config", metavar="CONFIG", help="options of every node, as in `lan,swim.helpers=2`")
    parse.add_argument("--json", metavar="FILE", help="write all figures; - is standard output")
    parse.add_argument("--html", metavar="FILE", help="write one page with timelines")
    parse.add_argument(
        "--check", action="store_true", help="run each seed twice; fail if the histories differ"
    )
    parse.add_argument(
        "--members-only",
        action="store_true",
        help="membership cores alone, up to 16384 (scenarios: see the page)",
    )
    parse.add_argument(
        "--trace", action="store_true", help="print the whole trace of each run, and why of each verdict"
    )


def row(result: Result) -> str:
    """Return a line of the summary."""
    scenario, world = result.scenario, result.world
    longest_s = max((client.longest_pause_s for client in world.clients), default=0.0)
    moves = sum(client.moves for client in world.clients)
    faults = ",".join(f"{kind}:{count}" for kind, count in world.struck.items()) or "-"
    return (
        f"{scenario.name[:10]:10}{scenario.seed:6}{scenario.nodes:6}{world.time:8.1f}s{world.events:9}"
        f"{len(world.clients):8}{moves:6}{longest_s:6.2f}s  {faults:24} {world.trace.digest()[:12]}"
    )


def totals(results: Sequence[Result], real_s: float) -> str:
    """Return the sums over all runs."""
    outcomes: dict[str, int] = {}
    for result in results:
        for outcome, count in result.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    virtual_s = sum(result.world.time for result in results)
    failed = [str(result.scenario.seed) for result in results if result.violation]
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "none"
    return (
        f"{len(results)} runs, {virtual_s:.0f} virtual seconds in {real_s:.1f} s ({virtual_s / real_s:.1f} times"
        f" real time); requests: {said}; failed seeds: {' '.join(failed) or 'none'}"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run and report; return the exit status. Raises Usage, ConfigurationError."""
    if arguments.members_only:
        return members.main(arguments)
    check_scenario(arguments)
    within("--count", arguments.count, 1, COUNT_MAX)
    if arguments.html and arguments.count > 1:
        raise Usage("`--html` shows one run", "leave out --count")
    out = sys.stderr if arguments.json == "-" else sys.stdout
    began = time.monotonic()
    results, reports = _run_all(arguments, out)
    print(totals(results, time.monotonic() - began), file=out)
    if arguments.json:
        write(arguments.json, as_json(reports[0] if arguments.count == 1 else {"runs": reports}))
    return FAILED if any(result.violation for result in results) else 0


def _run_all(arguments: argparse.Namespace, out: Any) -> tuple[list[Result], list[dict[str, Any]]]:
    seed = arguments.seed
    first = build(arguments, seed)
    progress = Progress((first.faults_end_s + 2.0) * arguments.count)
    results, reports = [], []
    print(HEADER, file=out)
    for number in range(arguments.count):
        scenario = build(arguments, first.seed + number) if number else first
        result, journal = _run(scenario, progress, arguments.check)
        results.append(result)
        command = replay(arguments, scenario)
        reports.append(report(result, journal, command))
        _tell(result, journal, command, arguments, out)
        if arguments.html:
            write(arguments.html, page(result, journal, command))
    return results, reports


def _run(scenario: Scenario, progress: Progress, twice: bool) -> tuple[Result, Journal]:
    progress.begin(f"{scenario.name} seed {scenario.seed}, {scenario.nodes} nodes")
    journal = Journal()
    result = run(scenario, progress.watch, journal.attach)
    if twice and not result.violation:
        result = attrs.evolve(result, violation=_two_histories(result, run(scenario, progress.watch)))
    progress.end(result.world.time)
    progress.clear()
    return result, journal


def _two_histories(one: Result, other: Result) -> Violation | None:
    """Say where two runs of one seed differ, if they do: that is our bug, whatever the scenario."""
    digests = one.world.trace.digest(), other.world.trace.digest()
    if digests[0] == digests[1]:
        return None
    where = first_difference(one.world.trace, other.world.trace) or "the lines that were kept agree"
    return Violation("one_history", f"two runs have digests {' and '.join(digests)}; {where}")


def _tell(result: Result, journal: Journal, command: str, arguments: argparse.Namespace, out: Any) -> None:
    if arguments.trace:
        names = {host.id: name for name, host in result.world.hosts.items()}
        print(*explained(result.world.trace.lines, journal, names), sep="\n", file=out)
    print(row(result), file=out, flush=True)
    if result.violation:
        print(explain(result, command), file=sys.stderr)
