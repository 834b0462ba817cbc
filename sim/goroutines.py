"""memberlist under Lifeguard's anomaly: what a goroutine does that is blocked in a send.

The paper's anomaly (arXiv 1707.00788, section V-C) blocks an agent's goroutines just before they send and
just after they receive. The loops that probe and that gossip stop where they are, and go on from there when
the block ends; suspicion timers, which only write to memory, run on. A single-threaded core behaves
otherwise: its timers all run, or none. To reproduce the paper's figures, this core keeps its deadlines in an
agenda that can hold back all but the suspicion timers:

    hold      the loops stop
    release   each loop does the one thing in which it was stuck, as late as it is. A probe round whose ping
              was stuck for longer than the round may last has failed at once, as in memberlist, where the
              deadline of a round counts from before the send; the ticker has one more tick pending

Nothing here is for production: a node of ours that cannot send is in the other anomaly (`Crowd.block`).
"""

from collections.abc import Hashable
from random import Random

import attrs

from mesh.agenda import Agenda
from mesh.cases import CaseKey
from mesh.effects import Effect
from mesh.facts import Fact
from mesh.member import Member
from mesh.now import Now
from mesh.roll import NOBODY, Roll
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from mesh.turns import PeriodTimer

CATCH_UP_TICKS = 6
"""A stuck round: its timeout and its verdict; the tick that was pending; a gossip round or two."""


@attrs.define
class LoopAgenda(Agenda):
    """An agenda whose loops can be held while suspicion timers run on."""

    _held: dict[Hashable, float] | None = attrs.field(default=None, init=False)

    def __contains__(self, key: Hashable) -> bool:
        return self.at(key) is not None

    def set(self, key: Hashable, at: float) -> None:
        """As `Agenda.set`; a loop waits for the release."""
        if self._held is not None and not isinstance(key, CaseKey):
            self._held[key] = at
        else:
            Agenda.set(self, key, at)

    def cancel(self, key: Hashable) -> None:
        """As `Agenda.cancel`."""
        if self._held is not None:
            self._held.pop(key, None)
        Agenda.cancel(self, key)

    def at(self, key: Hashable) -> float | None:
        """As `Agenda.at`."""
        held = self._held.get(key) if self._held is not None else None
        return held if held is not None else Agenda.at(self, key)

    def hold(self) -> None:
        """Stop the loops."""
        assert self._held is None, "held once"
        loops = {key: entry for key, entry in self._live.items() if not isinstance(key, CaseKey)}
        self._held = {key: loops[key][0] for key in sorted(loops, key=loops.__getitem__)}
        for key in self._held:
            Agenda.cancel(self, key)

    def release(self) -> None:
        """Let the loops go on, with the deadlines that they had."""
        held, self._held = self._held or {}, None
        for key in sorted(held, key=held.__getitem__):
            Agenda.set(self, key, held[key])


class Goroutines(Swim):
    """A core whose loops can be stuck. For `SwimOptions.plain_swim` and its relatives."""

    def __init__(self, options: SwimOptions, me: Member, rng: Random, known: Roll = NOBODY) -> None:
        self._loops = LoopAgenda()
        super().__init__(options, me, rng, known, self._loops)
        self._was_probing = False

    def hold(self, now: Now) -> list[Effect | Fact]:
        """A send blocks."""
        self._was_probing = bool(self._detector.open_rounds)
        self._loops.hold()
        return []

    def release(self, now: Now) -> list[Effect | Fact]:
        """The send returns."""
        self._loops.release()
        self._begin_the_stuck_round(now)
        outputs = self._voice.take()
        for _ in range(CATCH_UP_TICKS):
            deadline = self.next_deadline()
            if deadline is None or deadline > now.mono:
                break
            outputs += self.tick(now)
        self._voice.gossip_due(now, ())
        return [*outputs, *self._voice.take()]

    def _begin_the_stuck_round(self, now: Now) -> None:
        """Start the round whose ping was stuck at the moment at which its ticker fired."""
        due_at = self._loops.at(PeriodTimer.PERIOD)
        if due_at is not None and due_at < now.mono and not self._was_probing:
            self._loops.cancel(PeriodTimer.PERIOD)
            self._turns.due(Now(due_at, now.wall - (now.mono - due_at)), PeriodTimer.PERIOD)
