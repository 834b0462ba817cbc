"""A mesh of membership cores in one process: the real bytes, virtual time, no sockets."""

import heapq
import random

import attrs

from mesh import codec
from mesh.effects import Report, SendDatagram, SendReliable
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.messages import Gossip, Update
from mesh.now import Now
from mesh.swim import Swim
from mesh.swim_options import SwimOptions

LOCAL = SwimOptions.local()
DATAGRAM_S = 0.001
RELIABLE_S = 0.003


def account(index, generation=1, port=None):
    return Member(Identity(f"{index:016x}", generation), f"n{index}", ("127.0.0.1", port or 7000 + index))


class World:
    """A mesh in one process: a clock, a wire that can be cut, and what each core said."""

    def __init__(self, count, seed=1, options=LOCAL, loss=0.0):
        self.rng = random.Random(seed)
        self.options = options
        self.loss = loss
        self.now = 1000.0
        self.order = 0
        self.wire = []
        self.cores = {}
        self.clocks = {}
        self.down = {}
        self.asleep = {}
        self.cut = {}
        self.log = []
        self.datagrams = 0
        self.bytes = 0
        for index in range(1, count + 1):
            self.start(index, seeds=[1] if index > 1 else [])

    def start(self, index, seeds=(), generation=1):
        me = account(index, generation)
        self.down.pop(me.address, None)
        self.cores[me.address] = Swim(self.options, me, random.Random(f"{self.rng.random()}"))
        self.clocks[me.address] = self.rng.uniform(0, 1e6)
        self.call(index, "join", [account(seed).address for seed in seeds])
        return self.cores[me.address]

    def core(self, index):
        return self.cores[account(index).address]

    def call(self, index, name, *arguments, **keywords):
        self._step(account(index).address, name, *arguments, **keywords)

    def instant(self, address):
        return Now(self.now + self.clocks[address], 1.7e9 + self.now)

    def _step(self, address, name, *arguments, **keywords):
        core = self.cores[address]
        for output in getattr(core, name)(self.instant(address), *arguments, **keywords):
            if isinstance(output, SendDatagram | SendReliable):
                self._post(address, output)
            else:
                self.log.append((self.now, core.me.name, output))

    def _post(self, source, output):
        reliable = isinstance(output, SendReliable)
        assert len(output.data) <= (codec.RELIABLE_BYTES_MAX if reliable else codec.DATAGRAM_BYTES_MAX)
        self.datagrams += 1
        self.bytes += len(output.data) + 28
        if not reliable and self.rng.random() < self.loss:
            return
        delay = (RELIABLE_S if reliable else DATAGRAM_S) * self.rng.uniform(0.5, 1.5)
        self.order += 1
        heapq.heappush(
            self.wire, (self.now + delay, self.order, source, output.address, output.data, reliable)
        )

    def _arrive(self, source, target, data, reliable):
        if target not in self.cores or target in self.down or (source, target) in self.cut:
            return
        if target in self.asleep:
            self.asleep[target].append((source, data, reliable))
            return
        self._step(target, "receive", data, source, reliable)

    def run(self, seconds, until=None):
        """Let time pass; stop early when `until()` holds. Returns the seconds that passed."""
        began, end = self.now, self.now + seconds
        while until is None or not until():
            at, address = min(
                (
                    (core.next_deadline() - self.clocks[address], address)
                    for address, core in self.cores.items()
                    if address not in self.down and address not in self.asleep
                    if core.next_deadline() is not None
                ),
                default=(end, None),
            )
            if self.wire and self.wire[0][0] <= at:
                at = self.wire[0][0]
                address = None
            if at > end:
                self.now = end
                break
            self.now = max(self.now, at)
            if address is None:
                self._arrive(*heapq.heappop(self.wire)[2:])
            else:
                self._step(address, "tick")
        return self.now - began

    def crash(self, index):
        self.down[account(index).address] = True

    def pause(self, index):
        self.asleep[account(index).address] = []

    def resume(self, index):
        address = account(index).address
        for source, data, reliable in self.asleep.pop(address):
            self._step(address, "receive", data, source, reliable)

    def sever(self, some, others, both_ways=True):
        for a in some:
            for b in others:
                self.cut[account(a).address, account(b).address] = True
                if both_ways:
                    self.cut[account(b).address, account(a).address] = True

    def running(self):
        return [core for address, core in self.cores.items() if address not in self.down]

    def sees(self, observer, subject):
        row = self.core(observer).member(f"{subject:016x}")
        return row.liveness if row is not None else None

    def everybody_sees(self, subject, liveness):
        node = f"{subject:016x}"
        rows = [core.member(node) for core in self.running() if core.me.node != node]
        return all(row is not None and row.liveness is liveness for row in rows)

    def converged(self):
        cores = self.running()
        return all(
            [row.liveness for core in cores if (row := core.member(other.me.node))]
            == [Liveness.ALIVE] * len(cores)
            for other in cores
        )

    def facts(self, kind, node=None):
        return [(at, who, fact) for at, who, fact in self.log if isinstance(fact, kind)]

    def reports(self, event):
        return [(at, who, fact) for at, who, fact in self.facts(Report) if fact.event == event]


def settled(count, **options):
    world = World(count, **options)
    world.run(10, until=world.converged)
    assert world.converged()
    world.run(3)
    assert world.converged()
    world.log.clear()
    return world


# Joining.


def doubt(world, observer, subject, liveness, accuser=None):
    """Deliver a rumour about `subject` to `observer`, as if from member 3."""
    row = attrs.evolve(world.core(observer).member(f"{subject:016x}"), liveness=liveness)
    update = Update(row, (f"{accuser:016x}",) if accuser else ())
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(update)])
    world.call(observer, "receive", data, account(3).address)
