"""A mesh of replicated tables in one process: the real bytes, virtual time, membership by decree."""

import heapq
import random

import attrs

from mesh.codec import DATAGRAM_BYTES_MAX, RELIABLE_BYTES_MAX
from mesh.effects import SendDatagram, SendReliable
from mesh.facts import RecordChanged
from mesh.horizon import HorizonOptions
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.now import Now
from mesh.replication import Replication
from mesh.replication_options import ReplicationOptions

EPOCH_S = 1_700_000_000.0
QUICK = ReplicationOptions(exchange_period_s=1.0, horizon=HorizonOptions(horizon_s=120.0, epoch_s=10.0))
"""A horizon of two minutes instead of a week."""


def account(index, liveness=Liveness.ALIVE):
    return Member(Identity(f"{index:016x}", 1), f"n{index}", ("127.0.0.1", 7000 + index), liveness)


class Mesh:
    """Replicas 1 to n, a wire that loses and can be cut, and everything that changed."""

    def __init__(self, count, seed=1, options=QUICK, loss=0.0, connected=True):
        self.rng = random.Random(seed)
        self.options, self.loss = options, loss
        self.time, self.order, self.wire = 0.0, 0, []
        self.cores, self.skews, self.groups = {}, {}, {}
        self.changes, self.bytes, self.packets = [], 0, 0
        for index in range(1, count + 1):
            self.start(index)
        if connected:
            self.join(range(1, count + 1))

    def start(self, index):
        self.cores[index] = Replication(
            f"{index:016x}", self.options, random.Random(self.rng.getrandbits(64))
        )
        self.skews.setdefault(index, 0.0)
        self.groups[index] = 0
        return self.cores[index]

    def now(self, index):
        return Now(1000.0 * index + self.time, EPOCH_S + self.time + self.skews[index])

    def call(self, index, name, *arguments):
        for output in getattr(self.cores[index], name)(self.now(index), *arguments) or ():
            if isinstance(output, SendDatagram | SendReliable):
                self._post(index, output)
            elif isinstance(output, RecordChanged):
                self.changes.append((self.time, index, output))

    def _post(self, source, output):
        reliable = isinstance(output, SendReliable)
        assert len(output.data) <= (RELIABLE_BYTES_MAX if reliable else DATAGRAM_BYTES_MAX)
        self.bytes += len(output.data)
        self.packets += 1
        if not reliable and self.rng.random() < self.loss:
            return
        self.order += 1
        at = self.time + self.rng.uniform(0.001, 0.004)
        heapq.heappush(self.wire, (at, self.order, source, output.address[1] - 7000, output.data))

    def join(self, indices, liveness=Liveness.ALIVE):
        """Let these hear that the others of them are live (or dead, or have left)."""
        for index in indices:
            for other in indices:
                if index in self.cores:
                    self.call(index, "member_changed", account(other, liveness))

    def hear(self, observer, subject, liveness):
        self.call(observer, "member_changed", account(subject, liveness))

    def split(self, *groups):
        """Cut the groups from one another; each holds the others dead."""
        for number, group in enumerate(groups):
            for index in group:
                self.groups[index] = number
        self._tell(Liveness.DEAD)

    def heal(self):
        self.groups = dict.fromkeys(self.cores, 0)
        self._tell(Liveness.ALIVE)

    def _tell(self, liveness):
        for index in self.cores:
            for other in self.cores:
                if liveness is Liveness.ALIVE or self.groups[index] != self.groups[other]:
                    self.hear(index, other, liveness)

    def run(self, seconds, until=None):
        """Let time pass; stop early when `until()` holds. Returns the seconds that passed."""
        began, end = self.time, self.time + seconds
        while until is None or not until():
            at, index = min(
                (deadline - 1000.0 * index, index)
                for index, core in [*self.cores.items()]
                if (deadline := core.next_deadline() if core.next_deadline() is not None else 1e12)
            )
            if self.wire and self.wire[0][0] <= at:
                at, index = self.wire[0][0], None
            if at > end:
                self.time = end
                break
            self.time = max(self.time, at)
            if index is None:
                self._arrive(*heapq.heappop(self.wire)[2:])
            else:
                self.time = max(self.time, self.cores[index].next_deadline() - 1000.0 * index)
                self._tick(index)
        return self.time - began

    def _tick(self, index):
        late = attrs.evolve(
            self.now(index), mono=max(self.now(index).mono, self.cores[index].next_deadline())
        )
        for output in self.cores[index].tick(late):
            if isinstance(output, SendDatagram | SendReliable):
                self._post(index, output)
            elif isinstance(output, RecordChanged):
                self.changes.append((self.time, index, output))

    def _arrive(self, source, target, data):
        if target in self.cores and self.groups.get(source) == self.groups[target]:
            self.call(target, "receive", data)

    def agreed(self):
        """Whether all hold the same, as tables with the highest floor would."""
        floor_ms = max(core.table.floor_ms for core in self.cores.values())
        return len({core.table.digest(floor_ms) for core in self.cores.values()}) == 1

    def values(self, namespace="keys"):
        """What each holds, as (id, value)."""
        return {
            index: [(record.id, record.value) for record in core.scan(namespace)]
            for index, core in self.cores.items()
        }
