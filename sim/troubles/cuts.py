"""What separates nodes from one another: cuts of every shape."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from sim.fault import Scene, kind_of, later, lay, some
from sim.rule import Groups, Rule, partition

if TYPE_CHECKING:
    from sim.world import World

PARTED = ("false_death",)
"""Whoever is cut off may be given up for dead."""


def split(rng: random.Random, names: tuple[str, ...], parts: int) -> Groups:
    """Draw a division of these names into at most so many groups."""
    groups: list[list[str]] = [[] for _ in range(parts)]
    for place, name in enumerate(rng.sample(names, len(names))):
        groups[place if place < parts else rng.randrange(parts)].append(name)
    return tuple(tuple(sorted(group)) for group in groups if group)


@attrs.frozen
class Partition:
    """The hosts of one group and all others cannot reach each other."""

    breaks: ClassVar = PARTED
    group: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(some(rng, scene.hosts, max(1, len(scene.hosts) // 2)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        others = tuple(name for name in world.hosts if name not in self.group)
        lay(world, self, self.for_s, *partition((self.group, others)))


@attrs.frozen
class ThreeWay:
    """Three groups, none of which can reach another."""

    breaks: ClassVar = PARTED
    groups: Groups
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(split(rng, scene.hosts, 3), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, *partition(self.groups))


@attrs.frozen
class Bridge:
    """Two groups that cannot reach each other, and one node that both can reach."""

    breaks: ClassVar = PARTED
    node: str
    groups: Groups
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        node = scene.anyone(rng)
        others = tuple(name for name in scene.hosts if name != node)
        return cls(node, split(rng, others, 2), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, *partition(self.groups))


@attrs.frozen
class Ring:
    """Each node reaches only its two neighbours in a circle."""

    breaks: ClassVar = PARTED
    order: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(tuple(rng.sample(scene.hosts, len(scene.hosts))), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        count = len(self.order)
        for place, name in enumerate(self.order):
            near = {self.order[(place + step) % count] for step in (-1, 0, 1)}
            far = frozenset(other for other in self.order if other not in near)
            if far:
                lay(world, self, self.for_s, Rule(frozenset((name,)), far, cut=True))


@attrs.frozen
class OneWayCut:
    """Nothing gets from one host to another; the way back is open."""

    breaks: ClassVar = PARTED
    source: str
    target: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        source, target = rng.sample(scene.hosts, 2)
        return cls(source, target, scene.while_s(rng))

    def strike(self, world: "World") -> None:
        rule = Rule(frozenset((self.source,)), frozenset((self.target,)), cut=True)
        lay(world, self, self.for_s, rule)


@attrs.frozen
class Mute:
    """Nothing that one node says gets to anybody; it hears everybody."""

    breaks: ClassVar = PARTED
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(sources=frozenset((self.host,)), cut=True))


@attrs.frozen
class Deaf:
    """Nothing that anybody says gets to one node; all hear it."""

    breaks: ClassVar = PARTED
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(targets=frozenset((self.host,)), cut=True))


@attrs.frozen
class Flapping:
    """A partition that comes and goes, as under a bad switch port."""

    breaks: ClassVar = PARTED
    group: tuple[str, ...]
    down_s: float
    up_s: float
    times: int

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        group = some(rng, scene.hosts, max(1, len(scene.hosts) // 2))
        return cls(group, round(rng.uniform(0.1, 2.0), 3), round(rng.uniform(0.1, 1.0), 3), rng.randint(2, 5))

    def strike(self, world: "World") -> None:
        cut = Partition(self.group, self.down_s)
        for turn in range(self.times):
            later(world, turn * (self.down_s + self.up_s), lambda: self._cut(world, cut))

    def _cut(self, world: "World", cut: Partition) -> None:
        others = tuple(name for name in world.hosts if name not in cut.group)
        lay(world, self, self.down_s, *partition((cut.group, others)))


@attrs.frozen
class UdpCut:
    """No datagram gets through to or from a node; its connections work."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        one = frozenset((self.host,))
        lay(world, self, self.for_s, Rule(sources=one, udp_cut=True), Rule(targets=one, udp_cut=True))


@attrs.frozen
class TcpCut:
    """No connection works to or from a node; datagrams get through."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        one = frozenset((self.host,))
        lay(world, self, self.for_s, Rule(sources=one, tcp_cut=True), Rule(targets=one, tcp_cut=True))


@attrs.frozen
class Clog:
    """Everything between two groups is held up, and comes all at once in the end."""

    breaks: ClassVar = PARTED
    group: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(some(rng, scene.hosts, max(1, len(scene.hosts) // 2)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        group, others = (
            frozenset(self.group),
            frozenset(name for name in world.hosts if name not in self.group),
        )
        lay(world, self, self.for_s, Rule(group, others, clog=True), Rule(others, group, clog=True))


@attrs.frozen
class SwizzleClog:
    """Nodes are clogged one by one, and unclogged one by one in another order (FoundationDB)."""

    breaks: ClassVar = PARTED
    into: tuple[str, ...]
    out: tuple[str, ...]
    step_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        hosts = some(rng, scene.hosts)
        shuffled = [tuple(rng.sample(hosts, len(hosts))) for _ in range(2)]
        return cls(*shuffled, round(rng.uniform(0.05, 0.6), 3))

    def strike(self, world: "World") -> None:
        count = len(self.into)
        for place, name in enumerate(self.into):
            for_s = (count - place + 1 + self.out.index(name)) * self.step_s
            later(world, place * self.step_s, lambda name=name, for_s=for_s: self._clog(world, name, for_s))

    def _clog(self, world: "World", name: str, for_s: float) -> None:
        one = frozenset((name,))
        lay(world, self, for_s, Rule(sources=one, clog=True), Rule(targets=one, clog=True))


@attrs.frozen
class MtuBlackHole:
    """Datagrams beyond a size vanish on the paths of a node, and nobody is told."""

    breaks: ClassVar = ()
    host: str
    bytes_max: int
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((64, 128, 300)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        one = frozenset((self.host,))
        rules = (Rule(sources=one, mtu_bytes=self.bytes_max), Rule(targets=one, mtu_bytes=self.bytes_max))
        lay(world, self, self.for_s, *rules)


@attrs.frozen
class NatRebind:
    """A gateway gives a node another port: others see a new source; if `strict`, nothing comes in at the old one."""

    breaks: ClassVar = PARTED
    host: str
    strict: bool
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.random() < 0.5, scene.while_s(rng))

    def strike(self, world: "World") -> None:
        host, network = world[self.host], world.network
        if host.seen_as is not None or host.core is None:
            return
        world.bite(kind_of(self))
        old, seen = host.address, (host.address[0], 40_000 + world.events % 20_000)
        host.seen_as = seen
        network.hosts[seen] = host
        world.addresses[seen] = host.name
        if self.strict:
            network.hidden[old] = kind_of(self)
        later(world, self.for_s, lambda: self._undo(world, old, seen))

    def _undo(self, world: "World", old: tuple[str, int], seen: tuple[str, int]) -> None:
        host = world[self.host]
        world.network.hidden.pop(old, None)
        if host.seen_as == seen:
            host.seen_as = None
            world.network.hosts.pop(seen, None)
