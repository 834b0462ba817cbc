"""What happens to packets on their way."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from sim.fault import Scene, kind_of, later, lay
from sim.rule import Burst, Rule

if TYPE_CHECKING:
    from sim.world import World


@attrs.frozen
class Loss:
    """A share of all datagrams vanishes, and segments of streams are sent again."""

    breaks: ClassVar = ()
    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(round(rng.choice((0.02, 0.1, 0.3, 0.5)), 2), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(loss=self.share))


@attrs.frozen
class BurstLoss:
    """All paths lose packets in bursts (Gilbert and Elliott): good times and bad times alternate."""

    breaks: ClassVar = ()
    begin: float
    end: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.01, 0.05, 0.2)), rng.choice((0.1, 0.3, 0.6)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(burst=Burst(self.begin, self.end)))


@attrs.frozen
class LossyNode:
    """A share of what one node sends, or of what it is sent, vanishes."""

    breaks: ClassVar = ()
    host: str
    share: float
    inbound: bool
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((0.2, 0.5, 0.8)), rng.random() < 0.5, scene.while_s(rng))

    def strike(self, world: "World") -> None:
        one = frozenset((self.host,))
        sources, targets = (None, one) if self.inbound else (one, None)
        lay(world, self, self.for_s, Rule(sources, targets, loss=self.share))


@attrs.frozen
class Delay:
    """All paths take longer."""

    breaks: ClassVar = ()
    delay_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.005, 0.02, 0.1)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(delay_s=self.delay_s))


@attrs.frozen
class Jitter:
    """All paths take a while longer that differs from packet to packet; they overtake each other."""

    breaks: ClassVar = ()
    jitter_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.005, 0.05, 0.2)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(jitter_s=self.jitter_s))


@attrs.frozen
class HeavyTail:
    """A share of all packets takes very much longer (Pareto)."""

    breaks: ClassVar = ()
    share: float
    least_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.01, 0.1)), rng.choice((0.01, 0.1)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(tail=self.share, tail_s=self.least_s))


@attrs.frozen
class Reorder:
    """A share of all datagrams is held back for a moment, so that later ones overtake them."""

    breaks: ClassVar = ()
    share: float
    by_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.1, 0.5)), rng.choice((0.01, 0.05)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(reorder=self.share, reorder_s=self.by_s))


@attrs.frozen
class Duplicate:
    """A share of all datagrams arrives twice."""

    breaks: ClassVar = ()
    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3, 1.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(duplicate=self.share))


@attrs.frozen
class Replay:
    """A share of all datagrams comes once more, seconds later: somebody has recorded them."""

    breaks: ClassVar = ()
    share: float
    late_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3)), rng.choice((1.0, 6.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(replay=self.share, replay_s=self.late_s))


@attrs.frozen
class BitFlip:
    """A share of all datagrams has one bit flipped; the receiving kernel's checksum finds it and drops them."""

    breaks: ClassVar = ()
    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(flip=self.share))


@attrs.frozen
class Truncate:
    """A share of all datagrams loses its end, and reaches the process so."""

    breaks: ClassVar = ()
    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(truncate=self.share))


@attrs.frozen
class Oversize:
    """A share of all datagrams arrives longer than any of the mesh may be."""

    breaks: ClassVar = ()
    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self, self.for_s, Rule(oversize=self.share))


@attrs.frozen
class Garbage:
    """Bytes that mean nothing arrive at a node from a machine that is none of the mesh's."""

    breaks: ClassVar = ()
    host: str
    count: int
    draw_seed: int

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((10, 100)), rng.getrandbits(32))

    def strike(self, world: "World") -> None:
        rng = random.Random(self.draw_seed)
        for number in range(self.count):
            header = rng.choice((b"", b"\x01\x00", b"\x01\x00\x01"))
            data = header + rng.randbytes(rng.randrange(1, 1500))
            later(world, number * 0.01, lambda data=data: self._arrive(world, data))

    def _arrive(self, world: "World", data: bytes) -> None:
        if world[self.host].datagram(("192.0.2.66", 666), data):
            world.bite(kind_of(self))
