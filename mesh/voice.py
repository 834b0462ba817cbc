"""Everything that a membership core says: packets filled to the brim, facts, reports.

A packet is one message and what rides on it, in this order while it fits: what is believed of
the receiver when that is not "alive" (Lifeguard's buddy system, section IV-C, which is how a
suspect, or half a partition, learns what to refute), on pings and acks which load records are
held and true (`mesh.load`), rumours, load records that are news. While rumours wait, a gossip
round sends them to a few members at random; an idle mesh has none (the separate gossip tick is
memberlist's; SWIM has piggy-backing alone).
"""

import enum
import random
from collections.abc import Iterable, Iterator
from typing import Any

from mesh import codec
from mesh.agenda import Agenda
from mesh.ages import Histogram, to_byte
from mesh.cases import Cases
from mesh.detector import Say
from mesh.effects import (
    Address,
    Effect,
    KeepGeneration,
    Report,
    SendDatagram,
    SendReliable,
    Stop,
    ViewMoved,
)
from mesh.facts import Fact
from mesh.gossip import Broadcasts, Rank, sends_max
from mesh.load import LoadTable
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.messages import Ack, Ages, Gossip, Message, MetadataAnswer, Ping, Snapshot, Update
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally

CHUNK_BYTES = 64 * 1024
"""Most of a bulk answer that goes into one packet: the link's frames of flights wait for no more."""

AGES_HEAD_BYTES = 7
"""Of the item that tells how old the rumours of a packet are; each adds one byte."""
HURRIED_SENDS = 2
"""While tables are compared at speed, who is alive is told so often by rumour; comparing does the rest."""


class GossipTimer(enum.Enum):
    """Agenda key: the next gossip round."""

    GOSSIP = "gossip"


