"""What the subcommands share: exit statuses, which scenario is meant, how a run is told."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from sim.configuration import ConfigurationError, parse
from sim.scenario import Result, Scenario
from sim.scenario_file import load
from sim.scenarios import ENTRIES, NODES, SCENARIOS, SECONDS

FAILED = 1
BAD_USAGE = 2
STOPPED = 130
"""Ctrl-C: what a shell says of a process that SIGINT ended."""

NODES_MAX = 1024
COUNT_MAX = 10**6
SECONDS_MAX = 86_400.0
TAIL_LINES = 30


class Usage(Exception):
    """The command line makes no sense; `hint` says what would."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def add_scenario(parse_: argparse.ArgumentParser, default: str = "swarm") -> None:
    """Add the options that choose a scenario."""
    parse_.add_argument(
        "--scenario", default=default, metavar="NAME|FILE", help=f"a name or a TOML file (default {default})"
    )
    parse_.add_argument("--seed", type=int, default=None, metavar="K", help="the first seed (default 0)")
    parse_.add_argument(
        "--nodes", type=int, metavar="N", help=f"size of the mesh (default {NODES}; swarm: drawn)"
    )
    parse_.add_argument(
        "--seconds", type=float, metavar="S", help=f"virtual seconds under faults (default {SECONDS:g})"
    )
    parse_.add_argument("--minutes", type=float, metavar="M", help="the same in minutes")


def within(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number that lies outside its limits. Raises Usage."""
    if value is not None and not least <= value <= most:
        raise Usage(f"`{name} {value:g}` is not within {least:g} to {most:g}")


def check_scenario(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense. Raises Usage."""
    if arguments.minutes is not None:
        within("--minutes", arguments.minutes, 0.001, SECONDS_MAX / 60)
        arguments.seconds = arguments.minutes * 60
    within("--seconds", arguments.seconds, 0.05, SECONDS_MAX)
    within("--nodes", arguments.nodes, 2 if arguments.scenario == "swarm" else ENTRIES + 1, NODES_MAX)
    if arguments.scenario not in SCENARIOS:
        _check_file(arguments)


def _check_file(arguments: argparse.Namespace) -> None:
    if not Path(arguments.scenario).is_file():
        hint = f"the names are {', '.join(SCENARIOS)}; a file is described in docs/reference/sim-cli.md"
        raise Usage(f"`--scenario {arguments.scenario}` is neither a name nor a file", hint)
    if arguments.nodes or arguments.seconds:
        raise Usage(
            "a scenario file says itself how many nodes and seconds", "leave out --nodes and --seconds"
        )


def build(arguments: argparse.Namespace, seed: int | None) -> Scenario:
    """Return the scenario that is meant. Raises Usage."""
    if arguments.scenario in SCENARIOS:
        make, seconds = SCENARIOS[arguments.scenario], arguments.seconds or SECONDS
        nodes = arguments.nodes or (None if arguments.scenario == "swarm" else NODES)
        scenario = make(seed or 0, nodes, seconds)
    else:
        scenario = load(_text(arguments.scenario), Path(arguments.scenario).stem)
        scenario = scenario if seed is None else attrs.evolve(scenario, seed=seed)
    return configured(scenario, arguments)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"`{path}` cannot be read: {error}") from error


def configured(scenario: Scenario, arguments: argparse.Namespace) -> Scenario:
    """Return a scenario with the options of the command line."""
    options = attrs.evolve(scenario.options, keep_trace=getattr(arguments, "trace", False))
    if getattr(arguments, "config", None):
        options = attrs.evolve(options, node=parse(arguments.config))
    return attrs.evolve(scenario, options=options)


def replay(arguments: argparse.Namespace, scenario: Scenario) -> str:
    """Return the command that replays a run."""
    words = ["python", "-m", "sim", "run", "--scenario", arguments.scenario, "--seed", str(scenario.seed)]
    if arguments.nodes:
        words += ["--nodes", str(arguments.nodes)]
    if arguments.seconds and arguments.seconds != SECONDS:
        words += ["--seconds", f"{arguments.seconds:g}"]
    if getattr(arguments, "config", None):
        words += ["--config", arguments.config]
    return shlex.join(words)


def explain(result: Result, command: str) -> str:
    """Return everything that is needed to look into a failed check."""
    lines = [
        f"error: {result.violation}",
        f"the last {TAIL_LINES} lines of the trace:",
        *result.world.trace.tail(TAIL_LINES),
        f"hint: replay it with: {command}",
    ]
    return "\n".join(lines)


def write(path: str, text: str) -> None:
    """Write a file, `-` being standard output. Raises Usage."""
    if path == "-":
        print(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise Usage(f"`{path}` cannot be written: {error}") from error


def as_json(value: Any) -> str:
    """Return JSON that does not depend on the order of anything."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def refuse(error: Usage | ConfigurationError) -> int:
    """Say what is wrong with the command line or a file, and return the exit status for it."""
    hint = f"\nhint: {error.hint}" if error.hint else ""
    print(f"error: {error}{hint}", file=sys.stderr)
    return BAD_USAGE


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain table, the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)
