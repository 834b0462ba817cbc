"""Clients of the replicated records: many writers, few keys, no manners."""

import random
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from mesh.effects import Effect
from mesh.errors import MeshError
from mesh.now import Now
from node.core import NodeCore
from sim.fault import Scene, kind_of, later
from sim.stream import random_of

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World

NAMESPACE = "storm"
KEYS = tuple("abcdefgh")
ACTS = ("put", "put", "put", "delete", "delete", "revoke")
VALUE_BYTES = (0, 1, 40, 300, 3000)


@attrs.frozen
class RecordStorm:
    """Clients write, delete and now and then revoke the same few records at all nodes for a while."""

    breaks: ClassVar = ()
    seed: int
    per_s: float
    for_s: float

    @classmethod
    def draw(cls, rng: random.Random, scene: Scene) -> Self:
        return cls(rng.randrange(2**32), rng.choice((1.0, 5.0, 20.0)), scene.while_s(rng))

    def strike(self, world: "World") -> None:
        rng = random_of(self.seed, "records")
        for turn in range(max(1, int(self.for_s * self.per_s))):
            later(world, turn / self.per_s, lambda: self._write(world, rng))

    def _write(self, world: "World", rng: random.Random) -> None:
        host = rng.choice(list(world.hosts.values()))
        act, key, size = rng.choice(ACTS), rng.choice(KEYS), rng.choice(VALUE_BYTES)
        if act == "revoke":
            key = f"{key}{rng.randrange(1000)}"
        if host.core is not None and not host.paused:
            world.bite(kind_of(self))
            host.give(lambda core, now: _carried_out(host, core, now, act, key, bytes(size)))


def _carried_out(host: "Host", core: NodeCore, now: Now, act: str, key: str, value: bytes) -> list[Effect]:
    try:
        match act:
            case "put":
                return core.put_record(now, NAMESPACE, key, value)
            case "delete":
                return core.delete_record(now, NAMESPACE, key)
        return core.revoke_record(now, NAMESPACE, key, now.wall + 3600.0)
    except MeshError as error:
        host.world.note(host.name, "record_refused", act=act, error=type(error).__name__)
        return []
