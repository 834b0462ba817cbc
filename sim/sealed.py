"""Worlds in which every datagram is sealed, by the code and to the byte as in production.

Links stay clear: TLS belongs to the sockets, which a simulation does not have.
"""

import random
from collections.abc import Callable
from typing import Any

from mesh.keyring import Keyring, MeshKey
from mesh.member import Member
from mesh.seal import Seal, SealOptions
from node.core import NodeCore, NodeOptions
from sim.stream import random_of


def keyring_of(seed: int, *ids: int) -> Keyring:
    """Return a ring of simulated mesh keys; one id is one key in all worlds of a seed."""
    return Keyring(tuple(MeshKey(id, random_of(seed, "mesh-key", id).randbytes(32)) for id in ids))


def sealed(options: SealOptions, build: Callable[..., NodeCore] = NodeCore) -> Callable[..., NodeCore]:
    """Return a builder of nodes that seal, for `WorldOptions.core`. Each life draws its own session."""

    def core(
        me: Member, models: dict[str, str], node: NodeOptions, rng: random.Random, **more: Any
    ) -> NodeCore:
        return build(me, models, node, rng, seal=Seal(options, rng.randbytes), **more)

    return core
