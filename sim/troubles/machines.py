"""What happens to a machine under a process that goes on: its clocks, its sockets."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from sim.fault import Scene, kind_of, later
from sim.host import SOCKET_BYTES

if TYPE_CHECKING:
    from sim.world import World

# -- clocks ---------------------------------------------------------------------------------------


@attrs.frozen
class ClockSkew:
    """A node's wall clock jumps forward by so many seconds, and stays there."""

    breaks: ClassVar = ()
    host: str
    by_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((0.2, 0.5, 30.0, 3600.0, 86400.0)))

    def strike(self, world: "World") -> None:
        world.bite(kind_of(self))
        world[self.host].skew_s += self.by_s


@attrs.frozen
class ClockBack:
    """A node's wall clock is set back by so many seconds, and stays there."""

    breaks: ClassVar = ()
    host: str
    by_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((0.2, 5.0, 3600.0, 1e9)))

    def strike(self, world: "World") -> None:
        world.bite(kind_of(self))
        world[self.host].skew_s -= self.by_s


@attrs.frozen
class ClockDrift:
    """Both clocks of a node run too fast or too slow for a while."""

    breaks: ClassVar = ()
    host: str
    rate: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((0.91, 0.97, 1.03, 1.1)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        clock = world[self.host].clock
        world.bite(kind_of(self))
        clock.drift(world.time, self.rate)
        later(world, self.for_s, lambda: clock.drift(world.time, 1.0))


@attrs.frozen
class ClocksApart:
    """Every node's wall clock is off by an amount of its own, and nobody's is right."""

    breaks: ClassVar = ()
    hosts: tuple[str, ...]
    by_s: tuple[float, ...]

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        most_s = rng.choice((0.1, 0.25, 2.0, 600.0))
        return cls(scene.hosts, tuple(round(rng.uniform(-most_s, most_s), 3) for _ in scene.hosts))

    def strike(self, world: "World") -> None:
        for name, by_s in zip(self.hosts, self.by_s, strict=True):
            world.bite(kind_of(self))
            world[name].skew_s += by_s


# -- sockets --------------------------------------------------------------------------------------


@attrs.frozen
class FullSendBuffer:
    """A node's kernel takes only so many datagrams a second (ENOBUFS, EAGAIN); links are not concerned."""

    breaks: ClassVar = ()
    host: str
    per_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((10.0, 20.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        world[self.host].sends_per_s = self.per_s
        later(world, self.for_s, lambda: setattr(world[self.host], "sends_per_s", None))


@attrs.frozen
class SendDenied:
    """A firewall on a node's own machine refuses every datagram that it sends (EPERM, ENETUNREACH)."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        world[self.host].sends_per_s = 0.0
        later(world, self.for_s, lambda: setattr(world[self.host], "sends_per_s", None))


@attrs.frozen
class SmallSocket:
    """A node's socket holds a few datagrams, and its process is stopped now and then: it overflows."""

    breaks: ClassVar = ()
    host: str
    bytes_max: int
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((60, 300)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        host = world[self.host]
        if host.core is None or host.paused:
            return
        host.socket_bytes = self.bytes_max
        host.pause()
        later(world, min(0.7, self.for_s), host.resume)
        later(world, self.for_s, lambda: setattr(host, "socket_bytes", SOCKET_BYTES))
