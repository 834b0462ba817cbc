"""Nodes with open links are killed: how long until every linked router sends requests elsewhere.

The victims are seeds, to which every node that joined through them keeps a link. Who is linked is
read from the kernel's tables, not from the contender. Serf keeps no links: its figure is how
long its agents hold the victim alive.
"""

import random
import socket
import struct
from pathlib import Path

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.crash import GIVE_UP_S, SETTLE_S
from tests.bench.mesh.figures import Figures, Row, spread
from tests.bench.mesh.herd import Herd, Node
from tests.bench.mesh.stage import Scale, Stage

ESTABLISHED = "01"

ROWS = (
    Row("linked_p50", "out of a linked router, median", "ms"),
    Row("linked_p99", "out of a linked router, p99", "ms", 50),
    Row("linked_max", "out of a linked router, maximum", "ms"),
    Row("linked_count", "linked routers watched", "count", digits=0),
    Row("every_p99", "out of any router, linked or not, p99", "ms"),
    Row("missed", "routers that kept it", "count", 0, digits=0),
)


def run(contender: Contender, scale: Scale) -> Figures:
    """Kill the seeds of a mesh, one after another, and watch who lets go of each when."""
    rng = random.Random(scale.seed)
    linked_ms, every_ms, missed = [], [], 0
    with Herd(contender) as herd:
        herd.start_all(scale.nodes, seeds=scale.linked_kills)
        herd.rest(SETTLE_S)
        for number in range(scale.linked_kills):
            victim = f"n{number}"
            linked = linked_to(herd, herd.nodes[victim])
            times = time_to_avoid(herd, victim)
            missed += sum(herd.views.routes(name, victim) for name in herd.names)
            every_ms += [1000 * seconds for seconds in times.values()]
            linked_ms += [1000 * times.get(name, GIVE_UP_S) for name in linked]
            herd.rest(rng.uniform(0.5, 1.5))
    return {**spread("linked", linked_ms), **spread("every", every_ms), "missed": missed}


def time_to_avoid(herd: Herd, victim: str) -> dict[str, float]:
    """Kill a node; return after how many seconds each other one no longer routed to it."""
    mark = herd.views.mark
    at = herd.kill(victim)
    herd.holds(lambda: not any(herd.views.routes(name, victim) for name in herd.names), GIVE_UP_S)
    times: dict[str, float] = {}
    for event in herd.views.events[mark:]:
        if event.subject == victim and not herd.views.routes(event.observer, victim):
            times.setdefault(event.observer, event.at - at)
    return {name: when for name, when in times.items() if name in herd.nodes}


def linked_to(herd: Herd, victim: Node) -> list[str]:
    """The nodes that have an established connection with the victim, whoever dialled."""
    rows = _connections(victim.side.holder.pid)
    owners = {inode: node.name for node in herd.nodes.values() for inode in _sockets(node.pid)}
    mine = _sockets(victim.pid)
    ends = {(local, remote): owners.get(inode, "") for local, remote, inode in rows}
    peers = {ends.get((remote, local), "") for local, remote, inode in rows if inode in mine}
    return sorted(peers - {"", victim.name})


End = tuple[str, int]


def _connections(pid: int) -> list[tuple[End, End, int]]:
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [(_end(line[1]), _end(line[2]), int(line[9])) for line in lines if line[3] == ESTABLISHED]


def _end(text: str) -> End:
    address, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(address, 16))), int(port, 16)


def _sockets(pid: int) -> set[int]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


STAGE = Stage("linked", "a node with open links is killed", run, lambda _: ROWS)
