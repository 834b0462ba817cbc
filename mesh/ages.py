"""How long rumours have been under way, without synchronised clocks: each hop adds the time for which it held one.

What is said of a member begins at age 0 where it is first said, and travels with its age, as load records
do (`mesh.load`). Who hears it as news counts the age in a histogram: how long this mesh takes to tell everybody.
The time in flight (half a round trip per hop) is not counted.

An age is one byte: 16 * log2(1 + milliseconds), so within 4.5 %, up to a minute; UNKNOWN for what came without.
"""

import bisect
import math

import attrs

from mesh.messages import Packet

STEPS_PER_OCTAVE = 16
UNKNOWN = 255
LONGEST = UNKNOWN - 1
"""About a minute, and all beyond."""
BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper ends of the histogram's buckets; a last one takes the rest."""


def to_byte(age_s: float) -> int:
    """Encode an age in seconds, rounded to the nearest step."""
    return min(LONGEST, round(STEPS_PER_OCTAVE * math.log2(1.0 + max(0.0, age_s) * 1000.0)))


def from_byte(code: int) -> float | None:
    """Decode an age to seconds; None if it is not known."""
    return (2.0 ** (code / STEPS_PER_OCTAVE) - 1.0) / 1000.0 if code < UNKNOWN else None


def ages_of(packet: Packet) -> list[float | None]:
    """The age of each account of a packet, in seconds; None where it is not told."""
    told = b"".join(ages.codes for ages in packet.ages)[: len(packet.updates)]
    return [None] * (len(packet.updates) - len(told)) + [from_byte(code) for code in told]


@attrs.define
class Histogram:
    """Ages at which rumours were news here."""

    _counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS_S) + 1), init=False)

    def count(self, age_s: float) -> None:
        """A rumour of this age was news."""
        self._counts[bisect.bisect_left(BUCKETS_S, age_s)] += 1

    def cumulative(self) -> dict[str, int]:
        """How many were at most so many seconds old, by upper end, `+Inf` last."""
        total, found = 0, {}
        for end, count in zip((*map(str, BUCKETS_S), "+Inf"), self._counts, strict=True):
            total += count
            found[end] = total
        return found
