"""Token buckets: how much of something is allowed per second, and for whom.

A bucket fills at `rate` per second up to `burst`. Who takes more than is there gets nothing; a
debt may be run up by what was only measured afterwards, or must be sent anyway (`spend`), and is
paid back at the rate.
"""

import math

import attrs

from mesh.effects import Address

SOURCES_MAX = 4096
"""Sources whose packets are counted apart; beyond, the one that has been quiet longest is forgotten, so
that a flood of forged addresses costs no memory."""


@attrs.define
class Bucket:
    """One bucket; full at first. `rate` in units per second, `burst` in units."""

    rate: float
    burst: float
    debt_max: float = math.inf
    """What is owed beyond this is forgiven."""
    level: float = attrs.field(init=False)
    """Units there are; below zero after `spend`."""
    _at: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.level = self.burst

    def fill(self, mono: float) -> float:
        """Let time pass until `mono` (seconds) and return the level."""
        if self._at is not None:
            self.level = min(self.burst, self.level + max(0.0, mono - self._at) * self.rate)
        self._at = mono
        return self.level

    def take(self, mono: float, amount: float = 1.0) -> bool:
        """Take `amount` if it is there."""
        if self.fill(mono) < amount:
            return False
        self.level -= amount
        return True

    def spend(self, amount: float) -> None:
        """Take `amount` whether or not it is there."""
        self.level = max(-self.debt_max, self.level - amount)


@attrs.define
class Sources:
    """What each source of datagrams may send. Limits per source and second; bursts of two seconds."""

    packets_per_s: float = 1000.0
    """A member of a busy mesh sends another one some 10 a second; a reunion, some hundred."""
    bytes_per_s: float = 2.0**20
    _buckets: dict[Address, tuple[Bucket, Bucket]] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._buckets)

    def admits(self, mono: float, source: Address, size: int) -> bool:
        """Whether a source may be heard with another `size` bytes; what it may is taken off."""
        buckets = self._buckets.get(source)
        if buckets is None:
            buckets = self._add(source)
        packets, volume = buckets
        if packets.fill(mono) < 1 or not volume.take(mono, size):
            return False
        packets.spend(1)
        return True

    def _add(self, source: Address) -> tuple[Bucket, Bucket]:
        if len(self._buckets) >= SOURCES_MAX:
            del self._buckets[next(iter(self._buckets))]
        pair = (
            Bucket(self.packets_per_s, 2 * self.packets_per_s),
            Bucket(self.bytes_per_s, 2 * self.bytes_per_s),
        )
        self._buckets[source] = pair
        return pair
