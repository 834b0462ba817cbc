"""Sealing nodes that talk in memory: what each sends is carried, or held back, by the test."""

import random

import attrs

from mesh.effects import Address, Report, SendDatagram
from mesh.envelope import Kind
from mesh.keyring import Keyring, MeshKey
from mesh.now import Now
from mesh.seal import Seal, SealOptions


def secret(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def ring(*ids: int) -> Keyring:
    """Keys of these ids; the same id is the same key."""
    return Keyring(tuple(MeshKey(id, secret(id)) for id in ids))


def packet(text: bytes) -> bytes:
    """Something with the two bytes in front that every packet has."""
    return bytes((1, 0)) + text


@attrs.define
class Party:
    """One node: its seal, its address, and what it has received."""

    seal: Seal
    address: Address
    got: list[tuple[bytes, Address]] = attrs.Factory(list)
    reports: list[Report] = attrs.Factory(list)


@attrs.define
class Talk:
    """Some parties and the wire between them."""

    parties: dict[str, Party] = attrs.Factory(dict)
    wire: list[tuple[Address, Address, bytes]] = attrs.Factory(list)
    """(from, to, bytes) of everything ever sent."""
    mono: float = 1000.0
    wall: float = 1.7e9
    sent_at: int = 0

    def add(self, name: str, *ids: int, label: str = "inferno", seed: int | None = None) -> Party:
        number = len(self.parties) + 1
        draw = random.Random(number if seed is None else seed).randbytes
        party = Party(Seal(SealOptions(ring(*(ids or (1,))), label), draw), (f"10.0.0.{number}", 7946))
        self.parties[name] = party
        return party

    def now(self) -> Now:
        return Now(self.mono, self.wall)

    def say(self, name: str, to: Address, text: bytes) -> None:
        """Send, and carry everything that follows from it."""
        self.post(name, to, text)
        self.carry()

    def post(self, name: str, to: Address, text: bytes) -> list[bytes]:
        """Send without carrying; returns what would travel."""
        party = self.parties[name]
        return self.take(party, party.seal.send(self.now(), to, packet(text)))

    def take(self, party: Party, effects: list) -> list[bytes]:
        sent = []
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self.wire.append((party.address, effect.address, effect.data))
                sent.append(effect.data)
            else:
                party.reports.append(effect)
        return sent

    def carry(self) -> None:
        """Deliver all that is on the wire, and what it causes; ends, or the protocol loops."""
        for _ in range(1000):
            if self.sent_at == len(self.wire):
                return
            source, to, data = self.wire[self.sent_at]
            self.sent_at += 1
            self.deliver(source, to, data)
        raise AssertionError("datagrams beget datagrams without end")

    def deliver(self, source: Address, to: Address, data: bytes) -> list[bytes]:
        """Hand one datagram to whoever is at `to`; returns what it answers."""
        for party in self.parties.values():
            if party.address == to:
                opened, back, effects = party.seal.receive(self.now(), data, source)
                if opened is not None:
                    party.got.append((opened[2:], back))
                return self.take(party, effects)
        return []

    def forget(self) -> None:
        """Lose what is on the wire."""
        self.sent_at = len(self.wire)


def kinds(wire: list[tuple[Address, Address, bytes]]) -> list[str]:
    return [Kind(data[10] >> 6).name for _, _, data in wire]


def acquainted(*ids: int) -> tuple[Talk, Party, Party]:
    """Two nodes that have spoken both ways."""
    talk = Talk()
    a, b = talk.add("a", *ids), talk.add("b", *ids)
    talk.say("a", b.address, b"from a")
    talk.say("b", a.address, b"from b")
    assert [text for text, _ in b.got] == [b"from a"]
    assert [text for text, _ in a.got] == [b"from b"]
    return talk, a, b
