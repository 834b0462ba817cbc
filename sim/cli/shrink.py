"""`sim shrink SEED`: the smallest scenario that fails the same check, as a test and as a file."""

import argparse
import sys
import time
from pathlib import Path

import attrs

from sim.cli.common import FAILED, Usage, add_scenario, build, check_scenario, replay, within, write
from sim.cli.progress import EVERY_PIPE_S, EVERY_TERMINAL_S
from sim.reproduction import pytest_of
from sim.scenario_file import dump
from sim.shrink import Shrinker, fail, stretch

BUDGET_S = 60.0
BUDGET_MAX_S = 86_400.0


def add(parse: argparse.ArgumentParser) -> None:
    """Add the options."""
    parse.add_argument("of", type=int, nargs="?", metavar="SEED", help="the seed that fails")
    add_scenario(parse)
    parse.add_argument("--config", metavar="CONFIG", help="options of every node, as in `lan,swim.helpers=2`")
    parse.add_argument(
        "--budget",
        type=float,
        default=BUDGET_S,
        metavar="S",
        help=f"real seconds at most (default {BUDGET_S:g})",
    )
    parse.add_argument("--save", metavar="FILE", help="the scenario file to write (default shrunk-SEED.toml)")
    parse.add_argument("--test", metavar="FILE", help="write the test there instead of printing it")


@attrs.define
class Show:
    """Says how far the search is: in place on a terminal, else a line now and then."""

    until: float
    shown: float

    def __call__(self, shrinker: Shrinker) -> None:
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if now - self.shown < (EVERY_TERMINAL_S if terminal else EVERY_PIPE_S):
            return
        self.shown = now
        size = stretch(shrinker.best.scenario)
        line = f"{shrinker.doing}: {size}  {shrinker.runs} runs  {max(0.0, self.until - now):.0f} s left"
        sys.stderr.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")
        sys.stderr.flush()


def main(arguments: argparse.Namespace) -> int:
    """Shrink and print; return the exit status. Raises Usage, ConfigurationError."""
    if arguments.of is not None:
        arguments.seed = arguments.of
    check_scenario(arguments)
    within("--budget", arguments.budget, 0.1, BUDGET_MAX_S)
    began = time.monotonic()
    scenario = build(arguments, arguments.seed)
    origin = replay(arguments, scenario)
    first = fail(scenario)
    if first is None:
        raise Usage(
            f"seed `{scenario.seed}` fails no check", "find one that does: python -m sim swarm --count 1000"
        )
    until = began + arguments.budget
    shrinker = Shrinker(first, lambda: until - time.monotonic(), Show(until, began))
    try:
        best = shrinker.shrink()
    except KeyboardInterrupt:
        best = shrinker.best
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    path = arguments.save or f"shrunk-{scenario.seed}.toml"
    write(path, dump(best.scenario))
    said = (
        f"{best.check}: {best.message}\n"
        f"from {stretch(scenario)}\n  to {stretch(best.scenario)}, failing at {best.at:.2f} s\n"
        f"{shrinker.runs} runs, {shrinker.taken} steps, {time.monotonic() - began:.1f} s"
        f"{'; ' + shrinker.doing if shrinker.doing.startswith('stopped') else ''}\n"
        f"replay: python -m sim run --scenario {path}"
    )
    test = pytest_of(best, origin)
    if arguments.test:
        write(arguments.test, test)
        print(f"{said}\ntest: pytest {Path(arguments.test)}")
    else:
        print(f"{said}\n\n{test}", end="")
    return FAILED
