"""How missing values are fetched: a few peers asked at once, each for what it may hold, until all is there.

Theory of operation. A want is a digest that somebody publishes and that is not held:

    state     moved by                                             to        what the owner does
    (none)    an account publishes it                              WAITING   a short wait, at random
    WAITING   the wait is over                                     READY
    READY     fewer than PULLS_MAX pulls, and bytes in the budget  ASKED     ask a peer for it, over the link
    ASKED     its pieces have come, and their digest is right      (none)    keep it
    ASKED     they are wrong; it lacks it; PULL_S has passed       WAITING   a wait, doubling after some; then another
    any       nobody alive publishes it any more                   (none)

Whom to ask. A single change is known to its subject first, so it is asked first, and then one time in SUBJECT_EVERY;
the other times anybody. What is learned in bulk (a join, a healed partition) others hold already: first who told it,
for as many values at once as make BATCH_BYTES, then the subject. A peer that has spent its own budget says that it
lacks the value, and the asker soon tries another; since each who has it can give it, copies multiply: 64 KiB of one
member reach 256 nodes in 1.8 s, of which the subject sends 1.3 MB; with turns between it and others, and waits that
doubled at once, it took 22 s and 7.8 MB.

Bounds: PULLS_MAX peers asked at once, each for values of about BATCH_BYTES by their publishers' word and of
`METADATA_BYTES_MAX` each in any case; what was claimed is taken from the budget of bytes when it is asked for, what
came beyond it afterwards. One want per digest, so at most one per member. Pieces that nobody was asked for are ignored,
so a liar can waste its own pulls, and nobody else's.
"""

import random
from collections.abc import Callable, Iterator

import attrs

from mesh import codec
from mesh.agenda import Agenda
from mesh.bucket import Bucket
from mesh.detector import Say
from mesh.member import Member
from mesh.members import Members
from mesh.messages import MetadataAnswer, MetadataAsk, MetadataPiece
from mesh.now import Now
from mesh.shelf import Shelf, digest_of
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.voice import Voice

METADATA_SINCE = 3
"""The first wire protocol whose speakers answer `MetadataAsk`."""
PULLS_MAX = 4
"""Peers asked at once: 4 * (BATCH_BYTES + METADATA_BYTES_MAX) bytes under way at most, 512 KiB."""
BATCH_BYTES = 64 * 1024
"""Values asked of one peer at once have so many bytes together, or one is larger."""
PULL_S = 10.0
"""So long a peer has to send all that it was asked for."""
RETRY_MIN_S = 0.25
"""Wait before a value is asked for again, jittered by half either way."""
QUICK_TRIES = 8
"""So often; then the wait doubles each time. A peer that lacks a value says so in some 100 bytes."""
SUBJECT_EVERY = 4
"""One try in so many goes to the subject, who always holds its value, but cannot serve everybody."""
RETRY_MAX_S = 60.0
BUDGET_MIN_S = 0.02
"""Least wait for room in the budget, so that rounding never makes it none."""
SCAN_MAX = 256
"""Wants looked at for one batch."""


@attrs.frozen
class WantKey:
    """Agenda key: a value may be asked for (again)."""

    digest: bytes


@attrs.frozen
class PullKey:
    """Agenda key: a peer has not sent all in time."""

    node: str


ASK = PullKey("")
"""Agenda key: all that comes due at one instant is ready, or there is room in the budget again."""


@attrs.define
class _Want:
    size: int
    """Bytes, by the first publisher's word."""
    teller: str
    """Who told of it in bulk; empty if it is the news of one member."""
    attempts: int = 0

    @property
    def is_subjects_turn(self) -> bool:
        """Whether the next try goes to the subject: the first, or the second if somebody else told of it in bulk."""
        return self.attempts % SUBJECT_EVERY == bool(self.teller)


@attrs.define
class _Pull:
    missing: dict[bytes, dict[int, bytes]]
    """By digest, the pieces that have come, by offset."""


