"""How a node finds the mesh, how halves find each other again, and how tables are compared.

Theory of operation. Three loops, none of which ever gives up:

    join   seeds are asked, with doubling and jittered waits, until one sends a snapshot
    heal   one remembered dead member is pinged, and one seed that is no live member is asked to
           let us in, at a rate that costs the whole mesh the same whatever its size: a member
           that was only cut off answers, refutes (the ping says that it is held dead), and the
           tables follow
    sync   each ack brings its sender's view digest (`Members.digest`). One that differs is
           watched; if it still differs after the time that gossip needs, whole tables are compared

              (none)    -- digest differs -->              WATCHED
              WATCHED   -- digest equal -->                (none)
              WATCHED   -- spread bound, then a ping -->   RECHECKED
              RECHECKED -- digest differs: send Sync -->   (none)
              RECHECKED -- digest equal, or no answer -->  (none)

Bounds: JOIN_FANOUT seeds per attempt; one ping and one Join per heal; `sync_armed_max` watched.
"""

import enum
import math
import random
from collections.abc import Iterable

import attrs

from mesh.agenda import Agenda
from mesh.detector import Say
from mesh.effects import Address
from mesh.member import Member, supersedes
from mesh.members import Members
from mesh.messages import Ack, Join, Packet, Ping, Sync
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.voice import Voice

JOIN_FANOUT = 3
"""Seeds asked per attempt: one answer is enough, and a list of dead seeds is walked quickly."""
HEAL_SHARE = 8
"""Up to so many live members each heal at the full rate; beyond, they share the work."""


class ReunionTimer(enum.Enum):
    """Agenda keys: the next attempt to join, and to heal."""

    JOIN = "join"
    HEAL = "heal"


@attrs.frozen
class SyncKey:
    """Agenda key: a watched digest is looked at again, or its watch ends."""

    node: str


class _Watch(enum.Enum):
    WATCHED = "watched"
    RECHECKED = "rechecked"


class Reunion:
    """Seeds, heals and watched digests."""

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
        self._seeds: tuple[Address, ...] = ()
        self._attempts = 0
        self._watches: dict[str, _Watch] = {}

    def begin(self, now: Now) -> None:
        """Arm the healing loop, at a random phase."""
        wait_s = self._rng.uniform(0.0, self._options.heal_period_s)
        self._agenda.set(ReunionTimer.HEAL, now.mono + wait_s)

    def join(self, now: Now, seeds: Iterable[Address]) -> None:
        """Ask these seeds from now on, instead of any before."""
        self._seeds = tuple(dict.fromkeys(seeds))
        self._attempts = 0
        self._agenda.cancel(ReunionTimer.JOIN)
        if self._seeds:
            self.join_due(now)

    def join_due(self, now: Now) -> None:
        """Ask some seeds, and set the next attempt."""
        options = self._options
        wait_s = min(options.join_retry_max_s, options.join_retry_min_s * 2.0 ** min(self._attempts, 32))
        wait_s *= self._rng.uniform(0.5, 1.5)
        self._attempts += 1
        self._agenda.set(ReunionTimer.JOIN, now.mono + wait_s)
        seeds = self._rng.sample(self._seeds, min(JOIN_FANOUT, len(self._seeds)))
        event = "joining" if self._attempts == 1 else "no_seed_answers"
        named = ",".join(f"{host}:{port}" for host, port in self._seeds[:JOIN_FANOUT])
        self._voice.report(event, attempt=self._attempts, seeds=named, retry_s=round(wait_s, 3))
        for seed in seeds:
            self._ask(now, seed)

    def joined(self, source: str) -> None:
        """A snapshot came: the seeds need not be asked again soon."""
        if ReunionTimer.JOIN in self._agenda:
            self._agenda.cancel(ReunionTimer.JOIN)
            live = self._members.live
            self._voice.report("joined", through=source, members=live, attempts=self._attempts)

    def heal_due(self, now: Now) -> None:
        """Ping one of the dead and ask one absent seed: either answers if it was only cut off."""
        share = max(1.0, self._members.live / HEAL_SHARE)
        wait_s = self._options.heal_period_s * share * self._rng.uniform(0.75, 1.25)
        self._agenda.set(ReunionTimer.HEAL, now.mono + wait_s)
        for gone in self._members.forget(now.mono - self._options.remember_gone_s):
            self._voice.hush(gone.node)
        dead = self._members.dead()
        if dead:
            member = self._rng.choice(dead)
            ping = Ping(self._me, self._rng.getrandbits(48), member.node)
            self._voice.say(now, Say(member.address, ping, member.node))
        absent = self._absent_seeds()
        if absent and ReunionTimer.JOIN not in self._agenda:
            self._ask(now, self._rng.choice(absent))

    def compare(self, now: Now, ack: Ack) -> None:
        """An ack to one of our rounds brought its sender's view digest."""
        row = self._members.get(ack.source)
        watch = self._watches.get(ack.source)
        if row is None or not row.is_live or ack.digest == self._members.digest():
            self._unwatch(ack.source)
        elif watch is _Watch.RECHECKED:
            self._unwatch(ack.source)
            self._tally.syncs += 1
            self._voice.say_rows(now, row.address, Sync(self._me, True), self._members.all())
        elif watch is None and len(self._watches) < self._options.sync_armed_max:
            self._watches[ack.source] = _Watch.WATCHED
            self._agenda.set(SyncKey(ack.source), now.mono + self._spread_bound_s())

    def sync_due(self, now: Now, node: str) -> bool:
        """The spread bound has passed. Returns whether `node` is to be probed, for its digest."""
        if self._watches[node] is _Watch.RECHECKED:
            self._unwatch(node)
            return False
        self._watches[node] = _Watch.RECHECKED
        self._agenda.set(SyncKey(node), now.mono + self._spread_bound_s())
        return True

    def answer(self, now: Now, sync: Sync, packet: Packet, address: Address) -> None:
        """Another's whole table has been merged: send back what it does not have."""
        if not sync.answer_wanted:
            return
        theirs = {update.member.node: update.member for update in packet.updates}
        news = [row for row in self._members.all() if _is_news(row, theirs.get(row.node))]
        self._voice.say_rows(now, address, Sync(self._me, False), news)

    def _ask(self, now: Now, seed: Address) -> None:
        me = self._members.get(self._me)
        assert me is not None, "a table always holds its owner"
        self._voice.say_rows(now, seed, Join(self._me), (me,))

    def _absent_seeds(self) -> list[Address]:
        present = [row.address for row in self._members.all() if row.is_live]
        return [seed for seed in self._seeds if seed not in present]

    def _spread_bound_s(self) -> float:
        periods = self._options.sync_periods * max(1.0, math.log10(max(1, self._members.live)))
        return periods * self._options.probe_period_s

    def _unwatch(self, node: str) -> None:
        if self._watches.pop(node, None) is not None:
            self._agenda.cancel(SyncKey(node))


def _is_news(mine: Member, theirs: Member | None) -> bool:
    return theirs is None or supersedes(mine, theirs)
