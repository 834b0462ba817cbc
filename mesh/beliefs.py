"""What this node believes of the others, and when it changes its mind.

Theory of operation. The lattice (`mesh.member`) merges accounts; around it stand the rules
about doubt:

    from     to       moved by
    (none)   ALIVE    its account arrived: join, snapshot, sync, rumour
    ALIVE    SUSPECT  a round of ours has failed, while others answer us, and enough others say the same of theirs
    SUSPECT  ALIVE    its own account with a higher incarnation
    live     DEAD     the suspicion timeout passes, and the last look (`mesh.inquest`) finds it silent;
                      or it is quarantined here, unheard of late, and somebody says so
    any      LEFT     its own goodbye, from itself
    live     LEFT     its goodbye, told by another, and our look at it fails (`mesh.goodbye`)
    DEAD     LEFT     its goodbye, told by another: there is nobody to look at
    DEAD     ALIVE    its own account with a higher incarnation: a healed partition, or a new life

A case is opened by the first accusation, ours or another's, and its time runs from then on; until it is proven it is a
doubt (`mesh.cases`), in which the member is alive in the table:

    we hear that                                        and
    somebody accuses it (`mesh.hearsay` lets it in)     probe it at once
    our ping is late                                    pass the accusation on, DOUBT_SENDS times
    it answers, or a helper, or sends anything          the case is closed, the rumour forgotten: nobody else need know
    our round has failed                                accuse it ourselves
    somebody says that it is dead                       look at it at once

Invariants:
- nobody is dead here on hearsay: each death needs a failed round, or a lost link, of our own,
  so the merge of two halves of a mesh kills nobody. Whom we have never met is the exception:
  it is remembered as dead, pinged now and then, and free to refute;
- nobody has left here on hearsay either: a goodbye that another tells is believed, and passed on, after a failed
  look of our own. An operator's word that somebody is to be forgotten is such hearsay too;
- nobody is declared dead by a node that does not, at that moment, send and hear (meshes of two
  apart, which wait for the longest timeout);
- who hears nobody at all for `alone_s` is alone, as far as it can know: it holds its suspects dead, tells
  nobody, and asks them again at the healing rate. Were it the one cut off, no rumour of it does harm;
- each suspect has an open case (`mesh.cases`), and each case is against the present incarnation of a live member;
- what is passed on of others' accusations is only what we cannot refute: a lone broken accuser moves no table.

All of this is with `two_verdicts`. Without it the law is SWIM's: a timeout kills, and so does a rumour.
"""

import math
from collections.abc import Iterable
from typing import assert_never

import attrs

from mesh.agenda import Agenda
from mesh.cases import CaseKey, Cases, witnesses_needed
from mesh.detector import Detector, Echoed, Finding, RoundAnswered, RoundFailed, RoundLate, Say
from mesh.effects import Address
from mesh.facts import MemberChanged, Quarantined, QuarantineLifted
from mesh.goodbye import Goodbyes
from mesh.hearing import Hearing
from mesh.hearsay import Hearsay
from mesh.inquest import Inquest, Stage
from mesh.load import LoadTable
from mesh.member import Liveness, Member, supersedes
from mesh.members import Change, Members
from mesh.messages import Update
from mesh.now import Now
from mesh.probe import HELD_MAX
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.views import Views
from mesh.voice import Voice

CONTROLS = 3
"""Others who are pinged after a look, where nothing is lost; 1 / (1 - loss) times as many where it is."""
DOUBT_SENDS = 6
"""A doubt is told so often by each who cannot reach its subject: enough to go round, little where nobody else does."""
DEAF_PERIODS = 2.0
"""How long who is deaf waits before looking again, or noticing that it is alone; others wait a verdict."""


