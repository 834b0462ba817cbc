"""One probe round: is this member there? And the round trip time that sets its patience.

Theory of operation. A round asks directly first, then through helpers and over TCP at
once, then gives its verdict (SWIM, DSN 2002, section 3.1; TCP probe as in memberlist):

    state      moved by                             to         what the owner does
    DIRECT     echo: the target's own ack           ECHOED     learn the round trip, forget the round
    DIRECT     timeout (SRTT + 4 * RTTVAR)          INDIRECT   ask k helpers, ping over TCP
    INDIRECT   echo                                 ECHOED     forget the round
    INDIRECT   a helper's ack                       VOUCHED    wait on: it lives, can it answer us?
    INDIRECT   a timeout, while asks are left       INDIRECT   ping again (loss is measured: `mesh.loss`)
    VOUCHED    echo                                 ECHOED     forget the round
    VOUCHED    verdict time                         SPARED     quarantine the target; it is no suspect
    INDIRECT   verdict time, target heard meanwhile SPARED     the same: it sends, and does not answer
    INDIRECT   verdict time                         FAILED     quarantine and suspect the target

ECHOED, SPARED and FAILED are final. An ack counts only with the round's nonce (48 random bits),
and only from the target or from a helper that this round asked. A round is bounded by its
verdict time, which never comes sooner than the observer's least patience. Where there is one verdict
alone (SWIM, Lifeguard), a helper's ack ends the round like an echo.
"""

import enum

import attrs

from mesh.identity import Identity


class Phase(enum.Enum):
    """Where a round stands."""

    DIRECT = "direct"
    INDIRECT = "indirect"
    VOUCHED = "vouched"
    ECHOED = "echoed"
    SPARED = "spared"
    FAILED = "failed"


_DIRECT, _INDIRECT = Phase.DIRECT, Phase.INDIRECT
HELD_MAX = 2
"""So often a judgement is put off because our own machine dropped datagrams: who floods a node makes it
slower to judge, and no more."""
_OVER = (Phase.ECHOED, Phase.SPARED, Phase.FAILED)
"""Looking a member up in its class takes longer in Python 3.11 than the rest of an idle round's states."""


