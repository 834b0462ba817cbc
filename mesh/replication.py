"""The replicated records of a node: written here, gossiped, compared, and forgotten in the end.

Theory of operation. A write is stamped (`mesh.hlc`), merged into the table (`mesh.records`) and
goes round by gossip: while there is news, a few members at random are sent some in a datagram,
each row a limited number of times. What gossip missed is found by comparing tables:

    every exchange period, to one member at random:    RecordDigest   (a datagram, 8 bytes of sum)
    if it differs, and our floor is not the higher:    RecordSums     (one sum for each of 256 buckets)
    for the buckets that differ:                       RecordHashes   (one hash for each row)
    what they lack, and what we want:                  RecordRows     (whole rows, in pages)

Each answer follows from one message and the table alone, so nothing is kept in between, any of
them may be lost, and a newcomer, whose table is empty, gets everything by the same path. Digests
are compared as a table with the higher of the two floors would have them; equal digests are an
agreement, at which floors rise (`mesh.horizon`).

Invariants:
- packets of their own within a byte budget of their own: membership's are never touched;
- only live members are heard and answered; whose claim is not sane, or has another history than
  ours, changes nothing;
- whatever comes is merged by rank; news of the far future is refused; all of it is counted.

Convergent, and no more: two nodes may read different values meanwhile, and of two writes at the
same time one is lost. What must happen once needs a lease, not a record.
"""

import enum
import random
from collections.abc import Iterable, Iterator
from typing import assert_never

import attrs

from mesh import records_wire, wire
from mesh.agenda import Agenda
from mesh.bucket import Bucket as TokenBucket
from mesh.codec import DATAGRAM_BYTES_MAX
from mesh.effects import Address, Effect, Report, SendDatagram, SendReliable
from mesh.errors import ClockError, DecodeError, RevokedError
from mesh.facts import Fact, RecordChanged
from mesh.gossip import Broadcasts, sends_max
from mesh.hlc import HybridClock, MeshTime, Stamp, is_ahead, milliseconds
from mesh.horizon import Horizon
from mesh.member import Liveness, Member
from mesh.now import Now
from mesh.records import FOREVER_MS, HASH_BYTES, Fate, Key, Merge, Record, Row, Table, epitaph
from mesh.records_wire import (
    PAGE_BYTES_MAX,
    ROWS_IN_MESSAGE_MAX,
    WANTED_MAX,
    Bucket,
    Claim,
    Message,
    RecordDigest,
    RecordHashes,
    RecordNews,
    RecordRows,
    RecordSums,
)
from mesh.replication_options import ReplicationOptions, ReplicationStatistics, Tally
from mesh.roster import Roster

HEADROOM_BYTES = 200
"""What a message takes beside its rows, at most: its head and claim, and three bytes for each of the 32
smallest rows that fit a datagram."""
NEWS_ROOM_BYTES = DATAGRAM_BYTES_MAX - HEADROOM_BYTES
ROW_OVERHEAD_BYTES = 3
"""What msgpack adds to a row."""
NEWS_MAX = 256
"""Rows that wait to be gossiped; more are left to the comparison of tables."""
PASSED_ON_MAX = 16
"""Rows got by comparing tables that are gossiped on: a few are news, many are a newcomer's first page."""
EMPTY_FACTOR = 6
"""How many times longer an empty table waits between two digests."""
PATIENCE = 2
"""Differing digests that are put down to gossip under way before one is answered."""


class Timer(enum.Enum):
    """Agenda keys: the next round of gossip, the next digest."""

    GOSSIP = "gossip"
    EXCHANGE = "exchange"