class Voice:
    """The outbox of a core. Effects and facts leave in the order in which they were said."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        cases: Cases,
        loads: LoadTable,
        agenda: Agenda,
        rng: random.Random,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._cases = cases
        self._loads = loads
        self._agenda = agenda
        self._rng = rng
        self._tally = tally
        self._rumours = Broadcasts()
        self.quiet = False
        """Whether what is learned just now is not to be spread: it came in bulk, so others have it too."""
        self.age_s: float | None = None
        """How old what is learned just now is; None if it comes from ourselves, or its age is not known."""
        self.ages = Histogram()
        """Ages at which rumours were news here."""
        self.hurried = False
        """Whether tables are being compared at speed, so that rumours need only begin to spread."""
        self.mark: tuple[bytes, ...] = ()
        """Of which mesh we are, encoded, for packets with accounts; nothing if that is not to be told."""
        self._out: list[Effect | Fact] = []

    @property
    def rumours(self) -> int:
        """How many rumours wait to be spread."""
        return len(self._rumours)

    def take(self) -> list[Effect | Fact]:
        """Hand over what was said since the last time."""
        out, self._out = self._out, []
        return out

    def tell(self, fact: Fact) -> None:
        """Tell the sibling cores."""
        self._out.append(fact)

    def report(self, event: str, **fields: Any) -> None:
        """Tell the operator."""
        self._out.append(Report(event, tuple(fields.items())))

    def ask(self, effect: KeepGeneration | Stop | ViewMoved) -> None:
        """Ask the driver for something."""
        self._out.append(effect)

    def say(self, now: Now, say: Say, load: bytes | None = None) -> None:
        """Send one message with as much riding on it as fits; `load` is our record, if it is missed there."""
        items = [codec.item(say.message)]
        row = self._members.get(say.to)
        told = row if row is not None and row.liveness and _is_told(row, self._options) else None
        if told or self._rumours:
            items += self.mark
        if told:
            items.append(self.account(told))
        self._mark_loads(now, say.message, items)
        if self._rumours:
            often = sends_max(self._members.live, self._options.retransmit_factor)
            self._add_rumours(now, often, items)
        self._add_loads(now, say.to, load, items)
        self._send(say.address, codec.packet(items), say.reliable)

    def say_bulk(
        self, address: Address, message: Message, items: list[bytes], budget_bytes: int, by_link: bool
    ) -> int:
        """Send encoded items under a message, of at most `budget_bytes` in all; the first ones go first.

        As one datagram if they fit into one; else, if `by_link` is allowed, in chunks over the link.
        Returns the bytes sent.
        """
        head = b"".join((codec.item(message), *self.mark))
        limit = min(codec.DATAGRAM_BYTES_MAX, budget_bytes) - codec.HEADER_BYTES - len(head)
        fits = sum(map(len, items)) <= limit
        if by_link and not fits:
            limit, reliable = min(CHUNK_BYTES, budget_bytes), True
        else:
            reliable = isinstance(message, Snapshot | MetadataAnswer)
        sent = 0
        for chunk in _chunks(items, limit):
            data = codec.packet([head, *chunk], codec.RELIABLE_BYTES_MAX)
            if sent + len(data) > budget_bytes or (sent and not reliable):
                break
            self._send(address, data, reliable)
            sent += len(data)
        return sent

    def say_rows(self, now: Now, address: Address, message: Message, rows: Iterable[Member]) -> None:
        """Send a reliable message with whole accounts, the live first, in one packet: as many as fit."""
        parts = [self.account(row) for row in sorted(rows, key=lambda row: not row.is_live)]
        items = [codec.item(message), *self.mark]
        room = codec.RELIABLE_BYTES_MAX - codec.HEADER_BYTES - sum(map(len, items))
        for part in parts:
            room -= len(part)
            if room < 0:
                break
            items.append(part)
        self._send(address, codec.packet(items, codec.RELIABLE_BYTES_MAX), reliable=True)

    def spread(self, now: Now, row: Member, most: int | None = None) -> None:
        """Let this account, and who doubts it, go round the mesh, `most` times from here; older rumours of it stop."""
        if self.quiet or self._options.observer:
            self.hush(row.node)
            return
        if self.age_s is not None:
            self.ages.count(self.age_s)
        self._rumours.offer(row.node, self.account(row), _rank(row), now.mono - (self.age_s or 0.0), most)
        if GossipTimer.GOSSIP not in self._agenda:
            wait_s = self._rng.uniform(0.0, self._options.gossip_period_s)
            self._agenda.set(GossipTimer.GOSSIP, now.mono + wait_s)

    def is_spreading(self, node: str) -> bool:
        """Whether a rumour about `node` still waits to be sent."""
        return node in self._rumours

    def hush(self, node: str) -> None:
        """Stop spreading what is said about `node`."""
        self._rumours.discard(node)

    def load_items(self, now: Now) -> list[bytes]:
        """Every load record, encoded."""
        return self._loads.items(now)

    def account(self, row: Member) -> bytes:
        """What we believe of a member, encoded, with who doubts it."""
        case = self._cases.get(row.node)
        return codec.update_item(Update(row, case.accusers if case is not None else ()))

    def _add_rumours(self, now: Now, often: int, items: list[bytes]) -> None:
        taken = self._rumours.take(_room(items) - AGES_HEAD_BYTES, often, self._brief(), each_bytes=1)
        if taken:
            items += [item for item, _ in taken]
            items.append(codec.item(Ages(bytes(to_byte(now.mono - born_at) for _, born_at in taken))))

    def _brief(self) -> int | None:
        return HURRIED_SENDS if self.hurried else None

    def gossip_due(self, now: Now, excluding: tuple[str, ...]) -> None:
        """One gossip round, to members outside `excluding`; the next is set while rumours wait."""
        options = self._options
        for peer in self._members.sample(options.gossip_fanout, excluding, options.gossip_to_suspects):
            if self._rumours:
                self.say(now, Say(peer.address, Gossip(self._me), peer.node))
        if self._rumours and self._members.live > 1:
            self._agenda.set(GossipTimer.GOSSIP, now.mono + options.gossip_period_s)

    def _mark_loads(self, now: Now, message: Message, items: list[bytes]) -> None:
        kind = type(message)
        if kind is Ping:
            items.append(codec.held_item(self._loads.held_of(message.target)))
        if kind is Ping or kind is Ack:
            still = self._loads.still(now)
            if still is not None:
                items.append(codec.item(still))

    def _add_loads(self, now: Now, to: str, load: bytes | None, items: list[bytes]) -> None:
        known: tuple[str, ...] = (to,)
        if load is not None and len(load) <= _room(items):
            items.append(load)
            known = (to, self._me)
        often = sends_max(self._members.live, self._options.load_retransmit_factor)
        if self._loads.has_news(often):
            items += self._loads.fill(now, _room(items), self._options.load_budget_bytes, often, known)

    def _send(self, address: Address, data: bytes, reliable: bool) -> None:
        self._tally.packets_sent += 1
        self._tally.bytes_sent += len(data)
        self._out.append((SendReliable if reliable else SendDatagram)(address, data))


def _rank(row: Member) -> Rank:
    if row.liveness is not Liveness.ALIVE:
        return Rank.DOUBT
    return Rank.LIFE if row.identity.incarnation else Rank.NEWS


def _chunks(items: list[bytes], limit_bytes: int) -> Iterator[list[bytes]]:
    """Cut into runs of at most `limit_bytes`, of one item at least; one run of none if there are none."""
    chunk: list[bytes] = []
    room = limit_bytes
    for item in items:
        room -= len(item)
        if room < 0 and chunk:
            yield chunk
            chunk, room = [], limit_bytes - len(item)
        chunk.append(item)
    yield chunk


def _is_told(row: Member, options: SwimOptions) -> bool:
    """Whether a member is told what is believed of it: the dead always, for else they never come back."""
    doubted = not row.is_live or (options.buddy and row.liveness is Liveness.SUSPECT)
    return doubted and not options.observer


def _room(items: list[bytes]) -> int:
    return codec.PACKET_BYTES_MAX - codec.HEADER_BYTES - sum(map(len, items))
