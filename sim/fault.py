"""What a fault is, and how a list of them strikes a world and is undone."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import attrs

from mesh.effects import Address
from mesh.member import Liveness
from sim.rule import Rule, partition

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World


@attrs.frozen
class Scene:
    """What a fault may be drawn for."""

    hosts: tuple[str, ...]
    spared: tuple[str, ...] = ()
    """Entries of clients who must see their streams through: never crashed."""
    for_s_max: float = 8.0

    @property
    def mortal(self) -> tuple[str, ...]:
        """The hosts that may be crashed, first to last."""
        return tuple(name for name in self.hosts if name not in self.spared)

    def victim(self, rng: random.Random) -> str:
        """Draw a host that may be crashed."""
        return rng.choice(self.mortal)

    def victims(self, rng: random.Random) -> tuple[str, ...]:
        """Draw some hosts that may be crashed, one at least."""
        return some(rng, self.mortal)

    def anyone(self, rng: random.Random) -> str:
        """Draw a host."""
        return rng.choice(self.hosts)

    def while_s(self, rng: random.Random) -> float:
        """Draw a duration; short ones are likelier."""
        return round(min(self.for_s_max, 0.1 + rng.expovariate(1 / 2.5)), 3)


def some(rng: random.Random, names: tuple[str, ...], most: int | None = None) -> tuple[str, ...]:
    """Draw one or more of these, in order."""
    count = rng.randint(1, max(1, min(len(names), most or len(names))))
    return tuple(sorted(rng.sample(names, count)))


class Fault(Protocol):
    """Something that goes wrong."""

    breaks: ClassVar[tuple[str, ...]]
    """Checks that it breaks by its nature, so that they say nothing about a run in which it strikes."""

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        """Draw parameters."""

    def strike(self, world: "World") -> None:
        """Do it to a world; nothing if it makes no sense there now."""


def later(world: "World", seconds: float, act: Callable[[], None]) -> None:
    """Go on with a fault, or undo it, after so many seconds; healing undoes it instead and ends it (`recover`)."""
    world.at(world.time + seconds, lambda: None if world.healed_at is not None else act())


def lay(world: "World", fault: Fault, for_s: float, *rules: Rule) -> None:
    """Put rules in force for a while, under a name of their own; what they hit counts for the fault."""
    kind = kind_of(fault)
    name = f"{kind} {sum(world.struck.values())} {world.events}"
    world.network.lay(name, *(attrs.evolve(rule, by=kind) for rule in rules))
    later(world, for_s, lambda: world.network.lift(name))


def kind_of(fault: Fault) -> str:
    """Name the kind of a fault."""
    return type(fault).__name__


def excused(strikes: tuple["Strike", ...]) -> frozenset[str]:
    """Name the checks that these faults break by their nature."""
    return frozenset(check for strike in strikes for check in strike.fault.breaks)


@attrs.frozen
class Strike:
    """A fault and its time."""

    at: float
    fault: Fault


def plan(world: "World", strikes: tuple[Strike, ...]) -> None:
    """Let faults strike at their times, until the mesh is healed; each is counted and traced as it does."""
    for strike in strikes:
        later(world, strike.at - world.time, lambda fault=strike.fault: _strike(world, fault))


def _strike(world: "World", fault: Fault) -> None:
    kind = kind_of(fault)
    world.struck[kind] = world.struck.get(kind, 0) + 1
    world.note("fault", repr(fault))
    fault.strike(world)


def recover(world: "World", core: tuple[str, ...]) -> None:
    """Heal the hosts of `core` and the paths between them; the rest stay as they are, out of reach for ever.

    As in TigerBeetle's VOPR: a core that is well must do well whatever becomes of the others. A copy of a
    node is taken away, as its operator would, and the original starts again; so does who was given wrong seeds,
    who can be found by nobody, or is just leaving. From then on no fault does anything, nor undoes it.
    """
    world.note("network", "healed")
    world.healed_at = world.time
    world.network.heal()
    rest = tuple(host.name for host in world.hosts.values() if not _is_of(host, core))
    if rest:
        near = tuple(name for name in world.hosts if name not in rest)
        world.network.lay("beyond", *partition((near, rest)))
        for name in rest:
            world[name].beyond = True
    well = [host for host in world.hosts.values() if _is_of(host, core)]
    mainland = _mainland(well)
    seeds = tuple(host.address for host in mainland)[:2]
    for host in well:
        _mend(host, seeds, host not in mainland)


def _is_of(host: "Host", core: tuple[str, ...]) -> bool:
    return host.name in core or host.newcomer


def _mainland(hosts: list["Host"]) -> list["Host"]:
    """The largest part of the hosts in which each can be reached from each, by what some of them know.

    Where everybody has moved and forgotten, two parts may know no address of one another: they can never
    meet, whatever they do, until an operator tells one of the other.
    """
    parts: list[list[Host]] = []
    for host in hosts:
        met = [part for part in parts if any(_knows(host, other) or _knows(other, host) for other in part)]
        parts = [part for part in parts if part not in met]
        parts.append([host, *(other for part in met for other in part)])
    largest = max(parts, key=len, default=[])
    return [host for host in hosts if host in largest]


def _knows(host: "Host", other: "Host") -> bool:
    """Whether it will ask at the present address of the other, and by the id that answers there."""
    if other.address in host.seeds:
        return True
    rows = host.core.swim.members() if host.core is not None else ()
    here = [row for row in rows if row.node == other.id and row.address == other.address]
    return any(row.liveness is not Liveness.LEFT for row in here)


def _is_lost(host: "Host") -> bool:
    """Whether nobody can find it and it can find nobody: it said goodbye, or all have moved meanwhile."""
    there = (host.world.network.hosts.get(seed) for seed in host.seeds)
    found = any(seed is not None and not seed.beyond for seed in there)
    unknown = host.astray and (host.farewell or host.moved)
    return not found and (unknown or host.newcomer)


def _mend(host: "Host", seeds: tuple[Address, ...], apart: bool) -> None:
    host.mend()
    host.resume()
    lost = apart or _is_lost(host)
    if host.copied or lost or host.leaving:
        host.crash()
        host.astray, host.seeds = False, tuple(seed for seed in seeds if seed != host.address)
    if host.core is None and (lost or not host.newcomer) and not host.is_copy:
        host.start()
