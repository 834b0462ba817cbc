"""Hostile datagrams against a working node: `python -m tests.bench.abuse [COUNT]`, five million unless said otherwise.

A sealed mesh of four nodes runs in virtual time, real cores and real seals. One of them is bombarded between
its inputs with what an attacker without the key can make: forged, replayed, truncated, flipped, re-addressed
and clear datagrams, from forged addresses and from those of members. Nothing may be opened, nothing may raise,
nothing may grow, and the mesh must not notice. Rates are by processor time of the receiving core alone.
"""

import argparse
import gc
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from mesh import codec
from mesh.effects import Address
from mesh.envelope import ANSWER_BYTES_MIN, HEADER_BYTES, Kind, word
from mesh.messages import Gossip
from mesh.seal import SealOptions
from node.core import NodeCore
from sim.network import Network
from sim.sealed import keyring_of, sealed
from sim.world import World, WorldOptions

COUNT = 5_000_000
BATCH = 3_000
"""Datagrams of one kind between two steps of the mesh."""
STEP_S = 0.05
"""Virtual seconds between two bombardments."""
WARM_S = 8.0
RATE_MIN = 100_000
"""Rejected per second of one core: the goal."""

Datagram = tuple[Address, Address, bytes]


@attrs.define
class Target:
    """The node that is bombarded, and what an attacker has seen."""

    world: World
    core: NodeCore
    address: Address
    tape: list[Datagram] = attrs.Factory(list)
    """(from, to, bytes) of everything that was on the wire lately."""
    here: list[Datagram] = attrs.Factory(list)
    """What was sent to the target, and has arrived."""
    own: list[Datagram] = attrs.Factory(list)
    """What the target sent."""
    elsewhere: list[Datagram] = attrs.Factory(list)
    """What others said to each other."""

    def look(self) -> None:
        """Sort what is on the tape by who it is from and for."""
        self.here = [each for each in self.tape if each[1] == self.address]
        self.own = [each for each in self.tape if each[0] == self.address]
        self.elsewhere = [each for each in self.tape if self.address not in each[:2]]


@contextmanager
def recorded(tape: list[Datagram]) -> Iterator[None]:
    """Record what is sent in any simulated network."""
    plain = Network.send

    def send(network, source, address, data):
        tape.append((source.address, address, data))
        plain(network, source, address, data)

    Network.send = send
    try:
        yield
    finally:
        Network.send = plain


def mesh(seed: int = 1, nodes: int = 4) -> Target:
    """Return a mesh that has been up for a while, and its first node as the target."""
    world = World(seed, WorldOptions(core=sealed(SealOptions(keyring_of(seed, 1)))))
    target = Target(world, None, ("", 0))
    with recorded(target.tape):
        names = world.cluster(nodes, workers=0)
        world.run_for(WARM_S)
    target.core, target.address = world[names[0]].core, world[names[0]].address
    return target


# -- what an attacker can make ---------------------------------------------------------------------


def anywhere(rng: random.Random) -> Address:
    return (f"203.0.113.{rng.randrange(256)}", rng.randrange(1024, 65536))


