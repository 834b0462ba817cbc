"""What a fault is, and how a list of them strikes a world and is undone."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

import attrs

from sim.network import Rule

if TYPE_CHECKING:
    from sim.world import World


@attrs.frozen
class Scene:
    """What a fault may be drawn for."""

    hosts: tuple[str, ...]
    spared: tuple[str, ...] = ()
    """Entries of clients who must see their streams through: never crashed."""
    for_s_max: float = 8.0

    def victim(self, rng: random.Random) -> str:
        """Draw a host that may be crashed."""
        return rng.choice([name for name in self.hosts if name not in self.spared])

    def anyone(self, rng: random.Random) -> str:
        """Draw a host."""
        return rng.choice(self.hosts)

    def while_s(self, rng: random.Random) -> float:
        """Draw a duration; short ones are likelier."""
        return round(min(self.for_s_max, 0.1 + rng.expovariate(1 / 2.5)), 3)


class Fault(Protocol):
    """Something that goes wrong."""

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        """Draw parameters."""

    def strike(self, world: "World") -> None:
        """Do it to a world; nothing if it makes no sense there now."""


def later(world: "World", seconds: float, undo: Callable[[], None]) -> None:
    """Undo something after so many seconds."""
    world.at(world.time + seconds, undo)


def lay(world: "World", for_s: float, *rules: Rule) -> None:
    """Put rules in force for a while, under a name of their own."""
    name = f"fault {sum(world.struck.values())}"
    world.network.lay(name, *rules)
    later(world, for_s, lambda: world.network.lift(name))


@attrs.frozen
class Strike:
    """A fault and its time."""

    at: float
    fault: Fault


def plan(world: "World", strikes: tuple[Strike, ...]) -> None:
    """Let faults strike at their times; each is counted and traced as it does."""
    for strike in strikes:
        world.at(strike.at, lambda fault=strike.fault: _strike(world, fault))


def _strike(world: "World", fault: Fault) -> None:
    kind = type(fault).__name__
    world.struck[kind] = world.struck.get(kind, 0) + 1
    world.note("fault", repr(fault))
    fault.strike(world)


def recover(world: "World", core: tuple[str, ...]) -> None:
    """Undo whatever is still at work on the hosts of `core`, and heal the network; the rest stay as they are."""
    world.note("network", "healed")
    world.network.heal()
    for host in world.hosts.values():
        host.cost_s = 0.0
        if host.name in core:
            host.resume()
            if host.core is None:
                host.start()
