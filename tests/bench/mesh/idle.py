"""What a node of an idle mesh costs: bytes, packets, processor time, memory; and whether that grows with the mesh."""

import time

import attrs

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.space import Traffic
from tests.bench.mesh.stage import Scale, Stage

SETTLE_S = 15.0
"""The rumours of the start are over, and serf's first exchanges of whole tables too."""


@attrs.frozen
class Reading:
    """All counters of a herd at one moment."""

    at: float
    traffic: Traffic
    cpu_s: float
    switches: int


def run(contender: Contender, scale: Scale) -> Figures:
    """Measure meshes of several sizes, each anew."""
    figures: Figures = {}
    for count in scale.idle_nodes:
        figures |= {f"{key}_{count}": value for key, value in _mesh(contender, scale, count).items()}
    least, most = (figures[f"bytes_{count}"] for count in (scale.idle_nodes[0], scale.idle_nodes[-1]))
    return {**figures, "growth": most / least}


def _mesh(contender: Contender, scale: Scale, count: int) -> Figures:
    with Herd(contender) as herd:
        herd.start_all(count)
        herd.rest(SETTLE_S)
        before = reading(herd)
        herd.rest(scale.idle_s)
        after = reading(herd)
        memory = [node.memory_bytes() for node in herd.nodes.values()]
    node_s = (after.at - before.at) * count
    return {
        "bytes": (after.traffic.bytes - before.traffic.bytes) / node_s,
        "packets": (after.traffic.packets - before.traffic.packets) / node_s,
        "datagrams": (after.traffic.datagrams - before.traffic.datagrams) / node_s,
        "cpu_percent": 100 * (after.cpu_s - before.cpu_s) / node_s,
        "wakeups": (after.switches - before.switches) / node_s,
        "rss_mib": sum(rss for rss, _ in memory) / count / 2**20,
        "pss_mib": sum(pss for _, pss in memory) / count / 2**20,
    }


def reading(herd: Herd) -> Reading:
    """Read the counters of a herd on one side."""
    nodes = herd.nodes.values()
    cpu_s, switches = sum(node.cpu_s for node in nodes), sum(node.switches for node in nodes)
    return Reading(time.monotonic(), herd.space.sides[0].traffic(), cpu_s, switches)


def rows(scale: Scale) -> tuple[Row, ...]:
    """The lines of the table, for each size of mesh."""
    found: list[Row] = []
    for count in scale.idle_nodes:
        found += [
            Row(f"bytes_{count}", f"traffic of a node among {count}", "B/s", 400, digits=0),
            Row(f"packets_{count}", "... packets", "1/s"),
            Row(f"cpu_percent_{count}", "... processor", "% of a core", 0.15, digits=3),
            Row(f"wakeups_{count}", "... wake-ups", "1/s", digits=1),
            Row(f"rss_mib_{count}", "... resident memory", "MiB", digits=1),
            Row(f"pss_mib_{count}", "... its share of shared pages", "MiB", digits=1),
        ]
    least, most = scale.idle_nodes[0], scale.idle_nodes[-1]
    return (*found, Row("growth", f"traffic of a node, {most} beside {least} nodes", "ratio", 1.1))


STAGE = Stage("idle", "nothing happens", run, rows)
