"""When this node probes: its own turn in each period, and the quarantined over and over."""

import enum
import random

from mesh.agenda import Agenda
from mesh.beliefs import Beliefs
from mesh.detector import Detector
from mesh.now import Now
from mesh.rota import Rota
from mesh.swim_options import SwimOptions


class PeriodTimer(enum.Enum):
    """Agenda keys: our next turn to probe, and to ask one of the quarantined again."""

    PERIOD = "period"
    AGAIN = "again"


class Turns:
    """The two timers, and what is done when they come due."""

    def __init__(
        self,
        options: SwimOptions,
        rota: Rota,
        detector: Detector,
        beliefs: Beliefs,
        agenda: Agenda,
        rng: random.Random,
    ) -> None:
        self._options = options
        self._rota = rota
        self._detector = detector
        self._beliefs = beliefs
        self._agenda = agenda
        self._rng = rng

    def begin(self, now: Now) -> None:
        """Arm the timers, at a random phase."""
        wait_s = self._rng.uniform(0.0, self._options.probe_period_s)
        self._agenda.set(PeriodTimer.PERIOD, now.mono + wait_s)

    def hasten(self, now: Now) -> None:
        """Take the next turn at once."""
        self._agenda.set(PeriodTimer.PERIOD, now.mono)

    def due(self, now: Now, key: PeriodTimer) -> None:
        """A timer of ours has come due."""
        (self._period if key is PeriodTimer.PERIOD else self._again)(now)

    def _period(self, now: Now) -> None:
        """Probe whose turn it is."""
        target, wait_s = self._rota.turn(now, self._detector.health.multiplier)
        self._agenda.set(PeriodTimer.PERIOD, now.mono + wait_s)
        if target is not None:
            self._beliefs.probe(now, target.node, regular=True)
        if PeriodTimer.AGAIN not in self._agenda:
            self._again(now)

    def _again(self, now: Now) -> None:
        """Probe one of the quarantined each period, so that it is soon trusted again; turns come unevenly."""
        if self._detector.quarantined:
            period_s = self._options.probe_period_s * self._detector.health.multiplier
            self._agenda.set(PeriodTimer.AGAIN, now.mono + period_s)
            self._beliefs.probe(now, self._rng.choice(self._detector.quarantined))
