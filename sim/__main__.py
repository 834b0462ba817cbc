"""`python -m sim`: run scenarios in virtual time, show progress, say what was found."""

import argparse
import sys
import time
from collections.abc import Sequence

import attrs

from sim.scenario import Result, Scenario, run
from sim.scenarios import ENTRIES, NODES, SCENARIOS, SECONDS

TAIL_LINES = 30
EVERY_TERMINAL_S = 0.2
EVERY_PIPE_S = 10.0
"""Seconds between two progress lines when nobody sits before a terminal."""

FAILED = 1
BAD_USAGE = 2
NODES_MAX = 1024


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parse = argparse.ArgumentParser(
        prog="python -m sim",
        description="Run the real node cores in virtual time under faults, and check what must always hold.",
        epilog="exit status: 0 all checks held, 1 a check failed, 2 bad usage",
    )
    parse.add_argument("--scenario", choices=tuple(SCENARIOS), default="swarm", help="default: swarm")
    parse.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parse.add_argument("--count", type=int, default=1, metavar="N", help="run so many seeds (default 1)")
    parse.add_argument(
        "--nodes",
        type=int,
        metavar="N",
        help=f"size of the mesh (default {NODES}; swarm: drawn from the seed)",
    )
    parse.add_argument(
        "--minutes",
        type=float,
        default=SECONDS / 60,
        metavar="M",
        help=f"virtual minutes under faults (default {SECONDS / 60:g})",
    )
    parse.add_argument("--trace", action="store_true", help="print the whole trace of each run")
    return parse


@attrs.define
class Progress:
    """Says what runs, how far it is, how fast and how long it will take."""

    seconds: float
    """Virtual time that one run takes, about."""
    count: int
    _began: float = attrs.field(init=False, factory=lambda: time.monotonic())
    _shown: float = attrs.field(init=False, factory=lambda: time.monotonic())
    _passed: float = attrs.field(init=False, default=0.0)
    _runs: int = attrs.field(init=False, default=0)
    _label: str = attrs.field(init=False, default="")

    def begin(self, label: str) -> None:
        """A run begins."""
        self._label = label

    def end(self, virtual_s: float) -> None:
        """A run has ended."""
        self._runs += 1
        self._passed += virtual_s

    def watch(self, virtual_s: float) -> None:
        """Show a line if it is time."""
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if now - self._shown < (EVERY_TERMINAL_S if terminal else EVERY_PIPE_S):
            return
        self._shown = now
        done = (self._runs + min(1.0, virtual_s / self.seconds)) / self.count
        elapsed = now - self._began
        rate = (self._passed + virtual_s) / elapsed
        left = elapsed / done - elapsed if done else 0.0
        line = f"{self._label}  {done:4.0%}  {rate:.1f} virtual s/s  {left:.0f} s left"
        sys.stderr.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")

    def clear(self) -> None:
        """Take the line from the terminal."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def command(scenario: Scenario, arguments: argparse.Namespace) -> str:
    """Return the command that replays a run."""
    nodes = f" --nodes {arguments.nodes}" if arguments.nodes else ""
    minutes = f" --minutes {arguments.minutes:g}" if arguments.minutes != SECONDS / 60 else ""
    return f"python -m sim --scenario {scenario.name} --seed {scenario.seed}{nodes}{minutes}"


HEADER = "scenario    seed nodes  virtual   events clients moves  pause  faults                   digest"


def row(result: Result) -> str:
    """Return a line of the summary."""
    scenario, world = result.scenario, result.world
    longest_s = max((client.longest_pause_s for client in world.clients), default=0.0)
    moves = sum(client.moves for client in world.clients)
    faults = ",".join(f"{kind}:{count}" for kind, count in world.struck.items()) or "-"
    return (
        f"{scenario.name:10}{scenario.seed:6}{scenario.nodes:6}{world.time:8.1f}s{world.events:9}"
        f"{len(world.clients):8}{moves:6}{longest_s:6.2f}s  {faults:24} {world.trace.digest()[:12]}"
    )


def explain(result: Result, replay: str) -> str:
    """Return everything that is needed to look into a failed check."""
    lines = [
        f"error: {result.violation}",
        f"the last {TAIL_LINES} lines of the trace:",
        *result.world.trace.tail(TAIL_LINES),
        f"hint: replay it with: {replay}",
    ]
    return "\n".join(lines)


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


def check(arguments: argparse.Namespace, parse: argparse.ArgumentParser) -> None:
    """End with status 2 if a number makes no sense."""
    least = 2 if arguments.scenario == "swarm" else ENTRIES + 1
    if arguments.nodes is not None and not least <= arguments.nodes <= NODES_MAX:
        parse.error(f"`--nodes {arguments.nodes}` is not within {least} to {NODES_MAX}")
    if not 1 <= arguments.count <= 10**6:
        parse.error(f"`--count {arguments.count}` is not within 1 to 1000000")
    if not 0 < arguments.minutes <= 1440:
        parse.error(f"`--minutes {arguments.minutes:g}` is not within 0 to 1440")


def build(arguments: argparse.Namespace, seed: int) -> Scenario:
    """Return the scenario of one seed."""
    make, seconds = SCENARIOS[arguments.scenario], arguments.minutes * 60
    nodes = arguments.nodes or (None if arguments.scenario == "swarm" else NODES)
    scenario = make(seed, nodes, seconds)
    return attrs.evolve(scenario, options=attrs.evolve(scenario.options, keep_trace=arguments.trace))


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; return the exit status."""
    parse = parser()
    arguments = parse.parse_args(argv)
    check(arguments, parse)
    began = time.monotonic()
    progress = Progress(build(arguments, arguments.seed).faults_end_s + 2.0, arguments.count)
    results: list[Result] = []
    print(HEADER)
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        scenario = build(arguments, seed)
        progress.begin(f"{scenario.name} seed {seed}, {scenario.nodes} nodes")
        result = run(scenario, progress.watch)
        results.append(result)
        progress.end(result.world.time)
        progress.clear()
        if arguments.trace:
            print("\n".join(result.world.trace.lines))
        print(row(result), flush=True)
        if result.violation:
            print(explain(result, command(scenario, arguments)), file=sys.stderr)
    print(totals(results, time.monotonic() - began))
    return FAILED if any(result.violation for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
