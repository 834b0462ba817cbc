"""Whose turn it is: whom this node probes next, and when.

Two laws, which send equally many packets:

    round robin  each node goes through a shuffled list of its own (SWIM, DSN 2002, section 4.3). A
                 member may go unprobed for some periods while another is probed twice: the time to the
                 first probe of a crashed one has mean 1 period, p99 4.6, maximum 2n - 1.
    shared       all nodes follow one timetable, which each computes for itself. Each member is probed
                 exactly once a period: mean half a period, maximum 1.

The shared timetable. Let the n live members be sorted by id, and t = floor(wall clock / period). In
period t the member of rank r probes the one of rank (r + offset(t, n)) mod n, at the moment

    (t + (rank of the probed + 1/2) / n) * period

so each is probed at a phase of its own, at even intervals whoever the prober is, and packets are spread
over the period. The offsets of n - 1 periods in a row, counted from period 0, are a permutation of
1 .. n - 1: nobody probes itself, and each ordered pair has its turn once in each such block.

What need not be: neither equal views nor equal clocks are promised. With two views about, each map is
still one to one, so a member is probed at most twice a period, and at most as many go unprobed as there
are nodes of the rarer view. A clock that is a little off moves the probes of its owner by as much; one
that is far off makes that node one more random prober (SWIM's law), whose own turns still
reach everybody within 2n - 3 periods. A clock that is set makes its owner begin anew at once: waits
are counted on the monotonic clock and are never longer than two periods.
"""

import functools
import hashlib
import math

from mesh.member import Member
from mesh.members import Members
from mesh.now import Now
from mesh.swim_options import SwimOptions

PERIODS_APART_MAX = 1
"""A turn may be this many periods early or late (a busy loop, a slewed clock); beyond, the clock was set."""
WAIT_PERIODS_MAX = 2
"""From the first moment of a period to the last of the next."""
STRIDES_MAX = 64
"""Blocks whose permutation is remembered; one node needs the present one and the next."""


def offset(period: int, count: int) -> int:
    """How many ranks the probers are from whom they probe, 1 to count - 1; for at least two members. O(1).

    A block of count - 1 periods runs through k -> a * k + c modulo count - 1, with a and c from a hash of
    the block's number and a coprime to the modulus, which is a permutation.
    """
    block, turn = divmod(period, count - 1)
    step, start = _stride(block, count - 1)
    return 1 + (step * turn + start) % (count - 1)


@functools.lru_cache(maxsize=STRIDES_MAX)
def _stride(block: int, modulus: int) -> tuple[int, int]:
    """The a and c of a block."""
    digest = hashlib.blake2b(block.to_bytes(16, "big", signed=True), digest_size=16).digest()
    step = int.from_bytes(digest[:8], "big") % modulus
    while math.gcd(step, modulus) != 1:
        step += 1
    return step, int.from_bytes(digest[8:], "big") % modulus


def moment(period: int, rank: int, count: int) -> float:
    """When the member of this rank is probed, in periods of the wall clock."""
    return period + (rank + 0.5) / count


class Rota:
    """The turns of one node."""

    def __init__(self, options: SwimOptions, members: Members) -> None:
        self._options = options
        self._members = members
        self._planned: int | None = None
        """The period of the next turn."""

    def turn(self, now: Now, stretch: int = 1) -> tuple[Member | None, float]:
        """Return whom to probe now, and the seconds until the next turn.

        `stretch` is how many periods a turn of an unhealthy node takes.
        """
        if not self._options.shared_probing:
            return self._members.next_probe(), self._options.probe_period_s * stretch
        period = self._due(now)
        self._planned = period + stretch
        return self._target(period), self._wait_s(now, self._planned, stretch)

    def _due(self, now: Now) -> int:
        present = math.floor(now.wall / self._options.probe_period_s)
        planned = self._planned
        if planned is None or abs(planned - present) > PERIODS_APART_MAX:
            return present
        return planned

    def _target(self, period: int) -> Member | None:
        rank = self._rank(period)
        return self._members.ranked(rank) if rank is not None else None

    def _rank(self, period: int) -> int | None:
        count = self._members.live
        if count < 2:
            return None
        return (self._members.rank + offset(period, count)) % count

    def _wait_s(self, now: Now, period: int, stretch: int) -> float:
        period_s = self._options.probe_period_s
        rank = self._rank(period)
        if rank is None:
            return period_s * stretch
        wait_s = moment(period, rank, self._members.live) * period_s - now.wall
        return min(max(0.0, wait_s), (stretch - 1 + WAIT_PERIODS_MAX) * period_s)
