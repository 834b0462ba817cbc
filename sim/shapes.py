"""Three laws of the papers, measured and drawn: `python -m sim.shapes measure|draw`.

    python -m sim.shapes measure --out docs/explanation/plots/shapes.json
    python -m sim.shapes draw docs/explanation/plots/shapes.json docs/explanation/plots

    first     periods from a crash at a random moment to the first ping that it leaves unanswered, the present
              one counted. SWIM (section 3.1): e / (e - 1) = 1.58 in the mean, whatever the size
    spread    gossip periods until all others know what one member says of itself: grows with log n
    load      bytes and packets a second that an idle node sends, headers of IP and UDP included: flat in n

`first` crashes nobody: until the first ping nobody knows of a crash, so the pings of an idle mesh tell when each
member would have been missed. Everything is virtual time: the machine does not matter.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from mesh.codec import decode
from mesh.effects import Address, Effect, SendDatagram
from mesh.facts import Fact, MemberChanged
from mesh.messages import Ping
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.papers_report import quantile
from sim.peer import Peer
from sim.stream import random_of
from sim.svg import Axis, Line, Plot, draw

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
LOAD_SIZES = (*SIZES, 2048, 4096)
QUIET_PERIODS = 8.0
"""Before anything is measured: round trips are known, first words are said."""
PERIODS = 24.0
SAMPLES = 4000
"""Crashes that are thought of, per size."""
RUMOURS = 12
RUMOUR_S = 8.0
EULER = math.e / (math.e - 1)

FIRST: dict[str, Callable[[], SwimOptions]] = {
    "each goes round for itself (SWIM)": SwimOptions.plain_swim,
    "one timetable for all": SwimOptions.lan,
}
SPREAD: dict[str, Callable[[], SwimOptions]] = {
    "as memberlist (plain SWIM)": SwimOptions.plain_swim,
    "lan": SwimOptions.lan,
}

Row = dict[str, Any]


@attrs.define
class Pings:
    """When each address was pinged: a tap."""

    crowd: Crowd
    at: dict[Address, list[float]] = attrs.Factory(dict)

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        """Note the pings among what a node says."""
        for output in outputs:
            if isinstance(output, SendDatagram) and isinstance(decode(output.data).message, Ping):
                self.at.setdefault(output.address, []).append(self.crowd.time)


@attrs.define
class Heard:
    """Who knows the latest account of one member, and since when: a tap."""

    crowd: Crowd
    node: str
    last: float = 0.0
    known: set[int] = attrs.Factory(set)

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        """Note who learns of it."""
        for output in outputs:
            if isinstance(output, MemberChanged) and output.after.node == self.node:
                self.known.add(peer.index)
                self.last = self.crowd.time


def formed(seed: int, size: int, swim: SwimOptions) -> Crowd:
    """A quiet mesh."""
    crowd = Crowd(seed, CrowdOptions(swim, keep_log=False))
    crowd.form(size)
    crowd.run_for(QUIET_PERIODS * swim.probe_period_s)
    return crowd


def first(size: int, swim: SwimOptions, seed: int = 1) -> Row:
    """Periods to the first ping: mean, median, p99 and maximum over many moments and members."""
    crowd = formed(seed, size, swim)
    pings = Pings(crowd)
    crowd.taps.append(pings)
    began, length_s = crowd.time, PERIODS * swim.probe_period_s
    crowd.run_for(2 * length_s)
    chance, waits = random_of(seed, "moments", size), []
    for _ in range(SAMPLES):
        address = crowd[chance.randint(1, size)].address
        moment = began + chance.uniform(0.0, length_s)
        ping_at = next((at for at in pings.at[address] if at >= moment), math.inf)
        waits.append(max(1, math.ceil((ping_at - moment) / swim.probe_period_s)))
    mean = sum(waits) / len(waits)
    return {"mean": mean, "p50": quantile(waits, 0.5), "p99": quantile(waits, 0.99), "max": max(waits)}


def spread(size: int, swim: SwimOptions, seed: int = 1) -> Row:
    """Gossip periods until everybody has heard a rumour: median and maximum of `RUMOURS`, and how many missed it."""
    crowd, chance, took, missed = formed(seed, size, swim), random_of(seed, "rumours", size), [], 0
    for number in range(RUMOURS):
        teller = chance.randint(1, size)
        heard = Heard(crowd, crowd.node(teller))
        crowd.taps.append(heard)
        crowd.run_for(chance.uniform(0.0, swim.probe_period_s))
        began = crowd.time
        crowd.call(teller, "update_me", version=f"rumour-{number}")
        crowd.run_for(RUMOUR_S)
        crowd.taps.remove(heard)
        missed += size - 1 - len(heard.known - {teller})
        took.append((heard.last - began) / swim.gossip_period_s)
    return {"p50": quantile(took, 0.5), "max": max(took), "missed": missed}


def load(size: int, swim: SwimOptions, seed: int = 1) -> Row:
    """Bytes and packets a second of an idle node."""
    crowd = formed(seed, size, swim)
    packets, sent, seconds = crowd.counts.packets, crowd.counts.bytes, 6 * swim.probe_period_s
    crowd.run_for(seconds)
    per = size * seconds
    return {
        "bytes_per_s": (crowd.counts.bytes - sent) / per,
        "packets_per_s": (crowd.counts.packets - packets) / per,
    }


def measure(sizes: Sequence[int] = SIZES, load_sizes: Sequence[int] = LOAD_SIZES) -> list[Row]:
    """Measure all three laws."""
    rows: list[Row] = []
    for law, act, cases, wanted in (
        ("first", first, FIRST, sizes),
        ("spread", spread, SPREAD, sizes),
        ("load", load, {"lan": SwimOptions.lan, "local": SwimOptions.local}, load_sizes),
    ):
        for name, preset in cases.items():
            for size in wanted:
                rows.append({"law": law, "case": name, "nodes": size, **act(size, preset())})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _line(rows: Sequence[Row], law: str, case: str, value: str, label: str) -> Line:
    points = [(row["nodes"], row[value]) for row in rows if row["law"] == law and row["case"] == case]
    return Line(label, tuple(points), marks=True)


def _cases(rows: Sequence[Row], law: str) -> list[str]:
    return list(dict.fromkeys(row["case"] for row in rows if row["law"] == law))


def plots(rows: Sequence[Row]) -> dict[str, Plot]:
    """The figures by the names of their files."""
    nodes = Axis("nodes", log=True)
    sizes = [row["nodes"] for row in rows if row["law"] == "first"]
    bound = Line("e / (e - 1)", tuple((size, EULER) for size in sorted(set(sizes))))
    lines = [_line(rows, "first", case, "mean", case) for case in _cases(rows, "first")]
    spreads = [
        _line(rows, "spread", case, value, f"{case}, {value}")
        for case in _cases(rows, "spread")
        for value in ("p50", "max")
    ]
    loads = [_line(rows, "load", case, "bytes_per_s", case) for case in _cases(rows, "load")]
    packets = [_line(rows, "load", case, "packets_per_s", case) for case in _cases(rows, "load")]
    return {
        "first-detection": Plot(
            "First ping to the dead", (bound, *lines), nodes, Axis("periods, mean", low=0.0)
        ),
        "spread": Plot("One rumour until all know", spreads, nodes, Axis("gossip periods", low=0.0)),
        "load-bytes": Plot("An idle node sends", loads, nodes, Axis("bytes a second", low=0.0)),
        "load-packets": Plot("An idle node sends", packets, nodes, Axis("packets a second", low=0.0)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m sim.shapes", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--out", required=True, help="JSON to write")
    measuring.add_argument("--most", type=int, default=LOAD_SIZES[-1], help="largest mesh")
    drawing = commands.add_parser("draw")
    drawing.add_argument("json")
    drawing.add_argument("folder")
    options = parser.parse_args(arguments)
    if options.command == "measure":
        sizes = [
            [size for size in all_of_them if size <= options.most] for all_of_them in (SIZES, LOAD_SIZES)
        ]
        Path(options.out).write_text(json.dumps(measure(*sizes), indent=1) + "\n")
        return 0
    for name, plot in plots(json.loads(Path(options.json).read_text())).items():
        (Path(options.folder) / f"{name}.svg").write_text(draw(plot) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
