"""`sim swarm`: scenarios drawn from many seeds, over all cores; what failed, and what was ever met."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from sim.cli.common import COUNT_MAX, FAILED, NODES_MAX, STOPPED, as_json, within, write
from sim.cli.parallel import JOBS_MAX, results
from sim.cli.progress import Progress
from sim.fault import Fault
from sim.faults import FAULTS
from sim.swarm import draw
from sim.tally import Tally, sums, tally

SECONDS = 12.0


def add(parse: argparse.ArgumentParser) -> None:
    """Add the options."""
    parse.add_argument("--count", type=int, default=100, metavar="N", help="how many seeds (default 100)")
    parse.add_argument("--seed", type=int, default=0, metavar="K", help="the first seed (default 0)")
    parse.add_argument("--jobs", type=int, metavar="J", help="processes (default: one per core)")
    parse.add_argument("--nodes", type=int, metavar="N", help="size of each mesh (default: drawn)")
    parse.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"virtual seconds under faults (default {SECONDS:g})",
    )
    parse.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    parse.add_argument("--json", metavar="FILE", help="write the summary and every run; - is standard output")


@attrs.frozen
class Task:
    """One seed to be run in some process."""

    seed: int
    nodes: int | None
    seconds: float

    def __call__(self) -> Tally:
        return tally(draw(self.seed, self.nodes, self.seconds))


def _run(task: Task) -> Tally:
    return task()


def replay(arguments: argparse.Namespace, seed: int) -> str:
    """Return the command that replays a seed."""
    words = ["python", "-m", "sim", "run", "--scenario", "swarm", "--seed", str(seed)]
    if arguments.nodes:
        words += ["--nodes", str(arguments.nodes)]
    if arguments.seconds != SECONDS:
        words += ["--seconds", f"{arguments.seconds:g}"]
    return shlex.join(words)


def main(arguments: argparse.Namespace) -> int:
    """Run the swarm; return the exit status. Raises Usage."""
    within("--count", arguments.count, 1, COUNT_MAX)
    within("--nodes", arguments.nodes, 2, NODES_MAX)
    within("--seconds", arguments.seconds, 0.05, 86_400)
    within("--jobs", arguments.jobs, 1, JOBS_MAX)
    began = time.monotonic()
    done: list[Tally] = []
    status = _all(arguments, done)
    out = sys.stderr if arguments.json == "-" else sys.stdout
    print(summary(done, arguments.count, time.monotonic() - began, FAULTS), file=out)
    for each in done:
        if each.check:
            print(
                f"seed {each.seed}: {each.check}: {each.message}\n  {replay(arguments, each.seed)}", file=out
            )
    if arguments.json:
        write(arguments.json, as_json(figures(done)))
    failed = any(each.check for each in done)
    return status or (FAILED if failed else 0)


def _all(arguments: argparse.Namespace, done: list[Tally]) -> int:
    """Run until all are done, or Ctrl-C; fill `done` in the order of the seeds."""
    progress = Progress(arguments.count, "runs", label="swarm")
    try:
        for each in _tallies(arguments):
            done.append(each)
            _show(progress, each, arguments, sum(bool(one.check) for one in done))
            if each.check and arguments.stop:
                break
    except KeyboardInterrupt:
        return STOPPED
    finally:
        progress.clear()
        done.sort(key=lambda each: each.seed)
    return 0


def _show(progress: Progress, each: Tally, arguments: argparse.Namespace, failed: int) -> None:
    progress.end(1)
    if each.check:
        progress.clear()
        print(
            f"seed {each.seed} failed {each.check}: {replay(arguments, each.seed)}",
            file=sys.stderr,
            flush=True,
        )
        progress.note = f"{failed} failed"
    progress.watch()


def _tallies(arguments: argparse.Namespace) -> Iterator[Tally]:
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    tasks = [Task(seed, arguments.nodes, arguments.seconds) for seed in seeds]
    yield from results(_run, tasks, arguments.jobs)


def figures(done: Sequence[Tally]) -> dict[str, Any]:
    """Return everything that was found, ready for JSON."""
    return {
        "runs": [
            {
                **attrs.asdict(each, recurse=False),
                "faults": dict(each.faults),
                "bitten": dict(each.bitten),
                "reached": dict(each.reached),
                "outcomes": dict(each.outcomes),
            }
            for each in done
        ],
        "failed": [each.seed for each in done if each.check],
        "faults": sums(each.faults for each in done),
        "bitten": sums(each.bitten for each in done),
        "reached": sums(each.reached for each in done),
        "outcomes": sums(each.outcomes for each in done),
    }


def summary(done: Sequence[Tally], wanted: int, real_s: float, kinds: Sequence[type[Fault]]) -> str:
    """Return the sums in words: how much ran, what struck, what was reached, what never was."""
    virtual_s = sum(each.virtual_s for each in done)
    bitten = sums(each.bitten for each in done)
    never = [kind.__name__ for kind in kinds if kind.__name__ not in bitten]
    failed = [str(each.seed) for each in done if each.check]
    stopped = "" if len(done) == wanted else f" of {wanted} (stopped)"
    sealed, events = sum(each.sealed for each in done), sum(each.events for each in done)
    lines = [
        f"{len(done)}{stopped} runs, {sealed} sealed, {_pace(virtual_s, real_s)}, {events} events",
        f"faults, by how often they bit: {_listed(bitten)}",
        f"never bit: {', '.join(never) or 'none'}",
        f"states reached: {_listed(sums(each.reached for each in done))}",
        f"requests: {_listed(sums(each.outcomes for each in done))}; {sum(each.moves for each in done)} moves",
        f"failed seeds: {' '.join(failed) or 'none'}",
    ]
    return "\n".join(lines)


def _pace(virtual_s: float, real_s: float) -> str:
    times = virtual_s / max(real_s, 1e-9)
    return f"{virtual_s:.0f} virtual seconds in {real_s:.1f} s ({times:.1f} times real time)"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
