"""What this node believes of the others, and when it changes its mind.

Theory of operation. The lattice (`mesh.member`) merges accounts; around it stand the rules
about doubt:

    from     to       moved by
    (none)   ALIVE    its account arrived: join, snapshot, sync, rumour
    ALIVE    SUSPECT  our round failed; or somebody accuses it, and we probe it ourselves at once;
                      or somebody says that it is dead while we still trust it: it is "condemned"
    SUSPECT  ALIVE    its own account with a higher incarnation
    SUSPECT  DEAD     it is quarantined here, and the suspicion timeout passes or somebody says so;
                      or it is condemned, and a round of ours fails
    any      LEFT     its own goodbye
    DEAD     ALIVE    its own account with a higher incarnation: a healed partition, or a new life

Invariants:
- nobody is dead here on hearsay: each death needs a failed round, or a lost link, of our own,
  so the merge of two halves of a mesh kills nobody. Whom we have never met is the exception:
  it is remembered as dead, pinged now and then, and free to refute;
- nobody is declared dead while we hear nobody at all (meshes of two apart, which wait for the
  longest timeout): we are then the likelier one to be cut off;
- an open case (`mesh.suspicion`) exists exactly for each suspect, on its present incarnation.
"""

from collections.abc import Iterable
from typing import assert_never

import attrs

from mesh.agenda import Agenda
from mesh.detector import Detector, Finding, RoundAnswered, RoundFailed, Say
from mesh.facts import MemberChanged, Quarantined, QuarantineLifted
from mesh.identity import Identity
from mesh.load import LoadTable
from mesh.member import Liveness, Member, supersedes
from mesh.members import Change, Members
from mesh.messages import Update
from mesh.now import Now
from mesh.suspicion import Suspicion, suspicion_min_s
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.views import Views
from mesh.voice import Voice


@attrs.frozen
class CaseKey:
    """Agenda key: a suspect runs out of time."""

    node: str


