"""What happens to processes and machines: ends, beginnings, stops."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from sim.fault import Scene, kind_of, later

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World

LONG_S = (4.0, 7.0)
"""Beyond the longest suspicion of the preset `local`: the mesh gives up who is away for so long."""

STORM_MAX = 5
"""Most nodes that join in one storm."""


def begin(world: "World", name: str) -> None:
    """Start a host if it is down."""
    if world[name].core is None:
        world[name].start()


@attrs.frozen
class Crash:
    """kill -9 of a node and its engines; with `power` its machine is gone too, silently."""

    breaks: ClassVar = ()
    host: str
    power: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), rng.random() < 0.3)

    def strike(self, world: "World") -> None:
        if world[self.host].core is not None:
            world.bite(kind_of(self))
            world[self.host].crash(self.power)


@attrs.frozen
class Restart:
    """A node that is down starts again, and one that runs is restarted at once: same id, next generation."""

    breaks: ClassVar = ()
    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng))

    def strike(self, world: "World") -> None:
        world.bite(kind_of(self))
        world[self.host].crash()
        world[self.host].start()


@attrs.frozen
class CrashRestart:
    """A node is killed and started again after a while, perhaps before anybody has noticed."""

    breaks: ClassVar = ()
    host: str
    for_s: float
    power: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng), rng.random() < 0.3)

    def strike(self, world: "World") -> None:
        if world[self.host].core is not None:
            world.bite(kind_of(self))
        world[self.host].crash(self.power)
        later(world, self.for_s, lambda: begin(world, self.host))


@attrs.frozen
class Amnesia:
    """A node is killed and starts again without its data directory: a new id under the old name and address."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        host = world[self.host]
        if host.core is not None:
            world.bite(kind_of(self))
            host.crash()
        host.forget()
        later(world, self.for_s, lambda: begin(world, self.host))


@attrs.frozen
class Move:
    """A node is killed and starts again at another address with its data directory: same id, next generation."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        if world[self.host].core is not None:
            world.bite(kind_of(self))
        world[self.host].crash()
        world.move(world[self.host])
        world[self.host].astray = world[self.host].moved = True
        later(world, self.for_s, lambda: begin(world, self.host))


@attrs.frozen
class MassRestart:
    """Many nodes are killed at once and start again at once, amid stale rumours of their last lives."""

    breaks: ClassVar = ()
    hosts: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.mortal, round(rng.uniform(0.0, 3.0), 3))

    def strike(self, world: "World") -> None:
        for name in self.hosts:
            if world[name].core is not None:
                world.bite(kind_of(self))
            world[name].crash()
            later(world, self.for_s, lambda name=name: begin(world, name))


@attrs.frozen
class StaleSeeds:
    """A node is killed and starts again with a list of seeds at which nobody is any more."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        host = world[self.host]
        if host.core is not None:
            world.bite(kind_of(self))
            host.crash()
        host.seeds = tuple((f"10.99.0.{number}", 7946) for number in range(1, 4))
        host.astray = True
        world.addresses |= dict.fromkeys(host.seeds, "nobody")
        later(world, self.for_s, lambda: begin(world, self.host))


@attrs.frozen
class FullDisk:
    """A node is killed and cannot keep its next generation: it refuses to start until there is room."""

    breaks: ClassVar = ()
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        host = world[self.host]
        host.crash()
        host.disk_full = True
        host.start()
        later(world, self.for_s, lambda: self._make_room(world, host))

    def _make_room(self, world: "World", host: "Host") -> None:
        host.disk_full = False
        begin(world, self.host)


@attrs.frozen
class Pause:
    """SIGSTOP and SIGCONT of a node's process; with `engines` these freeze, and stay frozen."""

    breaks: ClassVar = ("false_death",)
    host: str
    for_s: float
    engines: bool = False

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), scene.while_s(rng), rng.random() < 0.2)

    def strike(self, world: "World") -> None:
        host = world[self.host]
        if host.core is not None and not host.paused:
            world.bite(kind_of(self))
            host.pause(self.engines)
            later(world, self.for_s, host.resume)


@attrs.frozen
class LongPause:
    """SIGSTOP of some nodes for longer than the mesh suspects anybody, and SIGCONT of all at once."""

    breaks: ClassVar = ("false_death",)
    hosts: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        count = rng.randint(1, max(1, len(scene.hosts) // 3))
        return cls(tuple(sorted(rng.sample(scene.hosts, count))), round(rng.uniform(*LONG_S), 3))

    def strike(self, world: "World") -> None:
        for name in self.hosts:
            host = world[name]
            if host.core is not None and not host.paused:
                world.bite(kind_of(self))
                host.pause()
                later(world, self.for_s, host.resume)


@attrs.frozen
class SlowNode:
    """Each input of a node takes so much processor time: its loop runs late."""

    breaks: ClassVar = ("false_death",)
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
class JoinStorm:
    """Many new nodes join at once through one seed, and stay."""

    breaks: ClassVar = ()
    seed: str
    count: int

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.randint(2, STORM_MAX))

    def strike(self, world: "World") -> None:
        for number in range(self.count):
            world.bite(kind_of(self))
            newcomer = world.add(f"new-{len(world.hosts)}-{number}", (), (self.seed,))
            newcomer.newcomer = True
            newcomer.start()


@attrs.frozen
class LeaveStorm:
    """Some nodes say goodbye at once, and start again a while later, as in an upgrade."""

    breaks: ClassVar = ()
    hosts: tuple[str, ...]
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victims(rng), round(1.5 + rng.expovariate(1 / 2.0), 3))

    def strike(self, world: "World") -> None:
        for name in self.hosts:
            if world[name].core is not None:
                world.bite(kind_of(self))
            world[name].leave()
            later(world, self.for_s, lambda name=name: begin(world, name))


@attrs.frozen
class DuplicateName:
    """A new node joins that calls itself as another does; its id is its own."""

    breaks: ClassVar = ()
    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng))

    def strike(self, world: "World") -> None:
        world.bite(kind_of(self))
        newcomer = world.add(f"twin-{len(world.hosts)}", (), (self.host,))
        newcomer.newcomer, newcomer.label = True, world[self.host].label
        newcomer.start()


@attrs.frozen
class Clone:
    """A machine is copied with its data directory: two processes speak as one node, until the copy is ended."""

    breaks: ClassVar = ("one_truth", "false_death", "load_age")
    host: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.victim(rng), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        original = world[self.host]
        if original.core is None:
            return
        world.bite(kind_of(self))
        copy = world.add(f"copy-{len(world.hosts)}", (), (self.host,))
        copy.node, copy.generation, copy.kept = original.node, original.generation, original.kept
        copy.newcomer = copy.copied = True
        original.copied = True
        copy.start()
        later(world, self.for_s, copy.crash)