def noise(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    return rng.randbytes(rng.randrange(0, 200)), anywhere(rng)


def unknown_session(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    head = bytes((1, 1)) + rng.randbytes(8) + word(Kind.DATA, rng.randrange(2**20))
    return head + rng.randbytes(rng.randrange(20, 200)), anywhere(rng)


def forged_knock(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    key = keyring_of(target.world.seed, 1).first
    told = key.check + rng.randbytes(4) if rng.random() < 0.5 else rng.randbytes(8)
    head = bytes((1, 1)) + rng.randbytes(8) + word(Kind.KNOCK, rng.randrange(2**20))
    return head + told + rng.randbytes(ANSWER_BYTES_MIN - 24), anywhere(rng)


def forged_admission(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    head = bytes((1, 1)) + rng.randbytes(8) + word(Kind.ADMIT, rng.randrange(2**20))
    return head + rng.randbytes(80), anywhere(rng)


def forged_challenge(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    """Answers to counters that the target really used: the attacker reads them on the wire."""
    _, asked, data = rng.choice(target.own)
    head = bytes((1, 1)) + rng.randbytes(8) + word(Kind.CHALLENGE, rng.randrange(2**20))
    return head + data[10:16] + rng.randbytes(34), asked


def forged_data(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    """A member's session and address, a counter yet to come: only the seal can tell."""
    source, _, data = rng.choice(target.here)
    head = data[:10] + word(Kind.DATA, 2**30 + rng.randrange(2**30))
    return head + rng.randbytes(rng.randrange(20, 200)), source


def replayed(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    source, _, data = rng.choice(target.here)
    return data, source if rng.random() < 0.5 else anywhere(rng)


def truncated(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    source, _, data = rng.choice(target.here)
    return data[: rng.randrange(len(data))], source


def flipped(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    source, _, data = rng.choice(target.here)
    at = rng.randrange(len(data) * 8)
    spoiled = bytearray(data)
    spoiled[at // 8] ^= 1 << at % 8
    return bytes(spoiled), source


def unseen_flipped(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    """As flipped, of a packet that never arrived: the window has nothing against it."""
    source, _, data = rng.choice(target.here)
    spoiled = bytearray(data)
    spoiled[10:HEADER_BYTES] = word(Kind.DATA, 2**30 + rng.randrange(2**30))
    at = rng.randrange(HEADER_BYTES * 8, len(data) * 8)
    spoiled[at // 8] ^= 1 << at % 8
    return bytes(spoiled), source


def readdressed(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    source, _, data = rng.choice(target.elsewhere)
    return data, source


def clear(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    return codec.packet([codec.item(Gossip(f"{rng.randrange(1, 2**64):016x}"))]), anywhere(rng)


def giant(target: Target, rng: random.Random) -> tuple[bytes, Address]:
    return bytes((1, 1)) + bytes(rng.randrange(1400, 2048)), anywhere(rng)


KINDS: tuple[Callable[[Target, random.Random], tuple[bytes, Address]], ...] = (
    noise,
    unknown_session,
    forged_knock,
    forged_admission,
    forged_challenge,
    forged_data,
    replayed,
    truncated,
    flipped,
    unseen_flipped,
    readdressed,
    clear,
    giant,
)


# -- the bombardment -------------------------------------------------------------------------------


@attrs.define
class Tally:
    """What came of one kind."""

    sent: int = 0
    opened: int = 0
    answered: int = 0
    """Datagrams that were answered at all."""
    amplified: int = 0
    """Answers that were longer than what caused them."""
    seconds: float = 0.0


def bombard(target: Target, rng: random.Random, tallies: dict[str, Tally], batch: int) -> None:
    """One batch of each kind; the mesh stands still meanwhile."""
    target.look()
    seal, now = target.core.seal, target.world["node-0"].now()
    for kind in KINDS:
        datagrams = [kind(target, rng) for _ in range(batch)]
        tally = tallies.setdefault(kind.__name__, Tally())
        before, outcomes = seal.statistics.opened, []
        began = time.process_time()
        for data, source in datagrams:
            outcomes.append(target.core.receive(now, data, source))
        tally.seconds += time.process_time() - began
        tally.sent += batch
        tally.opened += seal.statistics.opened - before
        for (data, _), effects in zip(datagrams, outcomes, strict=True):
            answers = [len(effect.data) for effect in effects if hasattr(effect, "data")]
            tally.answered += bool(answers)
            tally.amplified += sum(answers) > len(data)


@attrs.frozen
class Footprint:
    """What could grow."""

    sessions: int
    waiting: int
    members: int
    links: int
    resident_mib: float

    @classmethod
    def of(cls, core: NodeCore) -> "Footprint":
        gc.collect()
        statistics = core.statistics()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize() / 2**20
        members = sum(statistics["swim"]["members"].values())
        held = core.seal.snapshot()
        return cls(held["held"], held["waiting"], members, len(core.links), resident)


def run(
    count: int = COUNT, watch: Callable[[int], None] = lambda _done: None
) -> tuple[dict[str, Tally], list[str]]:
    """Bombard with about so many datagrams; return the tallies and what was wrong, in words."""
    target, rng, tallies = mesh(), random.Random(7), {}
    batch = max(20, min(BATCH, count // len(KINDS)))
    bombard(target, rng, {}, batch)
    before, done = Footprint.of(target.core), 0
    while done < count:
        bombard(target, rng, tallies, batch)
        done += batch * len(KINDS)
        del target.tape[:-2000]
        with recorded(target.tape):
            target.world.run_for(STEP_S)
        watch(done)
    return tallies, complaints(target, tallies, before, Footprint.of(target.core))


def complaints(target: Target, tallies: dict[str, Tally], before: Footprint, after: Footprint) -> list[str]:
    """Say what was wrong; nothing, if all is well."""
    wrong = [f"{name}: {tally.opened} opened" for name, tally in tallies.items() if tally.opened]
    wrong += [f"{name}: {tally.amplified} amplified" for name, tally in tallies.items() if tally.amplified]
    if attrs.evolve(before, resident_mib=0) != attrs.evolve(after, resident_mib=0):
        wrong.append(f"state grew from {before} to {after}")
    if after.resident_mib > before.resident_mib + 16:
        wrong.append(f"memory grew from {before.resident_mib:.0f} to {after.resident_mib:.0f} MiB")
    for host in target.world.running:
        swim = host.core.statistics()["swim"]
        if swim["members"]["alive"] != len(target.world.hosts) or swim["deaths"] or swim["suspicions"]:
            wrong.append(f"{host.name} noticed: {swim['members']}, {swim['suspicions']} suspicions")
    return wrong


def main() -> int:
    """Print a table; 1 if anything was wrong, or slower than the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=COUNT)
    count = parser.parse_args().count
    shown = sys.stderr.isatty()
    tallies, wrong = run(count, lambda done: print(f"\r{done:,}", end="", file=sys.stderr) if shown else None)
    print(f"\n{'kind':18} {'sent':>10} {'opened':>7} {'answered':>9} {'rejected/s':>12}")
    for name, tally in tallies.items():
        rate = tally.sent / tally.seconds
        print(f"{name:18} {tally.sent:>10,} {tally.opened:>7} {tally.answered:>9,} {rate:>12,.0f}")
    sent, seconds = (sum(getattr(each, name) for each in tallies.values()) for name in ("sent", "seconds"))
    print(f"{'all':18} {sent:>10,} {'':>7} {'':>9} {sent / seconds:>12,.0f}   load {os.getloadavg()[0]:.1f}")
    slow = [name for name, tally in tallies.items() if tally.sent / tally.seconds < RATE_MIN]
    wrong += [f"{name} is rejected at less than {RATE_MIN:,} a second" for name in slow]
    for each in wrong:
        print(f"wrong: {each}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