@attrs.define
class Probe:
    """One round. Times are monotonic seconds."""

    target: Identity
    nonce: int
    started_at: float
    timeout_s: float
    """Patience for the direct answer."""
    verdict_s: float
    """Patience in all, from the start of the round."""
    asks: int = 1
    """Direct pings that it may send, if none is answered."""
    spacing_s: float = 0.1
    """Time between two of them, after the first timeout."""
    regular: bool = False
    """Whether the target came up in turn, not because somebody doubts it."""
    phase: Phase = attrs.field(default=Phase.DIRECT, init=False)
    asked: int = attrs.field(default=1, init=False)
    """Direct pings that it has sent."""
    asked_at: float = attrs.field(init=False)
    """When the last of them was due."""
    sent_at: float = attrs.field(init=False)
    """When the first of them was sent, whatever is forgiven: an echo proves that we have heard since."""
    helpers: tuple[str, ...] = attrs.field(default=(), init=False)
    nackers: tuple[str, ...] = attrs.field(default=(), init=False)
    refused: bool = attrs.field(default=False, init=False)
    """Whether the target's host has said that nobody listens there."""
    held: int = attrs.field(default=0, init=False)
    """How often it was gone on with because our own input was lost."""
    _interrupted: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.asked_at = self.sent_at = self.started_at

    @property
    def deadline_at(self) -> float:
        """When `timed_out` is to be called."""
        verdict_at = self.started_at + self.verdict_s
        if self.phase is _DIRECT:
            return min(verdict_at, self.asked_at + self.timeout_s)
        if self.phase is _INDIRECT and self.asked < self.asks:
            return min(verdict_at, self.asked_at + self.spacing_s)
        return verdict_at

    @property
    def is_over(self) -> bool:
        """Whether the round has its verdict."""
        return self.phase in _OVER

    def timed_out(self, heard_at: float | None) -> Phase:
        """The deadline has passed; `heard_at` is when anything last came from the target.

        Returns the phase: INDIRECT means that the target is to be asked (again).
        """
        assert not self.is_over, "a round that is over has no deadline"
        if self.phase is Phase.DIRECT:
            self.phase = Phase.INDIRECT
            self.asked_at += self.timeout_s
        elif self.phase is Phase.INDIRECT and self.asked < self.asks:
            self.asked += 1
            self.asked_at += self.spacing_s
        else:
            heard = heard_at is not None and heard_at > self.started_at
            self.phase = Phase.SPARED if heard or self.phase is Phase.VOUCHED else Phase.FAILED
        return self.phase

    def acked(self, source: str, echo_needed: bool = False) -> bool:
        """An ack with our nonce came from `source`. Returns whether it ends the round.

        `echo_needed`: a helper's ack only vouches, and the round waits for the target's own.
        """
        if self.is_over or (source != self.target.node and source not in self.helpers):
            return False
        vouched = echo_needed and source != self.target.node
        self.phase = Phase.VOUCHED if vouched else Phase.ECHOED
        return not vouched

    def insist(self, now_mono: float, asks: int, verdict_s: float) -> None:
        """Go on for `verdict_s` from now, with so many more asks."""
        self.verdict_s = now_mono - self.started_at + verdict_s
        self.asks = max(self.asks, self.asked + asks - 1)
        self.asked_at = max(self.asked_at, now_mono)
        self.timeout_s = min(self.timeout_s, verdict_s / 2)
        self.spacing_s = max(0.0, verdict_s - 2 * self.timeout_s) / asks

    def hold(self, now_mono: float, verdict_s: float) -> bool:
        """Our own machine has dropped datagrams, perhaps its answer: ask on. Returns whether it does once more.

        Who is known to refuse does not gain by it, as its machine did answer.
        """
        if self.refused or self.held >= HELD_MAX:
            return False
        self.held += 1
        if self.phase is not _DIRECT:
            self.insist(now_mono, 2, verdict_s)
        self.verdict_s = max(self.verdict_s, now_mono - self.started_at + verdict_s)
        return True

    def nacked(self, source: str) -> None:
        """A helper says that it got no answer."""
        if source in self.helpers and source not in self.nackers:
            self.nackers = (*self.nackers, source)

    def forgive(self, gap_s: float) -> None:
        """This process was away for `gap_s`: the target loses no time by it."""
        self.started_at += gap_s
        self.asked_at += gap_s
        self._interrupted = True

    def round_trip_s(self, now_mono: float, source: str, reliable: bool) -> float | None:
        """Seconds to the target and back, or None when this ack does not measure that.

        Each round has its own nonce, so that Karn's ambiguity does not arise.
        """
        if reliable or self._interrupted or source != self.target.node:
            return None
        return max(0.0, now_mono - self.started_at)


@attrs.frozen
class RoundTrip:
    """Smoothed round trip of one peer (Jacobson and Karels; RFC 6298, section 2)."""

    smoothed_s: float
    variation_s: float

    @classmethod
    def first(cls, sample_s: float) -> "RoundTrip":
        """The estimate after one sample."""
        return cls(sample_s, sample_s / 2)

    def observe(self, sample_s: float) -> "RoundTrip":
        """The estimate after one more sample: gains 1/8 and 1/4."""
        error_s = abs(self.smoothed_s - sample_s)
        return RoundTrip(
            self.smoothed_s + (sample_s - self.smoothed_s) / 8,
            self.variation_s + (error_s - self.variation_s) / 4,
        )

    @property
    def timeout_s(self) -> float:
        """SRTT + 4 * RTTVAR, unclamped."""
        return self.smoothed_s + 4 * self.variation_s


def timeout_s(estimate: RoundTrip | None, initial_s: float, min_s: float, max_s: float) -> float:
    """Seconds of patience for a direct answer: measured where possible, always within bounds."""
    wanted_s = estimate.timeout_s if estimate is not None else initial_s
    return min(max_s, max(min_s, wanted_s))