class Replication:
    """The records of one node. Inputs take `now` and return effects and facts in order."""

    def __init__(self, me: str, options: ReplicationOptions, rng: random.Random) -> None:
        self.table = Table(options.rows_max, options.bytes_max)
        self.horizon = Horizon(me, options.horizon)
        self._me = me
        self._options = options
        self._rng = rng
        self.clock = HybridClock(me)
        self._time = MeshTime()
        self._peers = Roster()
        self._agenda = Agenda()
        self._allowance = TokenBucket(options.bytes_per_s, options.burst_bytes)
        self._small = Broadcasts()
        self._large = Broadcasts()
        self._unheard: dict[Key, Row] = {}
        self._wait_s = options.exchange_period_s
        self._patience = PATIENCE
        self._tally = Tally()
        self._out: list[Effect | Fact] = []

    def __repr__(self) -> str:
        return f"<Replication of {self._me}: {self.table!r}>"

    # Reading.

    def get(self, namespace: str, id: str) -> Record | None:
        """The live record of a key as this node knows it, or None."""
        return self.table.get((namespace, id))

    def scan(self, namespace: str, prefix: str = "") -> Iterator[Record]:
        """Yield the live records of a namespace whose id begins with `prefix`, by id."""
        return self.table.scan(namespace, prefix)

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called, monotonic seconds; None while there is nobody to talk to."""
        return self._agenda.next_deadline()

    def statistics(self) -> ReplicationStatistics:
        """How things stand, and what happened since the beginning."""
        return ReplicationStatistics(
            rows=len(self.table),
            tombstones=self.table.tombstones,
            bytes=self.table.bytes,
            floor_ms=self.table.floor_ms,
            digest=self.table.digest().hex(),
            news=len(self._small) + len(self._large),
            **attrs.asdict(self._tally),
        )

    # Writing.

    def put(self, now: Now, namespace: str, id: str, value: bytes) -> list[Effect | Fact]:
        """Write a value.

        Raises, with nothing changed: LimitError (too large, or the table is full), RevokedError
        (the key was revoked for good), ClockError (this machine's clock is far off).
        """
        return self._write(now, (namespace, id), Fate.LIVE, value, 0)

    def delete(self, now: Now, namespace: str, id: str) -> list[Effect | Fact]:
        """Delete a key; nothing happens if it is not held. Raises ClockError."""
        if self.get(namespace, id) is None:
            return []
        return self._write(now, (namespace, id), Fate.DELETED, b"", 0)

    def revoke(self, now: Now, namespace: str, id: str, until_s: float) -> list[Effect | Fact]:
        """Delete a key for good, known here or not, and remember so until `until_s` at least.

        `until_s` is wall time in seconds: when what is revoked expires by itself, or infinity.
        Raises as `put` does.
        """
        held = self.table.row((namespace, id))
        keep_until_ms = FOREVER_MS if until_s == float("inf") else milliseconds(until_s)
        if held is not None and held.record.fate is Fate.REVOKED:
            keep_until_ms = max(keep_until_ms, held.record.keep_until_ms)
        return self._write(now, (namespace, id), Fate.REVOKED, b"", keep_until_ms)

    def _write(self, now: Now, key: Key, fate: Fate, value: bytes, keep_until_ms: int) -> list[Effect | Fact]:
        held = self.table.row(key)
        row = Row.of(Record(*key, self._stamp(now), value, fate, keep_until_ms))
        if held is not None and row.rank < held.rank:
            raise RevokedError(f"`{key[0]}/{key[1]:.64}` was revoked by node {held.record.author}")
        self.table.check_room(row)
        merge = self._take(now, row)
        assert merge is Merge.TAKEN, "a new stamp is above everything that was observed"
        self._offer(now, row)
        if not self._time.is_on_leash:
            self._unheard[key] = row
        if Timer.EXCHANGE not in self._agenda:
            self._agenda.set(Timer.EXCHANGE, now.mono + self._options.exchange_period_s)
        return self._taken()

    def _stamp(self, now: Now) -> Stamp:
        if self._time.is_far_ahead(now):
            raise ClockError(
                f"this machine's clock is {self._time.ahead_ms(now) / 1000:.0f} s ahead of the only other"
                " node's, which would refuse what is written now\n"
                "hint: set one of the two clocks right"
            )
        return self.clock.issue(self._time.physical_ms(now))

    # Members.

    def member_changed(self, now: Now, member: Member) -> None:
        """A member has come, changed or gone: who lives is talked to, who takes part has a say."""
        if member.node == self._me:
            return
        if member.is_live:
            self._came(now, member)
        else:
            self._peers.drop(member.node)
            self.horizon.went(member.node, now.mono, member.liveness is Liveness.LEFT)

    def _came(self, now: Now, member: Member) -> None:
        is_new = member.node not in self._peers
        self._peers.put(member.node, member.address)
        self.horizon.came(member.node, now.mono)
        if is_new and self._rng.random() * len(self._peers) < 1.0:
            self._wait_s = self._options.gossip_period_s
            self._agenda.set(Timer.EXCHANGE, now.mono + self._rng.uniform(0.0, self._wait_s))

    # Time.

    def tick(self, now: Now) -> list[Effect | Fact]:
        """Do what has come due."""
        for timer in self._agenda.due(now.mono):
            if timer is Timer.GOSSIP:
                self._gossip(now)
            else:
                self._exchange(now)
        return self._taken()

    def _gossip(self, now: Now) -> None:
        """Tell some members some news; set the next round while there is any."""
        for _node, address in self._peers.draw(self._rng, self._options.gossip_fanout):
            self._tell_news(now, address, self._small, NEWS_ROOM_BYTES, reliable=False)
        for _node, address in self._peers.draw(self._rng, 1):
            self._tell_news(now, address, self._large, PAGE_BYTES_MAX, reliable=True)
        if self._peers and (self._small or self._large):
            self._agenda.set(Timer.GOSSIP, now.mono + self._options.gossip_period_s)

    def _tell_news(
        self, now: Now, address: Address, queue: Broadcasts, room_bytes: int, reliable: bool
    ) -> None:
        often = sends_max(len(self._peers) + 1, self._options.retransmit_factor)
        left = int(self._allowance.fill(now.mono)) - HEADROOM_BYTES
        if rows := queue.fill(min(room_bytes, left), often):
            self._say(now, address, RecordNews(self._claim(now), tuple(rows)), reliable)

    def _exchange(self, now: Now) -> None:
        """Show our digest to one member, at doubling waits after somebody came; alone, claim for ourselves."""
        self.horizon.expire(now.mono)
        self._drop_the_future(now)
        if self.horizon.is_alone:
            physical_ms = self._time.physical_ms(now)
            self._raise_floor(self.horizon.claim_ms(physical_ms, physical_ms, now.mono))
        for _node, address in self._peers.draw(self._rng, 1):
            self._say(now, address, RecordDigest(self._claim(now), self.table.digest()))
        longest_s = self._options.exchange_period_s * (1 if len(self.table) else EMPTY_FACTOR)
        self._wait_s = min(2.0 * self._wait_s, longest_s)
        self._agenda.set(Timer.EXCHANGE, now.mono + self._wait_s * self._rng.uniform(0.75, 1.25))

    def _drop_the_future(self, now: Now) -> None:
        """Forget what was written before anybody was heard, if now we ourselves would refuse it.

        Only that: what others have taken stays, though all clocks of the mesh be set back.
        """
        if not self._time.is_on_leash:
            return
        physical_ms = self._time.physical_ms(now)
        ahead = [row for row in self._unheard.values() if is_ahead(row.record.stamp, physical_ms)]
        self._unheard.clear()
        for row in ahead:
            if self.table.row(row.record.key) is row:
                self.table.drop(row)
                self._out.append(RecordChanged(row.record, None))
        if ahead:
            self._out.append(Report("records_from_the_future", (("dropped", len(ahead)),)))

    # Messages.

    def receive(self, now: Now, data: bytes) -> list[Effect | Fact]:
        """Take a packet of records, from a datagram or from a gossip frame of a link. Total."""
        self._tally.packets_received += 1
        self._tally.bytes_received += len(data)
        try:
            message = records_wire.decode(data)
        except DecodeError:
            self._tally.decode_errors += 1
            return []
        if self._is_heard(now, message.claim):
            self._answer(now, message)
        return self._taken()

    def _is_heard(self, now: Now, claim: Claim) -> bool:
        tally, floor_ms = self._tally, self.table.floor_ms
        if claim.source not in self._peers:
            tally.strangers += 1
            return False
        self._time.heard(now, claim.source, claim.wall_ms)
        if not self.horizon.is_sane(claim.floor_ms, self._time.physical_ms(now)):
            tally.floors_refused += 1
            return False
        if self.horizon.is_foreign(floor_ms, claim.floor_ms, claim.founded_ms):
            tally.foreign += 1
            return False
        self.horizon.met(floor_ms, claim.floor_ms, claim.founded_ms)
        return True

    def _answer(self, now: Now, message: Message) -> None:
        match message:
            case RecordDigest():
                self._hear_digest(now, message)
            case RecordSums():
                self._hear_sums(now, message)
            case RecordHashes():
                self._hear_hashes(now, message)
            case RecordRows():
                self._hear_rows(now, message)
            case RecordNews():
                taken = self._merge_all(now, message.claim, message.rows)
                self._pass_on(now, taken)
            case _:
                assert_never(message)

    def _hear_digest(self, now: Now, message: RecordDigest) -> None:
        claim = message.claim
        at_ms = max(claim.floor_ms, self.table.floor_ms)
        if claim.floor_ms < at_ms:
            self._reply(now, claim, RecordDigest(self._claim(now), self.table.digest()), reliable=False)
        elif self.table.digest(at_ms) == message.digest:
            self._agree(now, claim)
        elif (self._small or self._large) and self._patience:
            self._patience -= 1
        else:
            self._patience = PATIENCE
            self._tally.exchanges += 1
            sums = records_wire.joined(self.table.sums(at_ms))
            self._reply(now, claim, RecordSums(self._claim(now), at_ms, sums))

    def _hear_sums(self, now: Now, message: RecordSums) -> None:
        at_ms = max(message.at_ms, self.table.floor_ms)
        theirs = records_wire.split(message.sums)
        differing = [bucket for bucket, mine in enumerate(self.table.sums(at_ms)) if mine != theirs[bucket]]
        if not differing:
            self._agree(now, message.claim)
            return
        buckets, room = [], PAGE_BYTES_MAX
        for bucket, hashes in self.table.hashes(frozenset(differing), at_ms).items():
            room -= HASH_BYTES * len(hashes)
            if buckets and room < 0:
                break
            buckets.append(Bucket(bucket, records_wire.joined(hashes[: PAGE_BYTES_MAX // HASH_BYTES])))
        self._reply(now, message.claim, RecordHashes(self._claim(now), at_ms, tuple(buckets)))

    def _hear_hashes(self, now: Now, message: RecordHashes) -> None:
        theirs = {each.bucket: records_wire.split(each.hashes) for each in message.buckets}
        mine = self.table.hashes(frozenset(theirs), message.at_ms)
        lacking = [hash_ for bucket in mine for hash_ in _without(mine[bucket], theirs[bucket])]
        wanted = [hash_ for bucket in mine for hash_ in _without(theirs[bucket], mine[bucket])]
        self._send_rows(now, message.claim, lacking, wanted)

    def _send_rows(self, now: Now, claim: Claim, hashes: list[int], wanted: list[int]) -> None:
        asked = records_wire.joined(wanted[:WANTED_MAX])
        rows: list[bytes] = []
        left = int(self._allowance.fill(now.mono)) - HEADROOM_BYTES
        room = min(PAGE_BYTES_MAX, left - len(asked))
        for hash_ in hashes[:ROWS_IN_MESSAGE_MAX]:
            row = self.table.by_hash(hash_)
            room -= len(row.blob) + ROW_OVERHEAD_BYTES if row is not None else 0
            if rows and room < 0:
                break
            if row is not None:
                rows.append(row.blob)
        more = len(rows) < len(hashes) or len(wanted) > WANTED_MAX
        if rows or asked:
            self._reply(now, claim, RecordRows(self._claim(now), tuple(rows), asked, more))

    def _hear_rows(self, now: Now, message: RecordRows) -> None:
        taken = self._merge_all(now, message.claim, message.rows, compared=True)
        if len(taken) <= PASSED_ON_MAX:
            self._pass_on(now, taken)
        if message.wanted:
            self._send_rows(now, message.claim, records_wire.split(message.wanted), [])
        if message.more and taken:
            self._reply(now, message.claim, RecordDigest(self._claim(now), self.table.digest()))

    # Merging.

    def _merge_all(self, now: Now, claim: Claim, blobs: Iterable[bytes], compared: bool = False) -> list[Row]:
        """Merge what a peer sent; tell it of what it holds that was deleted. Returns what was taken.

        If tables were `compared`, a row that is older than ours is answered with ours, a tombstone
        below the peer's floor: it was left out of the comparison.
        """
        taken, answers = [], []
        for blob in blobs:
            try:
                row = Row.read(blob)
            except DecodeError:
                self._tally.rows_unread += 1
                continue
            merge = self._take(now, row)
            if merge is Merge.TAKEN:
                taken.append(row)
            elif merge is Merge.BELOW:
                answers.append(wire.pack(epitaph(row.record.key, self.table.floor_ms)))
            elif merge is Merge.OLD and compared:
                answers.append(self.table.row(row.record.key).blob)
        self._tally.rows_taken += len(taken)
        if answers:
            self._reply(now, claim, RecordRows(self._claim(now), tuple(answers)))
        return taken

    def _take(self, now: Now, row: Row) -> Merge | None:
        record, before = row.record, self.table.row(row.record.key)
        if not self.clock.observe(record.stamp, self._time.physical_ms(now)):
            self._tally.rows_ahead += 1
            return None
        merge = self.table.merge(row)
        if merge is Merge.TAKEN:
            self.horizon.saw(record.stamp.wall_ms)
            self._out.append(RecordChanged(before.record if before is not None else None, record))
            self._tally.rows_lost += record.is_epitaph and before is not None and before.record.is_live
        self._tally.rows_below += merge is Merge.BELOW
        self._tally.rows_full += merge is Merge.FULL
        return merge

    def _pass_on(self, now: Now, rows: list[Row]) -> None:
        for row in rows:
            self._offer(now, row)

    def _offer(self, now: Now, row: Row) -> None:
        """Let a row go round by gossip, if there is anybody to tell and room in the queue."""
        name = "\0".join(row.record.key)
        fits = len(row.blob) <= NEWS_ROOM_BYTES
        queue, other = (self._small, self._large) if fits else (self._large, self._small)
        other.discard(name)
        if self._peers and (name in queue or len(queue) < NEWS_MAX):
            queue.offer(name, row.blob)
            if Timer.GOSSIP not in self._agenda:
                self._agenda.set(Timer.GOSSIP, now.mono)

    # Agreement.

    def _agree(self, now: Now, claim: Claim) -> None:
        """A peer holds what we hold: its floor is ours, and both may rise."""
        self._tally.agreements += 1
        self._patience = PATIENCE
        physical_ms = self._time.physical_ms(now)
        self._raise_floor(max(claim.floor_ms, self.horizon.claim_ms(physical_ms, claim.wall_ms, now.mono)))

    def _raise_floor(self, floor_ms: int) -> None:
        self._tally.collected += self.table.raise_floor(floor_ms)

    # Saying.

    def _claim(self, now: Now) -> Claim:
        return Claim(self._me, milliseconds(now.wall), self.table.floor_ms, self.horizon.founded_ms)

    def _reply(self, now: Now, claim: Claim, message: Message, reliable: bool = True) -> None:
        self._say(now, self._peers.address(claim.source), message, reliable)

    def _say(self, now: Now, address: Address, message: Message, reliable: bool = False) -> None:
        data = records_wire.encode(message)
        if not self._allowance.take(now.mono, len(data)):
            self._tally.put_off += 1
            return
        self._tally.packets_sent += 1
        self._tally.bytes_sent += len(data)
        self._out.append((SendReliable if reliable else SendDatagram)(address, data))

    def _taken(self) -> list[Effect | Fact]:
        out, self._out = self._out, []
        return out


def _without(some: list[int], others: list[int]) -> list[int]:
    known = dict.fromkeys(others)
    return [each for each in some if each not in known]
