"""What one lying member can do: it has its own identity, speaks the protocol well, and says what is not so.

A liar is a host whose node goes on as before, and that sends forged packets beside it, as a broken build
or a stolen key would. It mints no identities: what a holder of the mesh key can do is out of scope.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from mesh import codec
from mesh.effects import SendDatagram
from mesh.identity import Identity
from mesh.load import LoadRecord, ModelLoad
from mesh.member import Liveness, Member
from mesh.messages import Gossip, Update
from sim.fault import Scene, kind_of, later
from sim.spoken import forged

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World

EVERY_S = 0.1
"""Time between two rounds of lies."""


def tell(world: "World", liar: "Host", parts: list[bytes], kind: str) -> None:
    """Send forged items from a liar to everybody else."""
    if liar.core is None or liar.paused:
        return
    data = codec.packet([codec.item(Gossip(liar.id)), *parts])
    for other in list(world.hosts.values()):
        if other is not liar:
            world.bite(kind)
            for effect in forged(liar, other.address, data):
                if isinstance(effect, SendDatagram):
                    world.network.send(liar, effect.address, effect.data)


def again(world: "World", seconds: float, act: Callable[[], None], every_s: float = EVERY_S) -> None:
    """Do something every so often for a while."""
    for turn in range(max(1, int(seconds / every_s))):
        later(world, turn * every_s, act)


@attrs.frozen
class Liar:
    """A member says of another, in everybody's name, that it is suspect, dead or left; the other is well."""

    breaks: ClassVar = ("own_word", "left_itself", "fair_trial")
    liar: str
    victim: str
    lie: str
    """`suspect`, `dead` or `left`."""
    ahead: int
    """How many incarnations ahead of the truth the lie is."""
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        liar, victim = rng.sample(scene.hosts, 2)
        lie = rng.choice(("suspect", "dead", "dead", "left"))
        return cls(liar, victim, lie, rng.choice((0, 0, 1, 7)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        again(world, self.for_s, lambda: self._lie(world))

    def _lie(self, world: "World") -> None:
        victim = world[self.victim]
        if victim.core is None:
            return
        me = victim.core.me
        age = Identity(me.node, me.identity.generation, me.identity.incarnation + self.ahead)
        forged = attrs.evolve(me, identity=age, liveness=Liveness[self.lie.upper()])
        accusers = tuple(host.id for host in world.running if host is not victim)[:8]
        part = codec.item(Update(forged, accusers if self.lie != "left" else ()))
        tell(world, world[self.liar], [part], kind_of(self))


@attrs.frozen
class RumourFlood:
    """A member gives a new account of itself many times a second."""

    breaks: ClassVar = ("own_word",)
    liar: str
    per_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(scene.anyone(rng), rng.choice((20.0, 100.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        again(world, self.for_s, lambda: self._flood(world), 1 / self.per_s)

    def _flood(self, world: "World") -> None:
        liar = world[self.liar]
        if liar.core is None:
            return
        me: Member = liar.core.me
        forged = attrs.evolve(me, identity=me.identity.above())
        tell(world, liar, [codec.item(Update(forged))], kind_of(self))


@attrs.frozen
class LoadLies:
    """A member says of another that it is idle and fast, in a record newer than the true one."""

    breaks: ClassVar = ("load_age",)
    liar: str
    victim: str
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        liar, victim = rng.sample(scene.hosts, 2)
        return cls(liar, victim, scene.while_s(rng))

    def strike(self, world: "World") -> None:
        again(world, self.for_s, lambda: self._lie(world), 0.5)

    def _lie(self, world: "World") -> None:
        victim = world[self.victim]
        true = victim.core.swim.loads.get(victim.now(), victim.id) if victim.core is not None else None
        if true is None:
            return
        model = ModelLoad("toy", ready=True, kv_free_ratio=1.0, decode_tokens_per_s=1e6)
        forged = LoadRecord(victim.id, true.generation, true.sequence + 5, 0, (model,))
        tell(world, world[self.liar], [codec.item(forged)], kind_of(self))
