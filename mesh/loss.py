"""How much gets lost, as one observer measures it, and how patient that must make it.

The sample is a first direct ping to a member that we trust: answered within its timeout or not. Pings to the
quarantined do not count, for they measure the member and not the network. What follows from the share f:

    asks in a round      least m with f^m <= 1 %        so that loss alone fails one round in a hundred
    asks of a last look  least m with f^m <= 10^-6      so that loss alone kills nobody
    least suspicion      times 1 / (1 - f)              a refutation needs so many tries to get through

A crash of a quarter of the mesh looks like loss too; it costs as much patience as this allows, and no more.
"""

import math

import attrs

GAIN = 1 / 12
"""Weight of one sample: half of what is known is from the last 8 pings, 4 s of them at two a second."""
ROUND_DOUBT = 1e-2
LOOK_DOUBT = 1e-6
LOOK_ASKS_MIN = 3
ROUND_ASKS_MAX = 16
LOOK_ASKS_MAX = 48
DEAF_LOSSES_MIN = 3
"""Two in a row happen to whoever loses a quarter of its mesh."""
STRETCH_MAX = 10.0
"""Loss above 90 % is treated as 90 %: nothing works there, and the dead must go at some time."""


def asks(share: float, doubt: float, most: int) -> int:
    """How many asks leave a chance of at most `doubt` that all are lost, when each is with chance `share`."""
    if share <= doubt:
        return 1
    return min(most, math.ceil(math.log(doubt) / math.log(min(share, 0.99))))


@attrs.define
class LossMeter:
    """The share of pings, 0 to 1, that were not answered in time: an exponential mean."""

    share: float = attrs.field(default=0.0, init=False)

    _streak: int = attrs.field(default=0, init=False)
    _share_before: float = attrs.field(default=0.0, init=False)
    """The share when the present run of losses began."""

    def sample(self, lost: bool) -> None:
        """One more ping was answered, or was not. What the deaf do not hear tells nothing of loss."""
        if not self._streak:
            self._share_before = self.share
        if not self.is_deaf:
            self.share += GAIN * (lost - self.share)
        self._streak = self._streak + 1 if lost else 0

    def echoed(self) -> None:
        """Some ping of ours was answered at once, whoever it was for."""
        self._streak = 0

    @property
    def is_deaf(self) -> bool:
        """Whether so many pings in a row went unanswered that loss as it was before does not explain it."""
        return self._streak >= max(DEAF_LOSSES_MIN, asks(self._share_before, ROUND_DOUBT, ROUND_ASKS_MAX))

    @property
    def round_asks(self) -> int:
        """How many direct pings a round sends before it may fail."""
        return asks(self.share, ROUND_DOUBT, ROUND_ASKS_MAX)

    @property
    def look_asks(self) -> int:
        """How many direct pings the last look before a death sends."""
        return max(LOOK_ASKS_MIN, asks(self.share, LOOK_DOUBT, LOOK_ASKS_MAX))

    @property
    def stretch(self) -> float:
        """By how much to stretch suspicion."""
        return min(STRETCH_MAX, 1.0 / max(1e-9, 1.0 - self.share))
