"""How tables are brought to agree: when two are compared, how fast, and at what price.

Theory of operation. What is compared, and how, is `mesh.ranges`; this is when and with whom.

    calm      each ack brings its sender's view digest. One that differs is watched; if it still may
              differ after the time that gossip needs, one exchange is opened with that peer:

                  (none)   -- digest differs -->                         WATCHED
                  WATCHED  -- digest equal, or an exchange opened -->    (none)
                  WATCHED  -- spread bound: open an exchange -->         (none)
                  WATCHED  -- spread bound, peer of protocol 1: ping --> ASKED
                  ASKED    -- digest differs: send Sync -->              (none)

    hurried   there is more to learn than gossip can carry: we have just joined, halves have met, rumours
              pile up, or an exchange moved many rows. An exchange is opened with some peer each
              `reconcile_period_s`, which spreads n rows to n nodes in about log3(n) periods, at little more
              than one copy each. Calm again after AGREED_ENOUGH equal digests in a row, or HURRY_MAX exchanges;
              for a spread bound after its cause, one digest that differs brings it back, with that peer first.

Accounts learned from an exchange are spread as rumours only when they are few. An account that we hold to be
dead, and the other holds alive, is a dispute: we ask the subject, who answers with a higher
incarnation; only if it lets `DISPUTE_S` pass do we tell the other, who then looks for itself. An observer,
whom nobody knows and whose view moves nobody's, is told at once.

Bounds: `reconcile_bytes_per_s` of exchanges and snapshots in each second, with one second's worth in
reserve; whoever gets less than it lacks asks somebody else. DISPUTES_MAX disputes per packet.
"""

import enum
import math
import random

import attrs

from mesh import codec, ranges
from mesh.agenda import Agenda
from mesh.bucket import Bucket
from mesh.detector import Say
from mesh.effects import Address
from mesh.member import Liveness, Member, supersedes
from mesh.members import Members
from mesh.messages import Ack, Packet, Ping, Reconcile, Snapshot, Sync
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.voice import Voice

RANGES_SINCE = 2
"""The first wire protocol whose speakers know Reconcile; others get Sync."""
AGREED_ENOUGH = 2
"""So many equal digests in a row mean that what was to be learned has been learned."""
HURRY_MAX = 64
"""Exchanges opened in one hurry: what time does not settle is left to the watches."""
MANY_ROWS = 32
"""An exchange that moves more means that gossip is behind: hurry. Fewer are spread as rumours too."""
HINT_ROWS = 8
"""Members named to a joiner for whom there is no budget: it asks one of those."""
DISPUTES_MAX = 16
"""Disputes taken up per packet; the others come back with the next exchange."""
DISPUTES_KEPT = 256
DISPUTE_S = 2.0
"""So long a disputed member has to answer us before we tell the other that it is dead."""
PREFERRED_MAX = 4
ASKED_MAX = 32
"""Peers asked at once by who waits for agreement."""
WAITING_S = 2.0
"""Who has not asked for so long has ceased to wait."""


class PaceTimer(enum.Enum):
    """Agenda key: the next exchange of a hurry."""

    PACE = "pace"


@attrs.frozen
class SyncKey:
    """Agenda key: a watched digest has differed for the spread bound, or a watch ends."""

    node: str


class _Watch(enum.Enum):
    WATCHED = "watched"
    ASKED = "asked"