class Pulls:
    """Wants and pulls. What arrives is checked here and kept by the owner."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        shelf: Shelf,
        make_room: Callable[[int], bool],
        voice: Voice,
        agenda: Agenda,
        rng: random.Random,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._shelf = shelf
        self._make_room = make_room
        self._voice = voice
        self._agenda = agenda
        self._rng = rng
        self._tally = tally
        rate = options.metadata_bytes_per_s
        self._budget = Bucket(rate, burst=max(rate, codec.METADATA_BYTES_MAX), debt_max=rate)
        self._wants: dict[bytes, _Want] = {}
        self._ready: dict[bytes, None] = {}
        self._open: dict[str, _Pull] = {}

    def __len__(self) -> int:
        return len(self._wants)

    @property
    def open(self) -> int:
        """How many peers are being asked."""
        return len(self._open)

    def want(self, now: Now, digest: bytes, size: int, teller: str, wait_s: float) -> None:
        """Somebody publishes a value that is not held: ask for it, in up to `wait_s` seconds from now.

        Args:
            now: the time.
            digest: of the value, 16 bytes.
            size: bytes that its publisher claims.
            teller: who told of it among many others, and so holds it probably; empty for a single piece of news.
            wait_s: longest wait, half of it at least; all that was told in bulk waits equally long.

        """
        if digest not in self._wants:
            self._wants[digest] = _Want(size, teller)
            wait_s *= 1.0 if teller else self._rng.uniform(0.5, 1.0)
            self._agenda.set(WantKey(digest), now.mono + wait_s)

    def drop(self, digest: bytes) -> None:
        """It is held, or nobody publishes it any more."""
        if self._wants.pop(digest, None) is not None:
            self._agenda.cancel(WantKey(digest))
            self._ready.pop(digest, None)

    def due(self, now: Now, key: WantKey | PullKey, excluding: tuple[str, ...]) -> None:
        """A deadline of ours has come; nobody of `excluding` is asked."""
        if isinstance(key, WantKey):
            self._ready[key.digest] = None
            if ASK not in self._agenda:
                self._agenda.set(ASK, now.mono)
            return
        if key != ASK:
            self._end(now, key.node)
        self._ask(now, excluding)

    def receive(
        self, now: Now, answer: MetadataAnswer, pieces: tuple[MetadataPiece, ...], excluding: tuple[str, ...]
    ) -> list[bytes]:
        """Take what a peer sent that was asked. Returns the values that are whole, and whose digest is right."""
        pull = self._open.get(answer.source)
        if pull is None:
            self._tally.metadata_refused += len(pieces)
            return []
        for digest in answer.lacking:
            if pull.missing.pop(digest, None) is not None:
                self._retry(now, digest)
        values = [value for piece in pieces if (value := self._add(now, pull, piece)) is not None]
        if not pull.missing:
            self._end(now, answer.source)
            self._ask(now, excluding)
        return values

    # One pull.

    def _add(self, now: Now, pull: _Pull, piece: MetadataPiece) -> bytes | None:
        parts = pull.missing.get(piece.digest)
        if parts is None or piece.offset in parts:
            self._tally.metadata_refused += 1
            return None
        parts[piece.offset] = piece.body
        if piece.body and sum(map(len, parts.values())) < piece.size:
            return None
        value = b"".join(parts[offset] for offset in sorted(parts))
        del pull.missing[piece.digest]
        want = self._wants.get(piece.digest)
        if want is not None:
            self._budget.spend(max(0, len(value) - want.size))
        if digest_of(value) != piece.digest:
            self._tally.metadata_refused += 1
            self._retry(now, piece.digest)
            return None
        return value

    def _end(self, now: Now, node: str) -> None:
        """Ask others for what this peer has not sent."""
        self._agenda.cancel(PullKey(node))
        for digest in self._open.pop(node).missing:
            self._retry(now, digest)

    def _retry(self, now: Now, digest: bytes) -> None:
        want = self._wants.get(digest)
        if want is None:
            return
        want.attempts += 1
        doublings = max(0, min(want.attempts - QUICK_TRIES, 16))
        wait_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0**doublings) * self._rng.uniform(0.5, 1.5)
        self._tally.metadata_retries += 1
        self._agenda.set(WantKey(digest), now.mono + wait_s)

    # Whom to ask for what.

    def _ask(self, now: Now, excluding: tuple[str, ...]) -> None:
        """Open as many pulls as bounds allow."""
        for digest in tuple(self._ready)[:SCAN_MAX]:
            if len(self._open) >= PULLS_MAX:
                return
            if digest in self._ready and not self._ask_for(now, digest, excluding):
                return

    def _ask_for(self, now: Now, digest: bytes, excluding: tuple[str, ...]) -> bool:
        """Ask somebody for this value, and for others that it may hold. Returns False if the budget is spent."""
        want = self._wants[digest]
        if not self._make_room(want.size):
            self._tally.metadata_unheld += 1
            self._put_off(now, digest)
            return True
        subject = self._subject(digest)
        if subject is None:
            self.drop(digest)
            return True
        peer = self._peer(want, subject, excluding)
        if peer is None:
            self._put_off(now, digest)
            return True
        lacks = want.size - self._budget.fill(now.mono)
        if lacks > 0:
            wait_s = max(BUDGET_MIN_S, lacks / self._options.metadata_bytes_per_s)
            self._agenda.set(ASK, now.mono + wait_s)
            return False
        batch = [digest] if peer is subject else list(self._batch(digest, want))
        self._pull(now, peer, batch)
        return True

    def _put_off(self, now: Now, digest: bytes) -> None:
        del self._ready[digest]
        self._retry(now, digest)

    def _subject(self, digest: bytes) -> Member | None:
        """Somebody alive who publishes it."""
        rows = (self._members.get(node) for node in self._shelf.users(digest))
        return next((row for row in rows if row is not None and row.is_live and row.node != self._me), None)

    def _peer(self, want: _Want, subject: Member, excluding: tuple[str, ...]) -> Member | None:
        """Whom to ask this time; None if nobody can be asked now."""
        teller = self._members.get(want.teller) if not want.attempts else None
        if teller is not None and self._may_ask(teller, excluding):
            return teller
        if want.is_subjects_turn and self._may_ask(subject, excluding):
            return subject
        others = self._members.sample(PULLS_MAX + 1, excluding)
        return next((row for row in (*others, subject) if self._may_ask(row, excluding)), None)

    def _may_ask(self, row: Member, excluding: tuple[str, ...]) -> bool:
        is_free = row.node not in self._open and row.node not in excluding and row.node != self._me
        return row.is_live and row.protocol >= METADATA_SINCE and is_free

    def _batch(self, first: bytes, want: _Want) -> Iterator[bytes]:
        """What else to ask the same peer for: what the same one told of, or any that is asked of anybody."""
        yield first
        room, count = BATCH_BYTES - want.size, 1
        for digest in tuple(self._ready)[:SCAN_MAX]:
            other = self._wants[digest]
            alike = other.teller == want.teller and not other.is_subjects_turn
            if digest != first and alike and other.size <= room and count < codec.DIGESTS_MAX:
                room, count = room - other.size, count + 1
                yield digest

    def _pull(self, now: Now, peer: Member, digests: list[bytes]) -> None:
        for digest in digests:
            del self._ready[digest]
            self._budget.spend(self._wants[digest].size)
        self._open[peer.node] = _Pull({digest: {} for digest in digests})
        self._agenda.set(PullKey(peer.node), now.mono + PULL_S)
        self._tally.metadata_asks += 1
        ask = MetadataAsk(self._me, tuple(digests))
        self._voice.say(now, Say(peer.address, ask, peer.node, reliable=True))
