"""Metadata: up to 64 KiB that each member publishes about itself, held by everybody: labels, hardware, notes.

Theory of operation. A member's account tells the digest and the length of its metadata. So a change is a new
incarnation, spreads as any account does, and needs no clock. The value itself travels apart:

    small (PIECE_BYTES_MAX)  at once, in packets of its own like user events, together with the account that names it;
                             who misses it pulls it
    larger                   is pulled over a link, from its subject or from anybody who has it (`mesh.pulls`)

Nothing is believed before its digest is right, and nothing is kept that no account names: so a value needs no author,
no order and no sequence, may come from anybody, and is held once however many publish it (`mesh.shelf`). It goes
when its member publishes another or is forgotten. The dead keep theirs while there is room.

The length in an account is its subject's word, used for budgets alone. `get` tells what belongs to the account that is
believed now, or None while that is still under way.

Bounds: METADATA_BYTES_MAX a member; SHELF_BYTES_MAX in all; `metadata_bytes_per_s` asked for, and as much given to
others, with a second's worth in reserve; small values told in `gossip_fanout` packets a gossip period.
Sources: memberlist's metadata (512 bytes, in the account itself; its issue 191 asks for more); Consul's 64 KiB of
announced state; content addressing as in Git.
"""

import enum
import random

from mesh import codec
from mesh.agenda import Agenda
from mesh.bucket import Bucket
from mesh.effects import Address
from mesh.errors import LimitError
from mesh.events import ROOM_BYTES
from mesh.facts import MetadataChanged
from mesh.gossip import Broadcasts, sends_max
from mesh.members import Members
from mesh.messages import Gossip, MetadataAnswer, MetadataAsk, MetadataPiece, Update
from mesh.now import Now
from mesh.pulls import METADATA_SINCE, PullKey, Pulls, WantKey
from mesh.roll import Roll
from mesh.shelf import Shelf, digest_of
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.voice import Voice

SMALL_WAIT_PERIODS = 10
"""Gossip periods that a small value has to arrive by itself, before it is pulled."""
LARGE_WAIT_PERIODS = 1
"""A larger one is asked for within so many, so that not all ask at one instant."""
WAITING_MAX = 1024
"""Small values that wait to be told, some 1 MB at most; beyond, they are only pulled."""


class MetadataTimer(enum.Enum):
    """Agenda key."""

    TELL = "tell"
    """The next packets of small values."""


