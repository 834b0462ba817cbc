"""The open cases of a node: who is in doubt here, since when, on whose word, and how its last look stands.

A case (`mesh.suspicion`) is opened when somebody accuses its subject, and closed when that turns out to live; its
deadline shrinks with each accuser. An inquest (`mesh.inquest`) is the last look before a death, begun so long before
the deadline as it takes. When each happens is decided in `mesh.beliefs`.

A case is proven when a round of our own has failed and enough others say the same of theirs (`witnesses`). Until then
it is a doubt: its subject is alive in the table, is told nothing, and one answer of it ends the matter.

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


def witnesses_needed(options: SwimOptions, live: int) -> int:
    """How many must accuse one of `live` members before it is suspect; 0: the first word makes it so."""
    if options.observer or not options.two_verdicts:
        return 0
    return min(options.witnesses, options.confirmations + 1, max(1, live - 1))


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
        """Ids of those who have an open case, in the order in which they were opened."""
        return tuple(self._suspicions)

    def get(self, node: str) -> Suspicion | None:
        """The open case of `node`, or None."""
        return self._suspicions.get(node)

    def accuse(self, now: Now, suspect: Identity, accusers: tuple[str, ...], age_s: float = 0.0) -> bool:
        """Open a case by the word of `accusers`, this node perhaps, or add them to it. Returns whether that is news.

        `age_s` is how long ago it was first said.
        """
        case = self._suspicions.get(suspect.node)
        if case is None or case.identity != suspect:
            self.close(suspect.node)
            self._open(now, suspect, accusers, now.mono - age_s)
            return True
        ours = case.ours or self._me in accusers
        if ours == case.ours and case.names(accusers):
            return False
        confirmed = attrs.evolve(case.confirmed_by(accusers), ours=ours)
        if confirmed == case:
            return False
        if ours and not case.ours:
            self._detector.note(now, suspect.node, "suspect", "our round failed", confirmed.accusers)
        self.keep(now, confirmed)
        return True

    def is_open(self, identity: Identity) -> bool:
        """Whether there is a case against this very incarnation."""
        case = self._suspicions.get(identity.node)
        return case is not None and case.identity == identity

    def is_proven(self, node: str) -> bool:
        """Whether enough have seen the subject of an open case fail, this node among them."""
        case = self._suspicions[node]
        return case.ours and len(case.accusers) >= witnesses_needed(self._options, self._members.live)

    def _open(self, now: Now, suspect: Identity, accusers: tuple[str, ...], born_at: float) -> None:
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
        case = Suspicion(suspect, now.mono, min_s, max_s, expected, (), born_at, self._me in accusers)
        self.keep(now, case.confirmed_by(accusers))

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
        """Its subject is in doubt no more, or has another incarnation."""
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
