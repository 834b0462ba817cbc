"""`sim whatif TOPOLOGY.toml`: what would happen to a user's own mesh."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.cli.common import FAILED, Usage, as_json, table, within, write
from sim.cli.progress import Progress
from sim.page import page
from sim.report import quantile
from sim.topology import Topology, load
from sim.whatif import FORM_S, findings, observe

COUNT = 3
COUNT_MAX = 1000


def add(parse: argparse.ArgumentParser) -> None:
    """Add the options."""
    parse.add_argument(
        "topology", metavar="TOPOLOGY.toml", help="the mesh; docs/how-to/what-if.md describes it"
    )
    parse.add_argument("--seed", type=int, default=0, metavar="K", help="the first seed (default 0)")
    parse.add_argument(
        "--count", type=int, default=COUNT, metavar="N", help=f"how many seeds (default {COUNT})"
    )
    parse.add_argument("--json", metavar="FILE", help="write what was found; - is standard output")
    parse.add_argument("--html", metavar="FILE", help="write one page of the first run")


def main(arguments: argparse.Namespace) -> int:
    """Run and tell; return the exit status. Raises Usage, ConfigurationError."""
    within("--count", arguments.count, 1, COUNT_MAX)
    path = Path(arguments.topology)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"`{path}` cannot be read: {error}") from error
    topology = load(text, path.stem)
    found = _runs(topology, arguments)
    out = sys.stderr if arguments.json == "-" else sys.stdout
    print(said(topology, found), file=out)
    if arguments.json:
        write(arguments.json, as_json({"topology": topology.name, "runs": found}))
    return FAILED if any(run["violation"] for run in found) else 0


def _runs(topology: Topology, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    progress = Progress((FORM_S + topology.seconds) * arguments.count)
    found = []
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        progress.begin(f"{topology.name}, seed {seed}")
        outcome = observe(topology, seed, progress.watch)
        progress.end(FORM_S + topology.seconds)
        found.append(findings(topology, outcome))
        if arguments.html and seed == arguments.seed:
            command = f"python -m sim whatif {arguments.topology} --seed {seed} --count 1"
            write(arguments.html, page(outcome.result, outcome.journal, command))
    progress.clear()
    return found


def said(topology: Topology, found: Sequence[dict[str, Any]]) -> str:
    """Return the answer in words."""
    sites = ", ".join(f"{site.name} ({site.entries} + {site.workers})" for site in topology.sites)
    lines = [
        f"{topology.name}: {len(topology.nodes)} nodes (entries + workers): {sites}",
        f"{len(found)} runs of {topology.seconds:g} s, {sum(run['clients']['count'] for run in found)} requests",
        "",
        _capacity(found),
        f"requests: {_counts(found)}",
        f"first token: p50 {_over(found, 'first_token_s', 'p50')}, p99 {_over(found, 'first_token_s', 'p99')}",
        f"longest pause of a stream: {_over(found, 'longest_pause_s', 'max')}",
        f"gossip: {_range([run['gossip_bytes_per_node_s'] for run in found], 'bytes/node/s', 0)}",
        *_events(found),
        "",
        _loads(topology, found),
    ]
    broken = [f"seed {run['seed']}: {run['violation']}" for run in found if run["violation"]]
    return "\n".join([*lines, *broken])


def _capacity(found: Sequence[dict[str, Any]]) -> str:
    of = found[0]["capacity"]
    bad = sum(run["failed"] + run["waiting"] for run in found)
    holds = of["wanted"] < of["at_worst"] and not bad
    why = f"{bad} requests failed or still wait" if bad else "more is asked than is left"
    return (
        f"capacity: {of['wanted']:,.0f} tokens/s are asked of {of['at_first']:,.0f}"
        f" ({_share(of['wanted'], of['at_first'])}), of {of['at_worst']:,.0f} at worst"
        f" ({_share(of['wanted'], of['at_worst'])}): " + ("it holds" if holds else f"it does not hold: {why}")
    )


def _share(wanted: float, given: float) -> str:
    return f"{wanted / given:.0%}" if given else "nothing is left"


def _counts(found: Sequence[dict[str, Any]]) -> str:
    outcomes: dict[str, int] = {}
    for run in found:
        for name, count in run["clients"]["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
    moves = sum(run["clients"]["moves"] for run in found)
    return (
        f"{', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}; {moves} streams moved"
    )


def _over(found: Sequence[dict[str, Any]], figure: str, share: str) -> str:
    return _range([run["clients"][figure][share] for run in found], "s")


def _range(values: Sequence[float | None], unit: str, digits: int = 2) -> str:
    """Return the median of the runs and, where they differ, their ends."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    middle, low, high = quantile(there, 0.5), min(there), max(there)
    if f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return f"{middle:,.{digits}f} {unit}".rstrip()
    return f"{middle:,.{digits}f} {unit}".rstrip() + f" ({low:,.{digits}f} to {high:,.{digits}f})"


def _events(found: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for place, event in enumerate(found[0]["events"]):
        each = [run["events"][place] for run in found if len(run["events"]) > place]
        out = _range([e["out_of_routing_s"]["max"] for e in each], "s")
        dead = _range([e["dead_everywhere_s"]["max"] for e in each], "s")
        lines += [
            "",
            f"at {event['at']:g} s: {event['what']}",
            f"  out of routing everywhere after {out}; dead everywhere after {dead}",
            f"  streams computed there: {_range([e['streams_there'] for e in each], '', 0)}",
            f"  longest pause that began within 5 s of it: {_range([e['longest_pause_s'] for e in each], 's')}",
        ]
    return lines


def _loads(topology: Topology, found: Sequence[dict[str, Any]]) -> str:
    rows = []
    for name in topology.nodes:
        loads = [run["load"][name] for run in found]
        if any(load["most"] for load in loads):
            mean = sum(load["mean"] for load in loads) / len(loads)
            busy = sum(load["busy"] for load in loads) / len(loads)
            rows.append((name, f"{mean:.2f}", str(max(load["most"] for load in loads)), f"{busy:.0%}"))
    return table(("node", "streams, mean", "most", "busy"), rows)