class Reconciler:
    """Watched digests, the hurry, exchanges, snapshots."""

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
        rate = options.reconcile_bytes_per_s
        self._budget = Bucket(rate, burst=rate, debt_max=rate)
        self._watches: dict[str, _Watch] = {}
        self._preferred: list[str] = []
        self._agreed = 0
        self._exchanges = 0
        self._alert_until = 0.0
        self._disputes: dict[str, float] = {}
        self._said: dict[str, bytes] | None = None
        """By peer, the digest of ours that it said to share; None while nobody waits for agreement."""
        self._asked_at = 0.0

    def due(self, now: Now, key: SyncKey | PaceTimer, excluding: tuple[str, ...]) -> str | None:
        """A deadline of ours has come. Returns whom to probe for its digest, if anybody."""
        if isinstance(key, SyncKey):
            return key.node if self._watch_due(now, key.node) else None
        self._pace(now, excluding)
        return None

    # Agreement.

    def ask_unlike(self, now: Now) -> list[str]:
        """Ids of the live peers who have not said since the first question that they share our present view.

        Up to ASKED_MAX of them, drawn at random, are asked. To be called again and again by who waits.
        """
        if self._said is None or now.mono - self._asked_at > WAITING_S:
            self._said = {}
        self._asked_at = now.mono
        digest = self._members.digest()
        live = (row for row in self._members.all() if row.is_live and row.node != self._me)
        unlike = [row for row in live if self._said.get(row.node) != digest]
        for row in self._rng.sample(unlike, min(ASKED_MAX, len(unlike))):
            self._open(now, row)
        return [row.node for row in unlike]

    def _shares(self, now: Now, node: str) -> None:
        """A peer has said that it holds our present view."""
        if self._said is not None:
            if now.mono - self._asked_at > WAITING_S:
                self._said = None
            else:
                self._said[node] = self._members.digest()
        self._agree()

    # Calm.

    def compare(self, now: Now, ack: Ack) -> None:
        """An ack to one of our rounds brought its sender's view digest."""
        row = self._members.get(ack.source)
        if row is None or not row.is_live or ack.digest == self._members.digest():
            self._unwatch(ack.source)
            if row is not None and ack.digest == self._members.digest():
                self._shares(now, ack.source)
        elif self._watches.get(ack.source) is _Watch.ASKED:
            self._unwatch(ack.source)
            self._sync(now, row)
        elif now.mono < self._alert_until:
            self._hurry(now, ack.source)
        elif self._may_watch(ack.source):
            self._watches[ack.source] = _Watch.WATCHED
            self._agenda.set(SyncKey(ack.source), now.mono + self._spread_bound_s())

    def _watch_due(self, now: Now, node: str) -> bool:
        """The spread bound has passed. Returns whether `node` is to be probed, for its digest."""
        row = self._members.get(node)
        asked = self._watches[node] is _Watch.ASKED
        if row is None or not row.is_live or asked:
            self._unwatch(node)
        elif row.protocol < RANGES_SINCE:
            self._watches[node] = _Watch.ASKED
            self._agenda.set(SyncKey(node), now.mono + self._spread_bound_s())
            return True
        else:
            for watched in tuple(self._watches):
                self._unwatch(watched)
            self._open(now, row)
        return False

    def _may_watch(self, node: str) -> bool:
        hurried = PaceTimer.PACE in self._agenda
        return not hurried and node not in self._watches and len(self._watches) < self._options.sync_armed_max

    def _unwatch(self, node: str) -> None:
        if self._watches.pop(node, None) is not None:
            self._agenda.cancel(SyncKey(node))

    def _spread_bound_s(self) -> float:
        periods = self._options.sync_periods * max(1.0, math.log10(max(1, self._members.live)))
        return periods * self._options.probe_period_s

    # Hurried.

    def urge(self, now: Now, preferred: str = "") -> None:
        """There is more to learn than gossip can carry; `preferred` is who surely knows."""
        self._alert_until = now.mono + self._spread_bound_s()
        self._hurry(now, preferred)

    def _hurry(self, now: Now, preferred: str) -> None:
        self._agreed = self._exchanges = 0
        if preferred and len(self._preferred) < PREFERRED_MAX:
            self._preferred.append(preferred)
        if PaceTimer.PACE not in self._agenda:
            wait_s = self._rng.uniform(0.0, self._options.reconcile_period_s)
            self._agenda.set(PaceTimer.PACE, now.mono + wait_s)
        self._voice.hurried = True

    def _pace(self, now: Now, excluding: tuple[str, ...]) -> None:
        """Open the next exchange of a hurry, with a peer outside `excluding`, unless it is time to be calm."""
        peer = self._next_peer(excluding)
        if self._exchanges >= HURRY_MAX or peer is None:
            self._voice.hurried = False
            return
        self._exchanges += 1
        wait_s = self._options.reconcile_period_s * self._rng.uniform(0.75, 1.25)
        self._agenda.set(PaceTimer.PACE, now.mono + wait_s)
        self._open(now, peer)

    def _next_peer(self, excluding: tuple[str, ...]) -> Member | None:
        while self._preferred:
            row = self._members.get(self._preferred.pop())
            if row is not None and row.is_live and row.node not in excluding:
                return row
        return next(iter(self._members.sample(1, excluding)), None)

    def _agree(self) -> None:
        self._agreed += 1
        if self._agreed >= AGREED_ENOUGH and PaceTimer.PACE in self._agenda:
            self._agenda.cancel(PaceTimer.PACE)
            self._voice.hurried = False

    # Exchanges.

    def receive(self, now: Now, step: Reconcile, packet: Packet, address: Address, reliable: bool) -> None:
        """Take one step of an exchange, whose accounts have been merged, and answer it."""
        if step.depth > ranges.DEPTH_MAX:
            self._tally.misplaced += 1
        elif not packet.spans and not packet.updates:
            self._shares(now, step.source)
        else:
            self._answer(now, step, packet, address, reliable)

    def _answer(self, now: Now, step: Reconcile, packet: Packet, address: Address, reliable: bool) -> None:
        answer = ranges.answer(self._members, packet.spans, step.salt)
        if self._options.observer:
            answer = attrs.evolve(answer, rows=tuple(map(_undoubted, answer.rows)))
        told = [] if self._options.observer else self._disputed(now, packet)
        if max(len(answer.rows), len(packet.updates)) > MANY_ROWS:
            self.urge(now)
        if step.depth == 0 and not answer.spans:
            self._shares(now, step.source)
        elif not answer.spans and not answer.rows and not told:
            return
        self._tally.rows_reconciled += len(answer.rows) + len(told)
        row = self._members.get(step.source)
        by_link = reliable or (row is not None and row.is_live)
        reply = Reconcile(self._me, step.salt, step.depth + 1)
        rows = list(answer.rows)
        self._rng.shuffle(rows)
        items = [*map(codec.item, answer.spans), *map(self._voice.account, (*told, *rows))]
        self._send(now, address, reply, items, by_link)

    def _open(self, now: Now, peer: Member) -> None:
        if peer.protocol < RANGES_SINCE:
            self._sync(now, peer)
            return
        self._tally.syncs += 1
        opening = codec.item(ranges.opening(self._members))
        message = Reconcile(self._me, self._rng.getrandbits(64), 0)
        self._send(now, peer.address, message, [opening], by_link=False)

    def _send(
        self, now: Now, address: Address, message: Reconcile | Snapshot, items: list[bytes], by_link: bool
    ) -> None:
        left = self._budget.fill(now.mono)
        sent = self._voice.say_bulk(address, message, items, max(0, int(left)), by_link)
        self._tally.reconciles_capped += sent == 0
        self._budget.spend(sent)

    def _disputed(self, now: Now, packet: Packet) -> list[Member]:
        """Look at what the other holds alive and we do not. Returns what it must be told."""
        told: list[Member] = []
        is_stranger = self._members.get(packet.message.source) is None
        rows = (self._members.get(update.member.node) for update in packet.updates)
        for mine, update in zip(rows, packet.updates, strict=True):
            if mine is None or mine.is_live or not supersedes(mine, update.member):
                continue
            if len(told) >= DISPUTES_MAX:
                break
            if is_stranger or mine.liveness is Liveness.LEFT or self._is_unanswered(now, mine):
                told.append(mine)
        return told

    def _is_unanswered(self, now: Now, dead: Member) -> bool:
        """Whether a disputed member has let its time pass; at first, it is asked."""
        asked_at = self._disputes.get(dead.node)
        if asked_at is not None and now.mono - asked_at >= DISPUTE_S:
            del self._disputes[dead.node]
            return True
        if asked_at is None:
            if len(self._disputes) >= DISPUTES_KEPT:
                del self._disputes[next(iter(self._disputes))]
            self._disputes[dead.node] = now.mono
            ping = Ping(self._me, self._rng.getrandbits(48), dead.node)
            self._voice.say(now, Say(dead.address, ping, dead.node))
        return False

    # Whole tables.

    def welcome(self, now: Now, joiner: str, address: Address) -> None:
        """Answer a Join: with all that we know if the budget allows, else with whom to ask."""
        message = Snapshot(self._me)
        me = self._members.get(self._me)
        assert me is not None, "a table always holds its owner"
        mine = self._voice.account(me)
        left = self._budget.fill(now.mono)
        if left >= len(self._members) * len(mine):
            rows = [row for row in self._members.all() if row.node not in (self._me, joiner)]
            self._rng.shuffle(rows)
            rows.sort(key=lambda row: not row.is_live)
            items = [mine, *map(self._voice.account, rows), *self._voice.load_items(now)]
        else:
            hints = self._members.sample(HINT_ROWS, (joiner,))
            items = [mine, *map(self._voice.account, hints)]
            self._tally.reconciles_capped += 1
        sent = self._voice.say_bulk(address, message, items, codec.RELIABLE_BYTES_MAX, by_link=True)
        self._budget.spend(sent)

    def _sync(self, now: Now, peer: Member) -> None:
        """Compare whole tables, as protocol 1 does."""
        self._tally.syncs += 1
        self._voice.say_rows(now, peer.address, Sync(self._me, True), self._members.all())

    def answer_sync(self, now: Now, sync: Sync, packet: Packet, address: Address) -> None:
        """Another's whole table has been merged: send back what it does not have."""
        if not sync.answer_wanted:
            return
        theirs = {update.member.node: update.member for update in packet.updates}
        news = [row for row in self._members.all() if _is_news(row, theirs.get(row.node))]
        self._voice.say_rows(now, address, Sync(self._me, False), news)


def is_bulk(packet: Packet) -> bool:
    """Whether the accounts of a packet are too many, or too old, to be spread as rumours."""
    message = packet.message
    if isinstance(message, Snapshot):
        return True
    return isinstance(message, Sync | Reconcile) and len(packet.updates) > MANY_ROWS


def _undoubted(row: Member) -> Member:
    """What the member itself has said."""
    return attrs.evolve(row, liveness=Liveness.ALIVE)


def _is_news(mine: Member, theirs: Member | None) -> bool:
    return theirs is None or supersedes(mine, theirs)