class Metadata:
    """This node's metadata and everybody's."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        voice: Voice,
        agenda: Agenda,
        rng: random.Random,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._voice = voice
        self._agenda = agenda
        self._rng = rng
        self._tally = tally
        self._shelf = Shelf()
        self._pulls = Pulls(me, options, members, self._shelf, self._make_room, voice, agenda, rng, tally)
        rate = options.metadata_bytes_per_s
        self._given = Bucket(rate, burst=max(rate, codec.METADATA_BYTES_MAX), debt_max=rate)
        self._queue = Broadcasts()

    @property
    def held_bytes(self) -> int:
        """Of all values that are held."""
        return self._shelf.size

    @property
    def missing(self) -> int:
        """How many values are published and not held (yet)."""
        return len(self._pulls)

    def get(self, node: str) -> bytes | None:
        """What `node` publishes: empty if nothing, None if it is no member or the value is not here (yet)."""
        row = self._members.get(node)
        if row is None or not row.metadata_digest:
            return None if row is None else b""
        return self._shelf.value(row.metadata_digest)

    def check(self, value: bytes) -> dict[str, bytes | int]:
        """Return what our account is to say of this value. Raises LimitError if it is too large."""
        if len(value) > codec.METADATA_BYTES_MAX:
            raise LimitError(
                f"metadata of {len(value)} bytes are over the limit of {codec.METADATA_BYTES_MAX}\n"
                "hint: publish where the rest is to be had"
            )
        return {"metadata_digest": digest_of(value), "metadata_bytes": len(value)}

    def publish(self, now: Now, value: bytes) -> None:
        """Our account names this value now: keep it, and tell it if it is small."""
        digest = digest_of(value)
        if digest == self._shelf.mark(self._me):
            return
        self._note(self._me, digest)
        self._shelf.put(value, own=True)
        self._pulls.drop(digest)
        self._voice.tell(MetadataChanged(self._me, value))
        self._offer(now, self._me, value)

    def begin(self, now: Now, known: Roll) -> None:
        """The first input of all has come; `known` are accounts that were believed from the start."""
        for node in known.published:
            if node != self._me:
                self._look(now, node, "")

    def learn(self, now: Now, updates: tuple[Update, ...], teller: str) -> None:
        """Accounts have been merged; `teller` is who told of many at once, empty if they were few."""
        for update in updates:
            member = update.member
            if (member.metadata_digest or self._shelf.mark(member.node)) and member.node != self._me:
                self._look(now, member.node, teller)

    def sweep(self) -> None:
        """Forget what belonged to members that are forgotten. O(members with metadata)."""
        for node in self._shelf.nodes:
            if self._members.get(node) is None:
                self._note(node, b"")
                self._voice.tell(MetadataChanged(node, None))

    def _look(self, now: Now, node: str, teller: str) -> None:
        """The account of `node` may name another value than it did."""
        row = self._members.get(node)
        digest = row.metadata_digest if row is not None else b""
        if digest == self._shelf.mark(node) or (digest and (row is None or not row.is_live)):
            return
        self._note(node, digest)
        value = self._shelf.value(digest)
        if not digest or value is not None:
            self._voice.tell(MetadataChanged(node, value if row is None else value or b""))
            return
        size = row.metadata_bytes
        periods = LARGE_WAIT_PERIODS if teller or size > codec.PIECE_BYTES_MAX else SMALL_WAIT_PERIODS
        self._pulls.want(now, digest, size, teller, periods * self._options.gossip_period_s)

    def _note(self, node: str, digest: bytes) -> None:
        before = self._shelf.mark(node)
        self._shelf.note(node, digest)
        if before and not self._shelf.users(before):
            self._pulls.drop(before)
            self._queue.discard(before.hex())

    # Values.

    def hear(self, now: Now, pieces: tuple[MetadataPiece, ...]) -> None:
        """Take small values that a packet told, after its accounts; what no account names is dropped."""
        for piece in pieces:
            whole = piece.offset == 0 and piece.size == len(piece.body)
            if whole and digest_of(piece.body) == piece.digest:
                self._take(now, piece.body, told=True)
            else:
                self._tally.metadata_refused += 1

    def _take(self, now: Now, value: bytes, told: bool) -> None:
        digest = digest_of(value)
        if digest in self._shelf:
            return
        if not (self._make_room(len(value)) and self._shelf.put(value)):
            return
        self._pulls.drop(digest)
        self._tally.metadata_taken += 1
        users = self._shelf.users(digest)
        for node in users:
            self._voice.tell(MetadataChanged(node, value))
        if told:
            self._offer(now, users[0], value)

    def _make_room(self, size: int) -> bool:
        """Whether a value fits, once what only the dead published is forgotten, if need be."""
        for node in () if self._shelf.fits(size) else self._shelf.nodes:
            row = self._members.get(node)
            if row is None or not row.is_live:
                self._note(node, b"")
        return self._shelf.fits(size)

    def answer(self, now: Now, ask: MetadataAsk, reply_to: Address) -> None:
        """Send what a peer asks for, as far as it is held and the budget allows, and say what is lacking."""
        items: list[bytes] = []
        lacking = []
        for digest in dict.fromkeys(ask.digests):
            value = self._shelf.value(digest)
            if value is not None and self._given.take(now.mono, len(value)):
                items += _pieces(digest, value)
            else:
                lacking.append(digest)
        self._tally.metadata_lacking += len(lacking)
        answer = MetadataAnswer(self._me, tuple(lacking))
        most = codec.DIGESTS_MAX * codec.RELIABLE_BYTES_MAX
        self._voice.say_bulk(reply_to, answer, items, most, by_link=True)

    def receive(
        self, now: Now, answer: MetadataAnswer, pieces: tuple[MetadataPiece, ...], excluding: tuple[str, ...]
    ) -> None:
        """Take what we have asked for; nobody of `excluding` is asked next."""
        for value in self._pulls.receive(now, answer, pieces, excluding):
            self._take(now, value, told=False)

    # Telling.

    def _offer(self, now: Now, node: str, value: bytes) -> None:
        """Let a small value go round, with the account that names it."""
        row = self._members.get(node)
        if not 0 < len(value) <= codec.PIECE_BYTES_MAX or self._options.observer or row is None:
            return
        if len(self._queue) >= WAITING_MAX:
            return
        (piece,) = _pieces(row.metadata_digest, value)
        account = self._voice.account(row)
        item = account + piece if len(account) + len(piece) <= ROOM_BYTES else piece
        self._queue.offer(row.metadata_digest.hex(), item, born_at=now.mono)
        if MetadataTimer.TELL not in self._agenda:
            wait_s = self._rng.uniform(0.0, self._options.gossip_period_s)
            self._agenda.set(MetadataTimer.TELL, now.mono + wait_s)

    def due(self, now: Now, key: MetadataTimer | WantKey | PullKey, excluding: tuple[str, ...]) -> None:
        """A deadline of ours has come; nothing is told to `excluding`, and nobody of them asked."""
        if isinstance(key, WantKey | PullKey):
            self._pulls.due(now, key, excluding)
            return
        often = sends_max(self._members.live, self._options.retransmit_factor)
        for peer in self._members.sample(self._options.gossip_fanout, excluding):
            items = self._queue.fill(ROOM_BYTES, often) if peer.protocol >= METADATA_SINCE else []
            if items:
                self._voice.say_bulk(peer.address, Gossip(self._me), items, codec.PACKET_BYTES_MAX, False)
        if self._queue and self._members.live > 1:
            self._agenda.set(MetadataTimer.TELL, now.mono + self._options.gossip_period_s)
        elif self._members.live <= 1:
            self._queue.clear()


def _pieces(digest: bytes, value: bytes) -> list[bytes]:
    """A value, cut and encoded."""
    step = codec.PIECE_BYTES_MAX
    parts = [(at, value[at : at + step]) for at in range(0, len(value), step)]
    return [codec.item(MetadataPiece(digest, len(value), at, body)) for at, body in parts]
