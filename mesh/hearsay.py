"""Which accusations by others are worth a look.

Theory of operation. Whatever another says of a member, this node looks for itself (`mesh.beliefs`). A look costs two
packets, so that a broken node which accuses everybody, period after period, would make all others look at everybody:

    the accusation                                              is
    of one who has answered us since it was first said          settled: no look, not passed on
    of one who is quarantined here, or has an open case         weighed: it costs no look
    by some of whom one has a token left (`mesh.credit`)        weighed, for the token; it comes back if they were right
    by others                                                   dropped

A real mass failure is accused by all who probe, each in its own turns, so that somebody can always pay; and what a
failed round of our own says needs no other's word.
"""

from mesh.cases import Cases, witnesses_needed
from mesh.credit import Credit
from mesh.detector import Detector
from mesh.member import supersedes
from mesh.members import Members
from mesh.messages import Update
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally


class Hearsay:
    """The door through which accusations by others come in."""

    def __init__(
        self, me: str, options: SwimOptions, members: Members, detector: Detector, cases: Cases, tally: Tally
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._detector = detector
        self._cases = cases
        self._tally = tally
        self._credit = Credit(options.accusations_per_window, options.accusation_window_s)

    def admits(self, now: Now, update: Update, age_s: float | None) -> bool:
        """Whether an accusation, first made `age_s` ago, is to be weighed; else it is counted."""
        row = self._members.get(update.member.node)
        if row is None or not row.is_live or not supersedes(update.member, row):
            return True
        if self._is_settled(now, update, age_s):
            self._tally.accusations_settled += 1
            return False
        if self._detector.is_quarantined(row.node) or self._cases.is_open(update.member.identity):
            return True
        if not self._credit.accepts(now.mono, self.others(update)):
            self._tally.accusations_dropped += 1
            return False
        return True

    def others(self, update: Update) -> tuple[str, ...]:
        """The accusers without ourselves: what we have seen nobody else can tell us."""
        return tuple(node for node in update.accusers if node != self._me)

    def confirmed(self, now: Now, node: str) -> None:
        """A round of our own has failed: who had accused the same was right."""
        case = self._cases.get(node)
        if case is not None and not case.ours:
            self._credit.repay(now.mono, case.accusers)

    def _is_settled(self, now: Now, update: Update, age_s: float | None) -> bool:
        if age_s is None or not witnesses_needed(self._options, self._members.live):
            return False
        row = self._members.get(update.member.node)
        same = row is not None and row.identity == update.member.identity
        return same and self._detector.answered_since(update.member.node, now.mono - age_s)
