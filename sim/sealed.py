"""Worlds in which every datagram is sealed, by the code and to the byte as in production.

Links stay clear: TLS belongs to the sockets, which a simulation does not have.
"""

import hashlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from mesh.effects import Address, Effect, SendDatagram
from mesh.envelope import HEADER_BYTES
from mesh.keyring import Keyring, MeshKey
from mesh.member import Member
from mesh.now import Now
from mesh.seal import Received, Seal, SealOptions
from node.core import NodeCore, NodeOptions
from sim.stream import random_of
from sim.world import Check, World, WorldOptions

if TYPE_CHECKING:
    from sim.host import Host


def keyring_of(seed: int, *ids: int) -> Keyring:
    """Return a ring of simulated mesh keys; one id is one key in all worlds of a seed."""
    return Keyring(tuple(MeshKey(id, random_of(seed, "mesh-key", id).randbytes(32)) for id in ids))


@attrs.define
class Ledger:
    """What every seal of a world has made and opened; a check, by the name of `ledger`.

    Two laws: each datagram that is opened was made, byte for byte, by a seal that holds the key; and none is
    opened twice, by anybody. A datagram is known by its header, which no two may share.
    """

    made: dict[bytes, bytes] = attrs.Factory(dict)
    """Header -> hash of the whole datagram."""
    opened: set[bytes] = attrs.Factory(set)
    """Only asked for members, never iterated."""
    wrong: list[str] = attrs.Factory(list)

    def note_made(self, effects: list[Effect]) -> None:
        """These datagrams leave a seal."""
        for effect in effects:
            data = getattr(effect, "data", None)
            if data is not None and self.made.setdefault(data[:HEADER_BYTES], _hash(data)) != _hash(data):
                self.wrong.append("two datagrams share a session and a counter: a nonce was used twice")

    def note_opened(self, data: bytes) -> None:
        """This datagram was opened."""
        header = data[:HEADER_BYTES]
        if self.made.get(header) != _hash(data):
            self.wrong.append("a datagram was opened that no holder of the key has made")
        if header in self.opened:
            self.wrong.append("a datagram was opened twice")
        self.opened.add(header)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Fail the run at the first breach. The last check of a world, as it forgets what was said."""
        if host.core is not None and isinstance(host.core.seal, LedgerSeal):
            host.core.seal.said.clear()
        if self.wrong:
            host.world.fail("ledger", self.wrong[0])


class LedgerSeal(Seal):
    """A seal that keeps the ledger."""

    ledger: Ledger
    said: list[SendDatagram]
    """What the core has given to be sealed by the input that is handled, for checks that read packets."""

    def send(self, now: Now, address: Address, packet: bytes) -> list[Effect]:
        """As `Seal.send`."""
        self.said.append(SendDatagram(address, packet))
        return self.forge(now, address, packet)

    def forge(self, now: Now, address: Address, packet: bytes) -> list[Effect]:
        """Seal what the core has not said: a member that lies does so under its own seal."""
        effects = super().send(now, address, packet)
        self.ledger.note_made(effects)
        return effects

    def receive(self, now: Now, data: bytes, source: Address) -> Received:
        """As `Seal.receive`."""
        before = self.statistics.opened
        received = super().receive(now, data, source)
        if self.statistics.opened > before:
            self.ledger.note_opened(data)
        self.ledger.note_made(received[2])
        return received


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def sealed(
    options: SealOptions, ledger: Ledger | None = None, build: Callable[..., NodeCore] = NodeCore
) -> Callable[..., NodeCore]:
    """Return a builder of nodes that seal, for `WorldOptions.core`. Each life draws its own session."""

    def core(
        me: Member, models: dict[str, str], node: NodeOptions, rng: random.Random, **more: Any
    ) -> NodeCore:
        seal = LedgerSeal(options, rng.randbytes) if ledger is not None else Seal(options, rng.randbytes)
        if ledger is not None:
            seal.ledger, seal.said = ledger, []
        return build(me, models, node, rng, seal=seal, **more)

    return core


def world_of(seed: int, options: WorldOptions, checks: tuple[Check, ...]) -> World:
    """Return a world in which everybody seals with one key, and the ledger is kept."""
    ledger = Ledger()
    core = sealed(SealOptions(keyring_of(seed, 1)), ledger, options.core)
    return World(seed, attrs.evolve(options, core=core), (*checks, ledger))
