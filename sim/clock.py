"""A machine's oscillator: how its own seconds follow the world's.

Invariant: local time is continuous and rises with the world's, whatever the rate
was set to and when, so that a monotonic clock built on it never falls.
"""

import attrs

RATE_MIN = 0.9
"""No clock is slower, and none is faster than 1 / this: far beyond any quartz, as under a bad hypervisor."""


@attrs.define
class Clock:
    """Local seconds as a function of world seconds."""

    rate: float = 1.0
    """Local seconds per second of the world."""
    _world: float = attrs.field(init=False, default=0.0)
    _local: float = attrs.field(init=False, default=0.0)

    def local(self, time: float) -> float:
        """Return the local time at a world time."""
        return self._local + (time - self._world) * self.rate

    def world(self, local: float) -> float:
        """Return the world time at a local time, if the rate stays as it is."""
        return self._world + (local - self._local) / self.rate

    def drift(self, time: float, rate: float) -> None:
        """Run at another rate from now on."""
        assert RATE_MIN <= rate <= 1 / RATE_MIN, f"no clock runs at {rate}"
        self._local, self._world, self.rate = self.local(time), time, rate