class Beliefs:
    """Accounts of the others, open cases, and what the detector's findings do to them."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        cases: Cases,
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
        self._hearing = Hearing(options, members, detector)
        self._hearsay = Hearsay(me, options, members, detector, cases, tally)
        self._goodbyes = Goodbyes()
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

    @property
    def doubted(self) -> tuple[str, ...]:
        """Ids of those against whom a case is open."""
        return self._cases.suspects

    def probe(self, now: Now, node: str, regular: bool = False) -> None:
        """Begin a round with a live peer, unless one is open. `regular`: it came up in turn."""
        row = self.live_peer(node)
        if row is not None:
            self.weigh(now, self._detector.start(now, row, self._loads.lag_s(node), regular=regular))

    def lost_input(self, now: Now) -> None:
        """Our own machine has dropped what was sent to us: who is about to be judged may have answered."""
        if not self._options.two_verdicts:
            return
        self._detector.lost_input(now)
        for node, inquest in tuple(self._cases.inquests.items()):
            row = self.live_peer(node)
            if row is not None and inquest.stage is Stage.HEAR and inquest.held < HELD_MAX:
                self._cases.inquests[node] = inquest.held_on(now.mono)
                self._agenda.cancel(CaseKey(node))
                self._ask_well(now, row)
        for node in self._goodbyes.hold_on(now.mono):
            if (row := self.live_peer(node)) is not None:
                self._ask_well(now, row)

    def probe_suspects(self, now: Now) -> None:
        """Begin a round with everybody who is suspect."""
        for node in self._cases.suspects:
            self.probe(now, node)

    def weigh(self, now: Now, findings: Iterable[Finding]) -> None:
        """Act on what the detector found, in order."""
        for finding in findings:
            match finding:
                case Say():
                    self._voice.say(now, finding)
                case RoundFailed():
                    self._round_failed(now, finding)
                case RoundLate():
                    self._late(now, finding.target.node)
                case RoundAnswered():
                    self._reprieve(now, finding.target.node, finding.answered)
                case Echoed():
                    self._can_hear(now, finding.sent_at)
                case Quarantined():
                    self._tally.quarantines += 1
                    self._voice.tell(finding)
                case QuarantineLifted():
                    self._voice.tell(finding)
                case _:
                    assert_never(finding)

    def learn(self, now: Now, update: Update, told_by: tuple[str, Address]) -> None:
        """Merge an account of another node that somebody sent: who, and from where."""
        new = update.member
        assert new.node != self._me, "only we give an account of ourselves"
        if new.liveness is Liveness.SUSPECT:
            if self._hearsay.admits(now, update, self._voice.age_s):
                self._accuse(now, new, self._hearsay.others(update))
        elif new.liveness is Liveness.DEAD and self._judges and self._trusts(now, new):
            self._accuse(now, attrs.evolve(new, liveness=Liveness.SUSPECT), self._hearsay.others(update))
            if new.node not in self._cases.inquests:
                self._look(now, new.node)
        elif new.liveness is Liveness.LEFT and self._is_hearsay(new, told_by):
            self._hear_goodbye(now, new)
        else:
            case = self._cases.get(new.node)
            if self._apply(now, new) and new.liveness is Liveness.DEAD:
                accusers = case.accusers if case is not None else update.accusers
                self._detector.note(now, new.node, "dead", "others say so", accusers)

    def dismiss(self, now: Now, gone: Member) -> None:
        """An operator has a member forgotten: at once if it is gone, after a failed look if it seems to live."""
        if self._is_hearsay(gone):
            self._hear_goodbye(now, gone, ours=True)
        elif self._apply(now, gone):
            self._voice.report("forgotten", node=gone.node, name=gone.name)

    @property
    def _judges(self) -> bool:
        """Whether another's word that a member is dead waits for our own look."""
        return self._options.two_verdicts and not self._options.observer

    def case_due(self, now: Now, node: str) -> None:
        """The suspect is out of time, or nobody echoed while we waited: look at it (again)."""
        row = self.live_peer(node)
        assert row is not None, "a case is closed when its member goes"
        look_at = self._cases[node].deadline_at - self._cases.look_s(node)
        if now.mono < look_at:  # a round trip was measured meanwhile, so a look takes less than it did
            self._agenda.set(CaseKey(node), look_at)
        elif not self._options.two_verdicts:
            self._bury(now, row, "timeout")
        elif self._hearing.is_alone(now):
            self._bury(now, row, "alone")
        else:
            self._look(now, node, patient=True)

    def forgive(self, now: Now, gap_s: float) -> None:
        """This process was away for `gap_s`; the agenda has been shifted by as much."""
        self._goodbyes.deafen()
        self._cases.forgive(now, gap_s)

    def _trusts(self, now: Now, dead: Member) -> bool:
        """Whether we, by our own lights, hold alive whom somebody says to be dead, or know nothing of that life."""
        row, detector, node = self.live_peer(dead.node), self._detector, dead.node
        if row is None or not supersedes(dead, row):
            return False
        lost = detector.is_quarantined(node) and dead.identity.generation == row.identity.generation
        return not lost or detector.heard_since(node, now.mono - detector.verdict_s(node))

    def _round_failed(self, now: Now, failed: RoundFailed) -> None:
        row = self.live_peer(failed.target.node)
        assert row is not None and row.identity.generation == failed.target.generation, (
            "rounds end with their life"
        )
        inquest = self._cases.inquests.get(row.node)
        if inquest is None or inquest.identity != row.identity:
            if not self._goodbye_unanswered(now, failed):
                self._unanswered(now, row)
        elif self._members.live <= 2 or failed.refused:
            self._bury(now, row, "refused" if failed.refused else "two of us")
        elif inquest.stage is Stage.LOOK:
            self._listen(now, inquest.failed(now.mono))

    def _unanswered(self, now: Now, row: Member) -> None:
        """Accuse who did not answer; but who hears nobody accuses nobody, unless it is alone in the end."""
        alone = self._options.two_verdicts and not self._hearing.is_answered()
        if self._options.observer or (alone and not self._hearing.is_alone(now)):
            return
        self._accuse(now, attrs.evolve(row, liveness=Liveness.SUSPECT), (self._me,))
        if alone:
            self._bury(now, row, "alone")

    def _look(self, now: Now, node: str, patient: bool = False) -> None:
        """Begin the last look at a suspect, if an echo just came; else first ask others for one."""
        row = self.live_peer(node)
        case = self._cases.get(node)
        if row is None or case is None or case.identity != row.identity:
            return
        if not self._hearing.heard_just_now(now):
            self._cases.inquests[node] = Inquest(row.identity, Stage.DEAF, now.mono, now.mono, patient)
            self._ask_others(now, node)
            return
        self._cases.inquests[node] = Inquest(row.identity, Stage.LOOK, now.mono, now.mono)
        self._agenda.cancel(CaseKey(node))
        self._ask_well(now, row)

    def _ask_well(self, now: Now, row: Member) -> None:
        """A round with as many asks as loss demands."""
        asks = self._detector.loss.look_asks if self._options.loss_scaling else 1
        self.weigh(now, self._detector.insist(now, row, self._loads.lag_s(row.node), asks))

    def _listen(self, now: Now, failed: Inquest) -> None:
        """The look has failed: is it we who are deaf? Ask a few others."""
        node = failed.identity.node
        self._cases.inquests[node] = failed
        if not self._options.control_echo:
            self._can_hear(now, now.mono)
            return
        self._ask_others(now, node)

    def _ask_others(self, now: Now, suspect: str) -> None:
        """Ping a few others, to know whether we hear; who has been deaf for long waits for its turns."""
        if self._detector.loss.is_deaf:
            self._agenda.set(CaseKey(suspect), now.mono + DEAF_PERIODS * self._options.probe_period_s)
            return
        self._agenda.set(CaseKey(suspect), now.mono + self._options.verdict_min_s)
        self._ping_others(now, suspect)

    def _ping_others(self, now: Now, but: str) -> None:
        count = math.ceil(CONTROLS * self._detector.loss.stretch)
        for peer in self._members.sample(count, (but, *self._detector.quarantined)):
            self.probe(now, peer.node)

    def _can_hear(self, now: Now, sent_at: float) -> None:
        """A ping of ours, sent at `sent_at`, was answered at once: who was silent until then is dead."""
        for node, inquest in tuple(self._cases.inquests.items()):
            row = self.live_peer(node)
            if row is None or sent_at < inquest.since:
                continue
            if inquest.stage is Stage.DEAF:
                (self.case_due if inquest.patient and node in self._cases else self._look)(now, node)
            elif inquest.stage is Stage.HEAR and self._detector.heard_since(node, inquest.began_at):
                self._reprieve(now, node, answered=False)
            elif inquest.stage is Stage.HEAR:
                self._bury(now, row, "silent")
        self._settle_goodbyes(now, sent_at)

    def _is_hearsay(self, gone: Member, told_by: tuple[str, Address] | None = None) -> bool:
        """Whether a goodbye would take from us, on another's word, one whom we hold for a member.

        Its own word comes from itself, from where we know it to be.
        """
        row = self.live_peer(gone.node)
        if row is None or not self._judges or not supersedes(gone, row):
            return False
        return told_by != (row.node, row.address)

    def _hear_goodbye(self, now: Now, said: Member, ours: bool = False) -> None:
        """Somebody says that a live peer has left: look at it, before we believe that."""
        if self._goodbyes.hear(now.mono, said, now.mono - (self._voice.age_s or 0.0), ours):
            self._look_for(now, said.node)

    def _look_for(self, now: Now, node: str) -> None:
        """Look at who is said to have left, if an echo just came; else first ask others for one."""
        row = self.live_peer(node)
        assert row is not None, "a rumour is dropped when its subject is no live peer"
        if self._hearing.heard_just_now(now):
            self._goodbyes.look(now.mono, node)
            self._ask_well(now, row)
        elif not self._detector.loss.is_deaf:
            self._ping_others(now, node)

    def _goodbye_unanswered(self, now: Now, failed: RoundFailed) -> bool:
        """Our look at who is said to have left has failed. Returns whether there was such a look."""
        node = failed.target.node
        if not self._goodbyes.unanswered(now.mono, node):
            return False
        if self._members.live <= 2 or failed.refused or not self._options.control_echo:
            self._depart(now, node)
        else:
            self._ping_others(now, node)
        return True

    def _settle_goodbyes(self, now: Now, sent_at: float) -> None:
        """A ping of ours, sent at `sent_at`, was answered at once: who was silent until then has left."""
        for node, inquest in self._goodbyes.waiting(sent_at):
            if inquest.stage is Stage.DEAF:
                self._look_for(now, node)
            elif self._detector.heard_since(node, inquest.began_at):
                self._goodbyes.defer(node, now.mono + self._options.probe_period_s)
            else:
                self._depart(now, node)

    def _depart(self, now: Now, node: str) -> None:
        """It is said to have left, and our look has failed: it has."""
        goodbye = self._goodbyes.take(node)
        assert goodbye is not None, "only who is said to have left departs"
        self._voice.age_s = now.mono - goodbye.born_at
        self._apply(now, goodbye.said)
        self._voice.age_s = None
        if goodbye.ours:
            self._voice.report("forgotten", node=node, name=goodbye.said.name)

    def _drop_goodbye(self, node: str) -> None:
        goodbye = self._goodbyes.take(node)
        if goodbye is None:
            return
        self._tally.goodbyes_refuted += 1
        if goodbye.ours:
            self._voice.report("not_forgotten", node=node, name=goodbye.said.name, reason="it answers")

    def _recheck_goodbye(self, now: Now, change: Change) -> None:
        """What is believed of its subject has changed: is the rumour void, or the look?"""
        before, after = change.before, change.after
        goodbye = self._goodbyes[after.node]
        if not supersedes(goodbye.said, after):
            self._drop_goodbye(after.node)
        elif not after.is_live and goodbye.ours:
            self._depart(now, after.node)
        elif not after.is_live:
            self._goodbyes.take(after.node)
        elif before is not None and before.identity.generation != after.identity.generation:
            self._look_for(now, after.node)

    def _reprieve(self, now: Now, node: str, answered: bool) -> None:
        """It lives: a doubt ends, a suspect gets as long again to refute; a goodbye is void once it answers."""
        if answered:
            self._drop_goodbye(node)
        else:
            self._goodbyes.defer(node, now.mono + self._options.probe_period_s)
        if node in self._cases and self._is_doubt(node):
            self._voice.hush(node)
            self._cases.close(node)
        if self._cases.inquests.pop(node, None) is not None:
            self._cases.keep(now, attrs.evolve(self._cases[node], started_at=now.mono))

    def _bury(self, now: Now, row: Member, evidence: str) -> None:
        if self._options.observer:  # waits until members say so
            self._cases.inquests.pop(row.node, None)
            self._cases.keep(now, attrs.evolve(self._cases[row.node], started_at=now.mono))
            return
        if row.node in self._goodbyes and evidence != "alone":
            self._depart(now, row.node)
            return
        accused_by = self._cases.confirm(row.node, self._me)
        self._detector.note(now, row.node, "dead", evidence, accused_by)
        accusers = ",".join(accused_by)
        self._tally.deaths += 1
        self._voice.report("member_dead", node=row.node, name=row.name, accusers=accusers, evidence=evidence)
        self._apply(now, attrs.evolve(row, liveness=Liveness.DEAD))
        if evidence == "alone":
            self._voice.hush(row.node)

    def _accuse(self, now: Now, suspect: Member, accusers: tuple[str, ...]) -> None:
        """Take an accusation, ours or another's: open a case, or confirm the one that is open."""
        needed = witnesses_needed(self._options, self._members.live)
        row = self._members.get(suspect.node)
        if needed and (row is None or supersedes(suspect, row)):
            self._doubt(now, suspect, accusers)
        elif not needed and self._apply(now, suspect, accusers):
            return
        elif self._cases.is_open(suspect.identity) and self._cases.accuse(now, suspect.identity, accusers):
            self._voice.spread(now, suspect)

    def _doubt(self, now: Now, suspect: Member, accusers: tuple[str, ...]) -> None:
        """Accused is who is alive here: we look for ourselves, and pass it on if no answer comes in time."""
        row = self.live_peer(suspect.node)
        if row is None or row.identity != suspect.identity:
            self._apply(now, attrs.evolve(suspect, liveness=Liveness.ALIVE))
            row = self.live_peer(suspect.node)
        if row is None or row.identity != suspect.identity:  # there was no room for it
            return
        if self._me in accusers:
            self._hearsay.confirmed(now, suspect.node)
        is_new = self._cases.accuse(now, suspect.identity, accusers, self._voice.age_s or 0.0)
        ours = self._cases[suspect.node].ours
        if self._cases.is_proven(suspect.node):
            self._apply(now, suspect, (self._me, *accusers))
        elif is_new and ours:
            self._voice.spread(now, suspect, DOUBT_SENDS)
        if is_new and not ours:
            self.probe(now, suspect.node)
            if self._detector.is_late(suspect.node):
                self._late(now, suspect.node)

    def _late(self, now: Now, node: str) -> None:
        """An accused one that is alive here has not answered us in time: let others look too."""
        case, row = self._cases.get(node), self.live_peer(node)
        if row is None or case is None or case.ours or not self._is_doubt(node):
            return
        self._voice.age_s = now.mono - case.born_at
        self._voice.spread(now, attrs.evolve(row, liveness=Liveness.SUSPECT), DOUBT_SENDS)
        self._voice.age_s = None

    def _is_doubt(self, node: str) -> bool:
        """Whether the subject of an open case is alive in the table: not enough have seen it fail."""
        row = self._members.get(node)
        return row is not None and row.liveness is Liveness.ALIVE

    def _apply(self, now: Now, new: Member, accusers: tuple[str, ...] = ()) -> bool:
        change = self._members.apply(new, now.mono)
        if change is not None:
            self._changed(now, change, accusers)
        return change is not None

    def _changed(self, now: Now, change: Change, accusers: tuple[str, ...]) -> None:
        before, after = change.before, change.after
        self._voice.tell(MemberChanged(before, after))
        self._views.note(now, before, after)
        if after.liveness is not Liveness.SUSPECT:
            self._cases.close(after.node)
        self._tell_detector(now, change)
        if after.liveness is Liveness.SUSPECT:
            self._cases.accuse(now, after.identity, accusers)
        self._voice.spread(now, after)
        doubtful = after.liveness is Liveness.SUSPECT or self._detector.is_quarantined(after.node)
        if doubtful and self._options.two_verdicts and self._me not in accusers:
            self.probe(now, after.node)
        if after.node in self._goodbyes:
            self._recheck_goodbye(now, change)

    def _tell_detector(self, now: Now, change: Change) -> None:
        before, after = change.before, change.after
        new_life = before is not None and before.identity.generation != after.identity.generation
        if after.liveness is Liveness.DEAD:
            self._detector.died(now, after.node)
        elif new_life or after.liveness is Liveness.LEFT:
            self._detector.renew(after.node)
        elif before is not None and not before.is_live:
            self.weigh(now, self._detector.returned(now, after.node))
        if new_life or not after.is_live:
            self._loads.forget(after.node)
