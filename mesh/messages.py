"""What nodes say to each other about membership, as frozen values.

A packet is one message, plus the rumours and load records that ride on it. `source` is
always the node that sent this packet, not the one it is about. How each becomes bytes is
`mesh.codec`'s business alone.
"""

import enum

import attrs

from mesh.effects import Address
from mesh.hot import hot
from mesh.load import LoadHeld, LoadMark, LoadRecord, LoadStill
from mesh.member import Member


@hot
class Ping:
    """Are you there? Answered by Ack with the same nonce, by `target` only."""

    source: str
    nonce: int
    """48 random bits: an answer counts only with the nonce of an open round."""
    target: str
    """Whom it is for: an address may have passed to another node."""
    coordinate: bytes = b""
    """Where the source is (`mesh.coordinates`); empty if it keeps no coordinates."""


@hot
class Ack:
    """The answer to a Ping, or a helper's word that the target has answered it."""

    source: str
    nonce: int
    digest: bytes
    """`Members.digest()` of the source, 8 bytes."""
    coordinate: bytes = b""
    """Where the source is, as in Ping."""


@attrs.frozen
class PingRequest:
    """Ask a helper to ping `target` and to pass the answer on."""

    source: str
    nonce: int
    target: str
    address: Address
    """Where the asker believes the target to be; the helper prefers its own knowledge."""
    timeout_ms: int
    """How long the asker will wait; the helper says Nack at four fifths of it (Lifeguard IV-A)."""


@attrs.frozen
class Nack:
    """The helper got no answer: it heard the asker, so the asker's own network works."""

    source: str
    nonce: int


@attrs.frozen
class Join:
    """Let me in: carries the sender's own account. Answered by Snapshot. Reliable only."""

    source: str


@attrs.frozen
class Snapshot:
    """What the source knows, as updates and load records: all of it, or, under load, a few to ask on.

    Large tables come in several. Reliable only.
    """

    source: str


@attrs.frozen
class Sync:
    """Everything (or, in a reply, what differs) of the source's table, for peers of protocol 1. Reliable only."""

    source: str
    answer_wanted: bool
    """False in the reply, which ends the exchange."""


@attrs.frozen
class Leave:
    """Goodbye: carries the source's own account as LEFT."""

    source: str


@hot
class Gossip:
    """Nothing but what rides on it."""

    source: str


@attrs.frozen
class Reconcile:
    """One step of comparing two tables by ranges of ids, which ride on it as spans (`mesh.ranges`).

    Without spans and accounts: our tables are equal. Each step stands for itself: neither side keeps state.
    """

    source: str
    salt: int
    """64 random bits, the same in all steps of one exchange: which marks collide differs each time."""
    depth: int
    """0 opens, each answer is one deeper, at most `ranges.DEPTH_MAX`."""


@attrs.frozen
class Seen:
    """Your packets come from `address`, and at the address that you give you do not answer us (a NAT, perhaps)."""

    source: str
    address: Address


@attrs.frozen
class MetadataAsk:
    """Send me the metadata with these digests (`mesh.metadata`). Reliable only."""

    source: str
    digests: tuple[bytes, ...]
    """16 bytes each, at most 48."""


@attrs.frozen
class MetadataAnswer:
    """What was asked for rides on it, in pieces; large answers come in several. Reliable only."""

    source: str
    lacking: tuple[bytes, ...] = ()
    """Digests of what the source does not hold, or does not send now: ask somebody else."""


Message = (
    Ping
    | Ack
    | PingRequest
    | Nack
    | Join
    | Snapshot
    | Sync
    | Leave
    | Gossip
    | Reconcile
    | Seen
    | MetadataAsk
    | MetadataAnswer
)


class SpanKind(enum.IntEnum):
    """What a span says; the value is the wire code."""

    COMPARE = 0
    """The body is the digest of what the source holds there."""
    HELD = 1
    """The body is the marks of all that the source holds there."""
    WANTED = 2
    """The body is the marks of what the source lacks there."""


@attrs.frozen
class Span:
    """A range of node ids, both ends included, and what the source says of its live members there."""

    low: str
    high: str
    kind: SpanKind
    body: bytes
    """A digest of 8 bytes, or marks of 4 bytes each."""


@attrs.frozen
class Ages:
    """How old the last accounts of the packet are, one byte each, in their order (`mesh.ages`)."""

    codes: bytes


@attrs.frozen
class MeshMark:
    """Of which mesh the source is: rides on clear packets with accounts, and on Join (`mesh.border`)."""

    hash: bytes
    """4 bytes."""


@attrs.frozen
class Event:
    """A user event: heard by each node once (`mesh.events`)."""

    node: str
    """Its author."""
    generation: int
    """Of the author's life."""
    sequence: int
    """Of this event among the author's, from 1."""
    lamport: int
    """Lamport time: greater than that of any event that the author had heard."""
    name: str
    payload: bytes


@attrs.frozen
class MetadataPiece:
    """A piece of the metadata of whoever publishes this digest (`mesh.metadata`)."""

    digest: bytes
    """Of the whole value, 16 bytes."""
    size: int
    """Of the whole value, bytes."""
    offset: int
    """Where the piece begins."""
    body: bytes


@attrs.frozen
class Update:
    """An account of a member that rides on a packet."""

    member: Member
    accusers: tuple[str, ...] = ()
    """Nodes whose own rounds failed, where the account is SUSPECT; at most 8. They merge by union,
    so that one rumour per member carries every independent accusation."""


@hot
class Packet:
    """What one datagram, or one gossip frame of a link, decodes to."""

    message: Message
    updates: tuple[Update, ...] = ()
    loads: tuple[LoadRecord, ...] = ()
    repeats: tuple[LoadMark, ...] = ()
    """Load records that the receiver holds already: their figures were not read."""
    held: tuple[LoadHeld, ...] = ()
    still: tuple[LoadStill, ...] = ()
    spans: tuple[Span, ...] = ()
    ages: tuple[Ages, ...] = ()
    marks: tuple[MeshMark, ...] = ()
    events: tuple[Event, ...] = ()
    pieces: tuple[MetadataPiece, ...] = ()
    unknown: int = 0
    """Items of a type that this version does not know: skipped."""
