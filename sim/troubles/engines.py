"""What happens to engines, under a node that stays well."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from sim.fault import Scene, kind_of, later

if TYPE_CHECKING:
    from sim.world import World


@attrs.frozen
class EngineCrash:
    """kill -9 of a node's engines alone."""

    breaks: ClassVar = ()
    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng))

    def strike(self, world: "World") -> None:
        for engine in list(world[self.host].engines.values()):
            world.bite(kind_of(self))
            engine.die("killed by signal 9")


@attrs.frozen
class EngineFreeze:
    """A node's engines stand still: no progress, no processor time, no end."""

    breaks: ClassVar = ()
    host: str

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng))

    def strike(self, world: "World") -> None:
        for engine in world[self.host].engines.values():
            world.bite(kind_of(self))
            engine.freeze()


@attrs.frozen
class SlowEngine:
    """A node's engines take so many times as long for each step."""

    breaks: ClassVar = ()
    host: str
    factor: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((3.0, 20.0, 100.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        for engine in world[self.host].engines.values():
            world.bite(kind_of(self))
            engine.slowness = self.factor
            later(world, self.for_s, lambda engine=engine: setattr(engine, "slowness", 1.0))
