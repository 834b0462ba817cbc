"""`sim run --members-only`: membership cores alone, in meshes too large for whole nodes."""

import argparse
import shlex
import sys
import time
from typing import Any

from sim.cli.common import COUNT_MAX, FAILED, Usage, as_json, within, write
from sim.cli.progress import Progress
from sim.configuration import parse
from sim.members import BEGIN_S, DRAWS, draw, run

NODES = 128
NODES_MAX = 16_384
SECONDS = 12.0
HEADER = "scenario    seed  nodes  virtual     events  dead everywhere  false  bytes/node/s  digest"


def main(arguments: argparse.Namespace) -> int:
    """Run and report; return the exit status. Raises Usage, ConfigurationError."""
    if arguments.html or arguments.trace:
        raise Usage("members alone have no page and no trace of lines", "leave out --html and --trace")
    check_members(arguments)
    within("--count", arguments.count, 1, COUNT_MAX)
    name = scenario_of(arguments)
    nodes, seconds = arguments.nodes or NODES, arguments.seconds or SECONDS
    swim = parse(arguments.config or "lan").swim
    out = sys.stderr if arguments.json == "-" else sys.stdout
    progress = Progress((BEGIN_S + seconds) * arguments.count * (1 + arguments.check))
    began, reports = time.monotonic(), []
    print(HEADER, file=out)
    for seed in range(arguments.seed or 0, (arguments.seed or 0) + arguments.count):
        progress.begin(f"{name} seed {seed}, {nodes} members")
        plan = draw(name, seed, nodes, seconds, swim)
        figures = run(plan, progress.watch)
        progress.end(BEGIN_S + seconds)
        if arguments.check and figures != run(plan, progress.watch):
            figures["violation"] = {"check": "one_history", "message": "two runs of this seed differ"}
        progress.clear()
        figures["replay"] = _replay(arguments, name, seed)
        reports.append(figures)
        print(row(figures), file=out, flush=True)
        if figures["violation"]:
            _complain(figures)
    virtual_s, real_s = sum(each["virtual_s"] for each in reports), time.monotonic() - began
    print(
        f"{virtual_s:.0f} virtual seconds in {real_s:.1f} s ({virtual_s / real_s:.1f} times real time)",
        file=out,
    )
    if arguments.json:
        write(arguments.json, as_json(reports[0] if arguments.count == 1 else {"runs": reports}))
    return FAILED if any(each["violation"] for each in reports) else 0


def scenario_of(arguments: argparse.Namespace) -> str:
    """Return the scenario that is meant: `swarm`, the default of others, has no meaning here."""
    return "kill" if arguments.scenario == "swarm" else arguments.scenario


def check_members(arguments: argparse.Namespace) -> None:
    """Refuse what makes no sense for members alone. Raises Usage."""
    if arguments.scenario not in ("swarm", *DRAWS):
        raise Usage(
            f"`--scenario {arguments.scenario}` is none of members alone", f"there are {', '.join(DRAWS)}"
        )
    if arguments.minutes is not None:
        arguments.seconds = arguments.minutes * 60
    within("--nodes", arguments.nodes, 2, NODES_MAX)
    within("--seconds", arguments.seconds, 0.05, 86_400)


def _complain(figures: dict[str, Any]) -> None:
    found = figures["violation"]
    print(
        f"error: {found['check']}: {found['message']}\nhint: replay it with: {figures['replay']}",
        file=sys.stderr,
    )


def _replay(arguments: argparse.Namespace, name: str, seed: int) -> str:
    words = ["python", "-m", "sim", "run", "--members-only", "--scenario", name, "--seed", str(seed)]
    words += ["--nodes", str(arguments.nodes or NODES), "--seconds", f"{arguments.seconds or SECONDS:g}"]
    return shlex.join([*words, *(["--config", arguments.config] if arguments.config else [])])


def row(figures: dict[str, Any]) -> str:
    """Return a line of the summary."""
    dead = figures["membership"]["dead_everywhere_s"]
    last = f"{dead['max']:.2f} s" if dead["max"] is not None else "-"
    return (
        f"{figures['scenario']:10}{figures['seed']:6}{figures['nodes']:7}{figures['virtual_s']:8.1f}s"
        f"{figures['events']:11}{last:>17}{figures['membership']['false_deaths']:7}"
        f"{figures['traffic']['bytes_per_node_s']:14.0f}  {figures['trace_digest'][:12]}"
    )
