"""What one core tells its siblings: facts about the past, routed by `node.core` alone.

A sub-core never calls another. It returns facts beside its effects; `NodeCore`
hands each to whoever must know, by one table, to a bounded depth.
"""

import attrs

from mesh.effects import Address
from mesh.member import Member
from mesh.records import Record


@attrs.frozen
class MemberChanged:
    """A member joined, changed its word about itself, was suspected, died or left."""

    before: Member | None
    after: Member


@attrs.frozen
class Quarantined:
    """This node has stopped trusting a peer to answer; new requests go elsewhere at once."""

    node: str
    reason: str


@attrs.frozen
class QuarantineLifted:
    """A quarantined peer has answered."""

    node: str


@attrs.frozen
class LinkUp:
    """A link to a peer has exchanged hellos and carries frames."""

    link: int
    node: str


@attrs.frozen
class LinkDown:
    """A link has gone; what ran over it is lost."""

    link: int
    node: str
    """Empty if the peer never said who it is."""
    reason: str
    primary: bool
    """Whether it is the link on which this node sent its own requests to that peer."""


@attrs.frozen
class LinkSilent:
    """A peer has not echoed for too long: its kernel may live, its process does not answer."""

    node: str
    silent_s: float


@attrs.frozen
class TwinMet:
    """Whoever is at the other end of a link says our own id, and is not this process."""

    address: Address
    """Where it takes datagrams, by its own word."""


@attrs.frozen
class EngineReady:
    """A local engine has loaded and warmed its model."""

    replica: str


@attrs.frozen
class EngineLost:
    """A local engine is gone; `in_step` names the tickets whose rows it was computing."""

    replica: str
    reason: str
    in_step: tuple[int, ...]


@attrs.frozen
class EventHeard:
    """A user event, delivered here once (`mesh.events`)."""

    lamport: int
    node: str
    """Its author, this node perhaps."""
    name: str
    payload: bytes
    late: bool
    """Whether it comes after one that stands behind it in the order (lamport, node)."""


@attrs.frozen
class MetadataChanged:
    """A member, this node perhaps, publishes other metadata, and they are here (`mesh.metadata`)."""

    node: str
    value: bytes | None
    """Empty if it publishes none any more; None if the member is forgotten."""


@attrs.frozen
class RecordChanged:
    """A record was written, here or elsewhere, deleted, or (`after` is None) dropped."""

    before: Record | None
    after: Record | None


@attrs.frozen
class ClaimEnded:
    """Nobody will come back for a request any more: its flights are not needed (`mesh.claims`)."""

    claim: int
    flights: tuple[int, ...]


@attrs.frozen
class ClaimTaken:
    """Another entry has taken a request over: this one must let go of it (`mesh.custody`)."""

    claim: int


Fact = (
    MemberChanged
    | Quarantined
    | QuarantineLifted
    | LinkUp
    | LinkDown
    | LinkSilent
    | TwinMet
    | EngineReady
    | EngineLost
    | EventHeard
    | MetadataChanged
    | RecordChanged
    | ClaimEnded
    | ClaimTaken
)
