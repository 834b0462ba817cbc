"""What is known of one member, and which of two accounts of it wins.

The lattice. Accounts of one node are ordered by (generation, incarnation, liveness),
lexicographically, with ALIVE < SUSPECT < DEAD < LEFT. Within one life this is SWIM's
precedence (DSN 2002, section 4.2):

    Alive(i)    beats  Alive(j), Suspect(j), Dead(j), Left(j)   iff i > j
    Suspect(i)  beats  Alive(j)                                 iff i >= j
                       Suspect(j), Dead(j), Left(j)             iff i > j
    Dead(i)     beats  Alive(j), Suspect(j)                     iff i >= j
    Left(i)     beats  anything                                 iff i >= j (itself apart)

and departs from it once: in the paper Confirm beats everything for ever; here a higher
incarnation, which only the subject can make, brings the dead back. That is what lets a
partition heal. The order is total, so merging is taking the maximum: idempotent,
commutative, associative and monotone, whatever the order in which rumours arrive.
"""

import enum

import attrs

from mesh.effects import Address
from mesh.identity import Identity

PROTOCOL = 3
"""Wire protocol of this version; to those who know less it says less (docs/reference/wire-datagrams.md)."""


class Liveness(enum.IntEnum):
    """What the mesh believes; the value is both the precedence and the wire code."""

    ALIVE = 0
    """Answers, or has refuted the last doubt."""
    SUSPECT = 1
    """Somebody's probe round failed; it has until the suspicion timeout to refute."""
    DEAD = 2
    """Nobody refuted in time. Remembered and pinged now and then: it may only have been cut off."""
    LEFT = 3
    """Said goodbye itself. Remembered, not pinged."""


_SUSPECT = Liveness.SUSPECT
"""Looked up once: it is asked of every row of every packet."""


@attrs.frozen
class Member:
    """One account of one node. Only the subject chooses the facts; observers set `liveness`."""

    identity: Identity
    name: str
    """A label for people, not unique, at most 64 characters."""
    address: Address
    """Gossip address, for UDP datagrams and TCP links alike."""
    liveness: Liveness = Liveness.ALIVE
    http: str = ""
    """`host:port` at which clients reach it, or empty when it serves none."""
    role: str = "worker"
    """What it is for, at most 16 characters; every node is entry and router besides."""
    protocol: int = PROTOCOL
    """Highest wire protocol that it speaks; peers speak the lower of theirs and this."""
    version: str = ""
    """Software version, for people, at most 32 characters."""
    capabilities: tuple[str, ...] = ()
    """Optional features that peers may use, at most 32 of 32 characters."""
    models: tuple[str, ...] = ()
    """Models that it means to serve, at most 32 of 96 characters; readiness is in its load record."""
    draining: bool = False
    """It finishes what it has and takes nothing new."""
    zone: str = ""
    """Failure domain, at most 32 characters; empty means unknown."""
    metadata_digest: bytes = b""
    """Of its metadata (`mesh.metadata`), 16 bytes; empty if it publishes none."""
    metadata_bytes: int = 0
    """How long its metadata is, by its own word."""

    @property
    def node(self) -> str:
        """The node id."""
        return self.identity.node

    @property
    def is_live(self) -> bool:
        """Whether it counts as a member: alive or suspect."""
        return self.liveness <= _SUSPECT

    @property
    def precedence(self) -> tuple[int, int, int]:
        """Its place in the lattice: (generation, incarnation, liveness)."""
        return (*self.identity.age, int(self.liveness))


def supersedes(new: Member, old: Member) -> bool:
    """Whether `new` replaces `old`: it stands higher in the lattice. Both must name one node.

    Honest accounts of equal precedence carry equal facts, since the subject makes a new
    incarnation for each new fact. Where two clones of one id break this, the facts
    themselves break the tie, so that all observers still settle on the same one.
    """
    assert new.node == old.node, "accounts of different nodes cannot be compared"
    if new.precedence != old.precedence:
        return new.precedence > old.precedence
    return new != old and _facts(new) > _facts(old)


def merge(one: Member, other: Member) -> Member:
    """The account that wins: the join of the lattice."""
    return other if supersedes(other, one) else one


def _facts(member: Member) -> tuple[object, ...]:
    return attrs.astuple(member, recurse=False)[1:]
