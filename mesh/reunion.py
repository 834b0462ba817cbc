"""How a node finds the mesh, and how halves of a mesh find each other again.

Theory of operation. Three loops, the first two of which never give up:

    join     seeds are asked, with doubling and jittered waits, until one sends a snapshot
    heal     one remembered dead member is pinged, and one seed that is no live member, or in quarantine, is
             asked to let us in, at a rate that costs the whole mesh the same whatever its size: a member
             that was only cut off answers, and refutes (the ping says that it is held dead)
    muster   a dead member is back in the same life: so it had only been cut off, and perhaps the other
             dead had too. Each live member pings those dead whose turn is its own rank, so that all are
             asked within a moment, once each, and can speak up for themselves before tables are merged

Bounds: JOIN_FANOUT seeds per attempt; one ping and one Join per heal; MUSTER_PINGS per muster, and a muster
per `reconcile_period_s`, while dead members keep coming back.
"""

import enum
import random
from collections.abc import Iterable
from typing import assert_never

from mesh.agenda import Agenda
from mesh.detector import Say
from mesh.effects import Address
from mesh.member import Member
from mesh.members import Members
from mesh.messages import Join, Ping
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.voice import Voice

JOIN_FANOUT = 3
"""Seeds asked per attempt: one answer is enough, and a list of dead seeds is walked quickly."""
HEAL_SHARE = 8
"""Up to so many live members each heal at the full rate; beyond, they share the work."""

HEAL_RECENT = 64
"""Half of the heals try one of the last so many to have died: those may well have been cut off together."""
MUSTER_PINGS = 16
"""Dead members that one node pings in one muster: enough for a sixteenth of a mesh to find the rest."""


class ReunionTimer(enum.Enum):
    """Agenda keys: the next attempt to join, to heal, and to muster."""

    JOIN = "join"
    HEAL = "heal"
    MUSTER = "muster"


class Reunion:
    """Seeds, heals and musters."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        voice: Voice,
        agenda: Agenda,
        rng: random.Random,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._voice = voice
        self._agenda = agenda
        self._rng = rng
        self._seeds: tuple[Address, ...] = ()
        self._attempts = 0
        self._musters = 0

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
            self._ask_seeds(now)

    def due(self, now: Now, timer: ReunionTimer, lost: Iterable[str] = ()) -> None:
        """A timer of ours has come due; `lost` are the members that we have in quarantine."""
        match timer:
            case ReunionTimer.JOIN:
                self._ask_seeds(now)
            case ReunionTimer.HEAL:
                self._heal(now, frozenset(lost))
            case ReunionTimer.MUSTER:
                self._muster(now)
            case _:
                assert_never(timer)

    def _ask_seeds(self, now: Now) -> None:
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

    def _heal(self, now: Now, lost: frozenset[str]) -> None:
        """Ping one of the dead and ask one absent seed: either answers if it was only cut off.

        Where a member does not answer, another node may have its address by now, and know nothing of us.
        """
        share = max(1.0, self._members.live / HEAL_SHARE)
        wait_s = self._options.heal_period_s * share * self._rng.uniform(0.75, 1.25)
        self._agenda.set(ReunionTimer.HEAL, now.mono + wait_s)
        for gone in self._members.forget(now.mono - self._options.remember_gone_s):
            self._voice.hush(gone.node)
        dead = self._members.dead()
        if dead:
            recent = dead[-HEAL_RECENT:] if self._rng.random() < 0.5 else dead
            self._ping(now, self._rng.choice(recent))
        absent = self._absent_seeds(lost)
        if absent and ReunionTimer.JOIN not in self._agenda:
            self._ask(now, self._rng.choice(absent))

    def met(self, now: Now) -> bool:
        """A dead member is back in the same life. Returns whether there are others to look for."""
        if not self._members.dead():
            return False
        if ReunionTimer.MUSTER not in self._agenda:
            wait_s = self._options.reconcile_period_s if self._musters else 0.0
            self._agenda.set(ReunionTimer.MUSTER, now.mono + wait_s)
        return True

    def _muster(self, now: Now) -> None:
        """Ping our share of the dead."""
        dead = sorted(self._members.dead(), key=lambda row: row.node)
        turn = (self._members.rank + self._musters) % self._members.live
        self._musters += 1
        for row in dead[turn :: self._members.live][:MUSTER_PINGS]:
            self._ping(now, row)

    def _ping(self, now: Now, member: Member) -> None:
        ping = Ping(self._me, self._rng.getrandbits(48), member.node)
        self._voice.say(now, Say(member.address, ping, member.node))

    def _ask(self, now: Now, seed: Address) -> None:
        me = self._members.get(self._me)
        assert me is not None, "a table always holds its owner"
        self._voice.say_rows(now, seed, Join(self._me), () if self._options.observer else (me,))

    def _absent_seeds(self, lost: frozenset[str]) -> list[Address]:
        present = [row.address for row in self._members.all() if row.is_live and row.node not in lost]
        return [seed for seed in self._seeds if seed not in present]
