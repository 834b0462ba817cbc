"""How well this node itself is doing, so that it blames itself before it blames others.

Lifeguard's local health multiplier (arXiv 1707.00788, section IV-A): a score from 0 (well)
to a bound, moved by what happens to our own probes. Timeouts and the probe period stretch by
score + 1. Measured signals come first (a late tick, see `pause_s`); the score is the fallback.

    event                                       score
    a probe round was answered                    -1
    a round failed and a helper's nack is missing +1   (our own packets may be the lost ones)
    a round failed with nobody to ask             +1
    a round failed although every helper nacked    0   (they hear us: the target is the sick one)
    we had to refute a rumour about ourselves     +1
    our own machine dropped what was sent to us   +1   (at most once a probe period)
"""

import attrs

FORGIVEN_VERDICTS = 2
"""After a pause, what was due waits for so many least rounds more: the time to ask and be refuted."""
ANNOUNCE_S = 10.0
"""Announcements of one of up to ANNOUNCE_SHARE live members are so far apart; of more members, further."""
ANNOUNCE_SHARE = 8


@attrs.define
class Announcements:
    """When a node that was away may tell the mesh, unasked, that it lives.

    The first time at once; then seldom: news of a machine that has too little time for its nodes must not
    be what takes their time. Sixty-four nodes on two busy cores kept both busy with such news, for ever.
    Until its next turn a node answers whoever doubts it, which is a round trip later.
    """

    next_at: float = float("-inf")

    def take(self, now_mono: float, live: int) -> bool:
        """Whether it may, now; if so, that was its turn."""
        if now_mono < self.next_at:
            return False
        self.next_at = now_mono + ANNOUNCE_S * max(1.0, live / ANNOUNCE_SHARE)
        return True


@attrs.define
class LocalHealth:
    """The score, between 0 and `score_max`."""

    score_max: int = 8
    counts_nacks: bool = False
    """Whether each missing nack moves the score by one, as in memberlist, or all of them together."""
    score: int = attrs.field(default=0, init=False)

    @property
    def multiplier(self) -> int:
        """By how much to stretch timeouts and the probe period: 1 when well."""
        return self.score + 1

    def round_answered(self) -> None:
        """A probe round ended with an acknowledgement."""
        self._move(-1)

    def round_failed(self, helpers: int, nacks: int) -> None:
        """A probe round failed after `helpers` were asked and `nacks` of them said so."""
        missing = max(0, helpers - nacks) if helpers else 1
        self._move(missing if self.counts_nacks else min(1, missing))

    def deprived(self) -> None:
        """Datagrams to us were dropped on our own machine: we are not fit to judge."""
        self._move(1)

    def refuted(self) -> None:
        """Somebody doubted us, and we are alive."""
        self._move(1)

    def _move(self, by: int) -> None:
        self.score = min(self.score_max, max(0, self.score + by))


def pause_s(deadline_at: float | None, now_mono: float, tolerance_s: float) -> float:
    """Seconds that this process slept through, or 0 when it woke about on time.

    `deadline_at` is the moment at which it had asked to be woken.
    """
    late_s = now_mono - deadline_at if deadline_at is not None else 0.0
    return late_s if late_s > tolerance_s else 0.0
