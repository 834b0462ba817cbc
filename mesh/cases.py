"""The open cases of a node: who is suspect here, since when, on whose word, and how its last look stands.

A case (`mesh.suspicion`) is opened when its subject becomes suspect, and closed when it is anything else; its
deadline shrinks with each accuser. An inquest (`mesh.inquest`) is the last look before a death, begun so long before
the deadline as it takes. When each happens is decided in `mesh.beliefs`.

Invariants:
- a case has a deadline in the agenda exactly while no inquest stands about it, or while one waits for an echo;
- a deadline is never set in the past, which would look like a pause of this process.
"""

import attrs

from mesh.agenda import Agenda
from mesh.detector import Detector
from mesh.identity import Identity
from mesh.inquest import Inquest
from mesh.load import LoadTable
from mesh.members import Members
from mesh.now import Now
from mesh.suspicion import Suspicion, suspicion_min_s
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally


@attrs.frozen
class CaseKey:
    """Agenda key: a suspect runs out of time."""

    node: str


class Cases:
    """Suspicions and inquests by node; at most as many as there are live members."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        detector: Detector,
        loads: LoadTable,
        agenda: Agenda,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._detector = detector
        self._loads = loads
        self._agenda = agenda
        self._tally = tally
        self._suspicions: dict[str, Suspicion] = {}
        self.inquests: dict[str, Inquest] = {}
        """The last looks that are under way."""

    def __contains__(self, node: str) -> bool:
        return node in self._suspicions

    def __getitem__(self, node: str) -> Suspicion:
        return self._suspicions[node]

    @property
    def suspects(self) -> tuple[str, ...]:
        """Ids of who has an open case, in the order in which they were opened."""
        return tuple(self._suspicions)

    def get(self, node: str) -> Suspicion | None:
        """The open case of `node`, or None."""
        return self._suspicions.get(node)

    def open(self, now: Now, suspect: Identity, accusers: tuple[str, ...]) -> None:
        """A member has become suspect, by the word of `accusers`, this node perhaps."""
        options = self._options
        live = self._members.live
        min_s = suspicion_min_s(live, options.probe_period_s, options.suspicion_factor)
        max_s = min_s * options.suspicion_max_factor
        if options.loss_scaling:
            min_s *= self._detector.loss.stretch
            max_s = max(min_s, max_s)
        expected = max(0, min(options.confirmations, live - 2))
        self._tally.suspicions += 1
        reason = "our round failed" if self._me in accusers else "accused by others"
        self._detector.note(now, suspect.node, "suspect", reason, accusers)
        self.keep(now, Suspicion(suspect, now.mono, min_s, max_s, expected).confirmed_by(accusers))

    def keep(self, now: Now, case: Suspicion) -> None:
        """Take a case as it now stands; time that has run out already runs out now."""
        node = case.identity.node
        self._suspicions[node] = case
        if node not in self.inquests:
            self._agenda.set(CaseKey(node), max(now.mono, case.deadline_at - self.look_s(node)))

    def confirm(self, node: str, accuser: str) -> tuple[str, ...]:
        """Add one more accuser to a case that is about to end; return all of them."""
        case = self._suspicions[node] = self._suspicions[node].confirmed_by((accuser,))
        return case.accusers

    def close(self, node: str) -> None:
        """Its subject is no suspect any more, or one of another incarnation."""
        self.inquests.pop(node, None)
        if self._suspicions.pop(node, None) is not None:
            self._agenda.cancel(CaseKey(node))

    def forgive(self, now: Now, gap_s: float) -> None:
        """This process was away for `gap_s`: looks begin anew, and nobody loses time by it."""
        self.inquests.clear()
        for case in tuple(self._suspicions.values()):
            self.keep(now, case.shifted(gap_s))

    def look_s(self, node: str) -> float:
        """Seconds that a last look at `node` takes: so long before its deadline it begins."""
        if not self._options.two_verdicts:
            return 0.0
        asks = self._detector.loss.look_asks if self._options.loss_scaling else 1
        look_s = self._detector.verdict_s(node, self._loads.lag_s(node), asks)
        return look_s / self._detector.health.multiplier
