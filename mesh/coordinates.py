"""Network coordinates: how far apart any two nodes are, though nobody has measured it (Vivaldi).

Theory of operation. Each node keeps a point in eight dimensions and a height, such that the distance between two
nodes' points plus both heights comes close to their round trip: what a core network and two access links would give.
Each probe that is answered brings the other's coordinate, and moves ours a little towards the truth, as a spring
would; the less sure we are and the surer the other, the farther:

    d = |x_i - x_j| + h_i + h_j + a_i + a_j          w = e_i / (e_i + e_j)
    e_i <- e_i * (1 - c_e * w) + c_e * w * |d - rtt| / rtt
    force = c_c * w * (rtt - d), shared out between x and h as they share the distance

What points and heights leave over is averaged over the last samples, and each node adds half of that to every distance
(`a`, the adjustment); a weak gravity keeps the whole cloud at the origin. The round trip is the median of a peer's last
three, so that one packet that waited moves nobody.

What others claim is not trusted: a coordinate that is no number, of another size or beyond its bounds is refused and
counted, and its packet taken all the same. An observation moves us by at most `FORCE` of the longest of the last
round trips that we have measured ourselves, whatever the other claims, so that a liar can pull us no faster than honest
peers pull back.

Sources: Dabek et al., "Vivaldi" (SIGCOMM 2004), sections 2.5 and 5.4; Ledlie et al., "Network Coordinates in the Wild"
(NSDI 2007) for the filter and gravity; Lee et al., "On Suitability of Euclidean Embedding" (ToN 2010) for the
adjustment. Constants are serf's (`coordinate/config.go`). Unlike serf, the height takes its share of the force instead
of the same force again, which is the paper's rule and bounds it, and forces are bounded.
"""

import collections
import math
import random
import struct

import attrs

DIMENSIONS = 8
ERROR_MAX = 1.5
"""Of who has observed nothing, and never more."""
ERROR_SHARE = 0.25
"""c_e: most that one observation counts for in the error."""
FORCE = 0.25
"""c_c: most of the difference that one observation moves us by; and of a round trip of ours, whatever is claimed."""
HEIGHT_MIN_S = 10e-6
NEAR_S = 1e-6
"""Points nearer than this are one: the direction between them is drawn."""
GRAVITY_S = 150.0
"""At distance d from the origin each observation pulls us (d / this)^2 seconds back."""
WINDOW = 20
"""Observations over which the adjustment is averaged, and of which the longest bounds the force."""
FILTER = 3
"""Round trips of one peer of which the median counts."""
SECONDS_MAX = 10.0
"""Greatest part of a coordinate, and greatest round trip that is believed: half the way around nothing on earth."""

_PACKED = struct.Struct(f">{DIMENSIONS + 3}f")
COORDINATE_BYTES = _PACKED.size
"""On the wire: eight dimensions, height, error, adjustment, single precision."""


@attrs.frozen
class Coordinate:
    """Where a node is. Parts in seconds, the error a share."""

    vector: tuple[float, ...] = (0.0,) * DIMENSIONS
    height_s: float = HEIGHT_MIN_S
    error: float = ERROR_MAX
    adjustment_s: float = 0.0

    def pack(self) -> bytes:
        """As bytes, COORDINATE_BYTES of them."""
        return _PACKED.pack(*self.vector, self.height_s, self.error, self.adjustment_s)

    def spring_s(self, other: "Coordinate") -> float:
        """Distance of the points and both heights."""
        return math.dist(self.vector, other.vector) + self.height_s + other.height_s

    def distance_s(self, other: "Coordinate") -> float:
        """Estimated round trip in seconds: the spring's length, and both adjustments unless they exceed it."""
        spring_s = self.spring_s(other)
        adjusted_s = spring_s + self.adjustment_s + other.adjustment_s
        return adjusted_s if adjusted_s > 0.0 else spring_s


def unpack(data: bytes) -> Coordinate | None:
    """Read a coordinate from anything; None if it is none, or beyond its bounds."""
    if len(data) != COORDINATE_BYTES:
        return None
    *vector, height_s, error, adjustment_s = _PACKED.unpack(data)
    sizes = (*map(abs, vector), height_s, abs(adjustment_s))
    if not all(0.0 <= size <= SECONDS_MAX for size in sizes) or not 0.0 <= error <= 2 * ERROR_MAX:
        return None
    return Coordinate(tuple(vector), height_s, min(error, ERROR_MAX), adjustment_s)


