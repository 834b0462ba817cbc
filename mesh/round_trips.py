"""What this node has measured of the paths to its peers, and what it guesses of those that it has not.

Each round's patience comes from here: from the peer's own round trips, else from the coordinates that both have
(`mesh.coordinates`, where they are switched on), else from what is typical of all peers.
"""

import random

from mesh.coordinates import Coordinates
from mesh.probe import RoundTrip, timeout_s
from mesh.swim_options import SwimOptions


class RoundTrips:
    """Round trips by node. Bounded by the table of members."""

    def __init__(self, options: SwimOptions, rng: random.Random) -> None:
        self._options = options
        self._measured: dict[str, RoundTrip] = {}
        self._typical: RoundTrip | None = None
        """Over all peers, for those that were not measured: its variation covers how they differ."""
        self.coordinates = Coordinates(rng) if options.coordinates else None

    def get(self, node: str) -> RoundTrip | None:
        """What was measured of `node`, if anything."""
        return self._measured.get(node)

    @property
    def mine(self) -> bytes:
        """Our coordinate as it travels; empty where there are none."""
        return self.coordinates.packed if self.coordinates is not None else b""

    def timeout_s(self, node: str) -> float:
        """Seconds of patience for a direct answer."""
        options = self._options
        return timeout_s(
            self._measured.get(node) or self._guess(node),
            options.probe_timeout_initial_s,
            options.probe_timeout_min_s,
            options.probe_timeout_max_s,
        )

    def told(self, node: str, coordinate: bytes) -> None:
        """A peer has said where it is."""
        if self.coordinates is not None:
            self.coordinates.told(node, coordinate)

    def measure(self, node: str, sample_s: float) -> None:
        """A ping was answered after so many seconds."""
        known, typical = self._measured.get(node), self._typical
        self._measured[node] = known.observe(sample_s) if known is not None else RoundTrip.first(sample_s)
        self._typical = typical.observe(sample_s) if typical is not None else RoundTrip.first(sample_s)
        if self.coordinates is not None:
            self.coordinates.observe(node, sample_s)

    def forget(self, node: str) -> None:
        """The member is dead, has left or has a new life."""
        self._measured.pop(node, None)
        if self.coordinates is not None:
            self.coordinates.forget(node)

    def _guess(self, node: str) -> RoundTrip | None:
        distance_s = self.coordinates.distance_s(node) if self.coordinates is not None else None
        return RoundTrip.first(distance_s) if distance_s is not None else self._typical
