"""The kinds of fault: each a frozen class with parameters that does itself to a world, scripted or drawn.

To add one, write its class and name it in `FAULTS`. A fault with `for_s` undoes
itself after so many seconds.
"""

import random
from typing import TYPE_CHECKING, Self

import attrs

from sim.fault import Fault, Scene, later, lay
from sim.network import Rule, partition

if TYPE_CHECKING:
    from sim.world import World


# -- processes ------------------------------------------------------------------------------------


@attrs.frozen
class Crash:
    """kill -9 of a node and its engines; with `power` its machine is gone too, silently."""

    host: str
    power: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), rng.random() < 0.3)

    def strike(self, world: "World") -> None:
        world[self.host].crash(self.power)


@attrs.frozen
class Restart:
    """A node that is down starts again: same id, next generation."""

    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng))

    def strike(self, world: "World") -> None:
        if world[self.host].core is None:
            world[self.host].start()


@attrs.frozen
class CrashRestart:
    """A node is killed and started again after a while, perhaps before anybody has noticed."""

    host: str
    for_s: float
    power: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng), rng.random() < 0.3)

    def strike(self, world: "World") -> None:
        Crash(self.host, self.power).strike(world)
        later(world, self.for_s, lambda: Restart(self.host).strike(world))


@attrs.frozen
class Pause:
    """SIGSTOP and SIGCONT of a node's process; with `engines` these freeze, and stay frozen."""

    host: str
    for_s: float
    engines: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng), rng.random() < 0.2)

    def strike(self, world: "World") -> None:
        host = world[self.host]
        if host.core is not None and not host.paused:
            host.pause(self.engines)
            later(world, self.for_s, host.resume)


@attrs.frozen
class SlowNode:
    """Each input of a node takes so much processor time: its loop runs late."""

    host: str
    cost_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((0.0005, 0.002, 0.01)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        world[self.host].cost_s = self.cost_s
        later(world, self.for_s, lambda: setattr(world[self.host], "cost_s", 0.0))


@attrs.frozen
class ClockSkew:
    """A node's wall clock jumps by so many seconds, and stays there."""

    host: str
    by_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((-3600.0, -5.0, 0.5, 30.0, 86400.0)))

    def strike(self, world: "World") -> None:
        world[self.host].skew_s += self.by_s


# -- engines --------------------------------------------------------------------------------------


@attrs.frozen
class EngineCrash:
    """kill -9 of a node's engines alone."""

    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng))

    def strike(self, world: "World") -> None:
        for engine in list(world[self.host].engines.values()):
            engine.die("killed by signal 9")


@attrs.frozen
class EngineFreeze:
    """A node's engines stand still: no progress, no processor time, no end."""

    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng))

    def strike(self, world: "World") -> None:
        for engine in world[self.host].engines.values():
            engine.freeze()


@attrs.frozen
class SlowEngine:
    """A node's engines take so many times as long for each step."""

    host: str
    factor: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((3.0, 20.0, 100.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        for engine in world[self.host].engines.values():
            engine.slowness = self.factor
            later(world, self.for_s, lambda engine=engine: setattr(engine, "slowness", 1.0))


# -- the network ----------------------------------------------------------------------------------


@attrs.frozen
class Partition:
    """The hosts of one group and all others cannot reach each other."""

    group: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        size = rng.randint(1, max(1, len(scene.hosts) // 2))
        return cls(tuple(sorted(rng.sample(scene.hosts, size))), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        others = tuple(name for name in world.hosts if name not in self.group)
        lay(world, self.for_s, *partition((self.group, others)))


@attrs.frozen
class OneWayCut:
    """Nothing gets from one host to another; the way back is open."""

    source: str
    target: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        source, target = rng.sample(scene.hosts, 2)
        return cls(source, target, scene.while_s(rng))

    def strike(self, world: "World") -> None:
        rule = Rule(frozenset((self.source,)), frozenset((self.target,)), cut=True)
        lay(world, self.for_s, rule)


@attrs.frozen
class Loss:
    """A share of all datagrams vanishes, and segments of streams are sent again."""

    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(round(rng.choice((0.02, 0.1, 0.3, 0.5)), 2), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self.for_s, Rule(loss=self.share))


@attrs.frozen
class Delay:
    """All paths take longer; jitter above the distance of two datagrams reorders them."""

    delay_s: float
    jitter_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.0, 0.02, 0.1)), rng.choice((0.005, 0.05, 0.2)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self.for_s, Rule(delay_s=self.delay_s, jitter_s=self.jitter_s))


@attrs.frozen
class Duplicate:
    """A share of all datagrams arrives twice."""

    share: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.choice((0.05, 0.3, 1.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        lay(world, self.for_s, Rule(duplicate=self.share))


FAULTS: tuple[type[Fault], ...] = (
    Crash,
    Restart,
    CrashRestart,
    Pause,
    SlowNode,
    ClockSkew,
    EngineCrash,
    EngineFreeze,
    SlowEngine,
    Partition,
    OneWayCut,
    Loss,
    Delay,
    Duplicate,
)
"""Every kind, in the order in which they are drawn. Poisonous requests are drawn with the workload."""
