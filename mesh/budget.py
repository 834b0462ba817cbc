"""A token bucket: so many bytes a second, and a burst."""

import attrs


@attrs.define
class Budget:
    """Bytes that may be spent; begins full. Debts are allowed where something must be sent anyway."""

    bytes_per_s: float
    burst_bytes: float
    """Most that is saved up, and how deep a debt may become."""
    _left: float = attrs.field(init=False)
    _at: float | None = attrs.field(init=False, default=None)

    @_left.default
    def _full(self) -> float:
        return self.burst_bytes

    def left(self, now_s: float) -> float:
        """Bytes that may be spent at this moment (monotonic seconds); negative while in debt."""
        if self._at is not None:
            earned = max(0.0, now_s - self._at) * self.bytes_per_s
            self._left = min(self.burst_bytes, self._left + earned)
        self._at = now_s
        return self._left

    def spend(self, now_s: float, count: float) -> None:
        """Take `count` bytes, on credit if need be."""
        self._left = max(-self.burst_bytes, self.left(now_s) - count)
