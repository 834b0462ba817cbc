"""A mesh of membership cores in one process: the real bytes, virtual time, no sockets."""

import collections
import random

import attrs

from mesh import codec
from mesh.effects import Report, SendDatagram, SendReliable
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.messages import Gossip, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.network import Rule
from sim.paths import Paths

LOCAL = SwimOptions.local()
PORT = 7000
POSTED_MAX = 1000


def account(index, generation=1, port=None):
    return Member(Identity(f"{index:016x}", generation), f"n{index}", ("127.0.0.1", port or PORT + index))


def _account(_seed, index, generation, address):
    return attrs.evolve(account(index, generation), address=address)


def _address(index):
    return account(index).address


class Streams(Paths):
    """Paths on which streams lose nothing: what the link layer does about loss is not at stake here."""

    def stream_s(self, chance, path):
        return super().stream_s(chance, attrs.evolve(path, loss=0.0))


class World:
    """A small mesh: `sim.crowd`, with what each core said by name, and words for tests."""

    def __init__(self, count, seed=1, options=LOCAL, loss=0.0, skew_s=None):
        self.rng = random.Random(seed)
        self.options = options
        self.log = []
        self.posted = collections.deque(maxlen=POSTED_MAX)
        self.datagrams = 0
        self.bytes = 0
        network = Rule(delay_s=0.0005, jitter_s=0.001)
        wire = CrowdOptions(options, network, keep_log=False, account=_account, address=_address)
        self.crowd = Crowd(seed, wire)
        self.crowd.paths = Streams(network, self.crowd.counts)
        self.crowd.taps.append(self._tap)
        self.loss = loss
        for index in range(1, count + 1):
            self.start(index, seeds=[1] if index > 1 else [], skew_s=skew_s(index) if skew_s else 0.0)

    def _tap(self, peer, outputs):
        for output in outputs:
            if isinstance(output, SendDatagram | SendReliable):
                self.datagrams += 1
                self.bytes += len(output.data) + 28
                self.posted.append((self.now, peer, output))
            else:
                self.log.append((self.now, f"n{peer.index}", output))

    @property
    def now(self):
        return self.crowd.time

    @property
    def loss(self):
        return self._loss

    @loss.setter
    def loss(self, share):
        self._loss = share
        self.crowd.lay("loss", Rule(loss=share))

    def start(self, index, seeds=(), generation=None, skew_s=0.0):
        if index in self.crowd.peers and self.is_up(index):
            self.crowd.crash(index)
        return self.crowd.start(index, seeds, skew_s=skew_s, generation=generation)

    def core(self, index):
        return self.crowd.core(index)

    def call(self, index, name, *arguments, **keywords):
        self.crowd.call(index, name, *arguments, **keywords)

    def instant(self, address):
        return self.crowd[address[1] - PORT].now(self.now)

    def run(self, seconds, until=None):
        """Let time pass; stop early when `until()` holds. Returns the seconds that passed."""
        began = self.now
        if until is None:
            self.crowd.run_for(seconds)
        else:
            self.crowd.run_until(until, seconds)
        return self.now - began

    def crash(self, index):
        self.crowd.crash(index)

    def pause(self, index):
        self.crowd.pause(index)

    def resume(self, index):
        self.crowd.resume(index)

    def sever(self, some, others, both_ways=True):
        self.crowd.cut(some, others, both_ways)

    def heal(self):
        self.crowd.heal()

    def is_up(self, index):
        return self.crowd[index].core is not None

    def is_running(self, index):
        return self.crowd[index].running

    def running(self):
        return [peer.core for peer in self.crowd.running]

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


def is_doubted(world, observer, subject):
    """Whether one has an open case against another."""
    return f"{subject:016x}" in world.core(observer).doubted


def doubt(world, observer, subject, liveness, accuser=None, lives=0):
    """Deliver a rumour about `subject`, in its so many lives later, to `observer`, as if from member 3."""
    known = world.core(observer).member(f"{subject:016x}")
    identity = attrs.evolve(known.identity, generation=known.identity.generation + lives)
    row = attrs.evolve(known, liveness=liveness, identity=identity)
    update = Update(row, (f"{accuser:016x}",) if accuser else ())
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(update)])
    world.call(observer, "receive", data, account(3).address)