def moved(
    mine: Coordinate, other: Coordinate, rtt_s: float, longest_s: float, rng: random.Random
) -> Coordinate:
    """Return our coordinate after one observation; the adjustment stays.

    Args:
        mine: where we are.
        other: where the other says that it is.
        rtt_s: measured round trip to it, above 0.
        longest_s: of the last round trips to anybody, this one included.
        rng: draws a direction where both are at one point.

    """
    spring_s, distance_s = mine.spring_s(other), mine.distance_s(other)
    weight = mine.error / max(mine.error + other.error, NEAR_S)
    share = ERROR_SHARE * weight
    error = mine.error * (1.0 - share) + share * abs(distance_s - rtt_s) / rtt_s
    force_s = FORCE * weight * max(-longest_s, min(longest_s, rtt_s - distance_s))
    apart_s = math.dist(mine.vector, other.vector)
    heights_s = mine.height_s + other.height_s
    if apart_s > NEAR_S:
        along = [(a - b) / apart_s for a, b in zip(mine.vector, other.vector, strict=True)]
        reach_s, rise_s = force_s * apart_s / spring_s, force_s * heights_s / spring_s
    else:
        along, reach_s, rise_s = _direction(rng), force_s, 0.0
    vector = tuple(a + reach_s * unit for a, unit in zip(mine.vector, along, strict=True))
    height_s = min(SECONDS_MAX, max(HEIGHT_MIN_S, mine.height_s + rise_s))
    return attrs.evolve(mine, vector=_drawn_in(vector), height_s=height_s, error=min(error, ERROR_MAX))


def _direction(rng: random.Random) -> list[float]:
    drawn = [rng.gauss(0.0, 1.0) for _ in range(DIMENSIONS)]
    length = math.hypot(*drawn) or 1.0
    return [part / length for part in drawn]


def _drawn_in(vector: tuple[float, ...]) -> tuple[float, ...]:
    """Let gravity act, and keep the point within its bounds."""
    length_s = math.hypot(*vector)
    if length_s < NEAR_S:
        return vector
    kept = 1.0 - min(1.0, length_s / GRAVITY_S**2)
    return tuple(max(-SECONDS_MAX, min(SECONDS_MAX, part * kept)) for part in vector)


class Coordinates:
    """Ours, and those of the peers that have told theirs. Bounded by the table of members."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._known: dict[str, Coordinate] = {}
        self._samples: dict[str, collections.deque[float]] = {}
        self._left_over: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._recent: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self.mine = Coordinate()
        self.packed = self.mine.pack()
        """Ours, as it travels."""
        self.refused = 0
        """Coordinates of others that were none, or beyond their bounds, and round trips beyond belief."""

    def get(self, node: str) -> Coordinate | None:
        """What `node` said last."""
        return self._known.get(node)

    def told(self, node: str, data: bytes) -> None:
        """A peer has said where it is; empty if it keeps no coordinates."""
        if not data:
            return
        coordinate = unpack(data)
        if coordinate is None:
            self.refused += 1
        else:
            self._known[node] = coordinate

    def observe(self, node: str, rtt_s: float) -> None:
        """A round trip to a peer was measured: move, if it has said where it is."""
        other = self._known.get(node)
        if other is None:
            return
        if not 0.0 <= rtt_s <= SECONDS_MAX:
            self.refused += 1
            return
        samples = self._samples.setdefault(node, collections.deque(maxlen=FILTER))
        samples.append(rtt_s)
        rtt_s = max(NEAR_S, sorted(samples)[len(samples) // 2])
        self._recent.append(rtt_s)
        longest_s = max(self._recent)
        mine = moved(self.mine, other, rtt_s, longest_s, self._rng)
        self._left_over.append(max(-longest_s, rtt_s - mine.spring_s(other)))
        adjustment_s = sum(self._left_over) / (2 * WINDOW)
        self.mine = attrs.evolve(mine, adjustment_s=max(-SECONDS_MAX, min(SECONDS_MAX, adjustment_s)))
        self.packed = self.mine.pack()

    def distance_s(self, node: str) -> float | None:
        """Estimated round trip to `node` in seconds; None if it has not said where it is, or we know nothing."""
        other = self._known.get(node)
        return self.mine.distance_s(other) if other is not None and self._left_over else None

    def forget(self, node: str) -> None:
        """The member is gone, or has a new life."""
        self._known.pop(node, None)
        self._samples.pop(node, None)