class Beliefs:
    """Accounts of the others, open cases, and what the detector's findings do to them."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        cases: dict[str, Suspicion],
        detector: Detector,
        loads: LoadTable,
        voice: Voice,
        views: Views,
        agenda: Agenda,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._cases = cases
        self._condemned: dict[str, Identity] = {}
        self._detector = detector
        self._loads = loads
        self._voice = voice
        self._views = views
        self._agenda = agenda
        self._tally = tally

    def live_peer(self, node: str) -> Member | None:
        """The account of `node` if it is alive or suspect, and not ourselves."""
        row = self._members.get(node)
        return row if row is not None and row.is_live and node != self._me else None

    def probe(self, now: Now, node: str) -> None:
        """Begin a round with a live peer, unless one is open."""
        row = self.live_peer(node)
        if row is None:
            return
        self.weigh(now, self._detector.start(now, row, self._loads.lag_s(node)))

    def probe_suspects(self, now: Now) -> None:
        """Begin a round with everybody who is suspect."""
        for node in tuple(self._cases):
            self.probe(now, node)

    def weigh(self, now: Now, findings: Iterable[Finding]) -> None:
        """Act on what the detector found, in order."""
        for finding in findings:
            match finding:
                case Say():
                    self._voice.say(now, finding)
                case RoundFailed():
                    self._round_failed(now, finding.target)
                case RoundAnswered():
                    self._condemned.pop(finding.target.node, None)
                case Quarantined():
                    self._tally.quarantines += 1
                    self._voice.tell(finding)
                case QuarantineLifted():
                    self._voice.tell(finding)
                case _:
                    assert_never(finding)

    def learn(self, now: Now, update: Update) -> None:
        """Merge an account of another node that somebody sent."""
        new = update.member
        assert new.node != self._me, "only we give an account of ourselves"
        if new.liveness is Liveness.SUSPECT:
            self._accuse(now, new, update.accusers)
        elif new.liveness is Liveness.DEAD and self._options.two_verdicts and self._trusts(new):
            self._accuse(now, attrs.evolve(new, liveness=Liveness.SUSPECT), update.accusers)
            self._condemned[new.node] = new.identity
            self.probe(now, new.node)
        else:
            self._apply(now, new)

    def case_due(self, now: Now, node: str) -> None:
        """The suspect is out of time: it dies if we cannot reach it either, else it gets as long again."""
        row = self.live_peer(node)
        assert row is not None, "a case is closed when its member goes"
        sure = not self._options.two_verdicts or self._detector.is_quarantined(node)
        if sure and not self._is_deaf(now):
            self._bury(now, row)
            return
        self._keep_case(attrs.evolve(self._cases[node], started_at=now.mono))
        self._condemned[node] = row.identity
        self.probe(now, node)

    def forgive(self, gap_s: float) -> None:
        """This process was away for `gap_s`; the agenda has been shifted by as much."""
        for node, case in tuple(self._cases.items()):
            self._cases[node] = case.shifted(gap_s)

    def _trusts(self, dead: Member) -> bool:
        """Whether we, by our own lights, hold alive whom somebody now says to be dead."""
        row = self.live_peer(dead.node)
        return row is not None and supersedes(dead, row) and not self._detector.is_quarantined(dead.node)

    def _is_deaf(self, now: Now) -> bool:
        if self._members.live <= 2:
            return False
        heard_at = self._detector.heard_anybody_at
        return heard_at is None or now.mono - heard_at > self._options.silence_s

    def _round_failed(self, now: Now, target: Identity) -> None:
        row = self.live_peer(target.node)
        assert row is not None and row.identity.generation == target.generation, "rounds end with their life"
        if self._condemned.get(row.node) == row.identity and not self._is_deaf(now):
            self._cases[row.node] = self._cases[row.node].confirmed_by((self._me,))
            self._bury(now, row)
        else:
            self._accuse(now, attrs.evolve(row, liveness=Liveness.SUSPECT), (self._me,))

    def _bury(self, now: Now, row: Member) -> None:
        accusers = ",".join(self._cases[row.node].accusers)
        self._tally.deaths += 1
        self._voice.report("member_dead", node=row.node, name=row.name, accusers=accusers)
        self._apply(now, attrs.evolve(row, liveness=Liveness.DEAD))

    def _accuse(self, now: Now, suspect: Member, accusers: tuple[str, ...]) -> None:
        """Take an accusation, ours or another's: open a case, or confirm the one that is open."""
        if self._apply(now, suspect, accusers):
            return
        case = self._cases.get(suspect.node)
        if case is None or case.identity != suspect.identity:
            return
        confirmed = case.confirmed_by(accusers)
        if confirmed != case:
            self._keep_case(confirmed)
            self._voice.spread(now, suspect)

    def _apply(self, now: Now, new: Member, accusers: tuple[str, ...] = ()) -> bool:
        change = self._members.apply(new, now.mono)
        if change is not None:
            self._changed(now, change, accusers)
        return change is not None

    def _changed(self, now: Now, change: Change, accusers: tuple[str, ...]) -> None:
        before, after = change.before, change.after
        self._voice.tell(MemberChanged(before, after))
        self._views.note(now, before, after)
        self._close_case(after.node)
        if not after.is_live:
            self._detector.forget(after.node)
            self._loads.forget(after.node)
        elif before is not None and before.identity.generation != after.identity.generation:
            self._detector.renew(after.node)
            self._loads.forget(after.node)
        if after.liveness is Liveness.SUSPECT:
            self._open_case(now, after.identity, accusers)
        self._voice.spread(now, after)
        doubtful = after.liveness is Liveness.SUSPECT or self._detector.is_quarantined(after.node)
        if doubtful and self._options.two_verdicts and self._me not in accusers:
            self.probe(now, after.node)

    def _open_case(self, now: Now, suspect: Identity, accusers: tuple[str, ...]) -> None:
        options = self._options
        live = self._members.live
        min_s = suspicion_min_s(live, options.probe_period_s, options.suspicion_factor)
        max_s = min_s * options.suspicion_max_factor
        expected = max(0, min(options.confirmations, live - 2))
        self._tally.suspicions += 1
        self._keep_case(Suspicion(suspect, now.mono, min_s, max_s, expected).confirmed_by(accusers))

    def _keep_case(self, case: Suspicion) -> None:
        self._cases[case.identity.node] = case
        self._agenda.set(CaseKey(case.identity.node), case.deadline_at)

    def _close_case(self, node: str) -> None:
        self._condemned.pop(node, None)
        if self._cases.pop(node, None) is not None:
            self._agenda.cancel(CaseKey(node))
