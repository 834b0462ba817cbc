"""A byte budget: so many a second, and a burst (a token bucket)."""

import attrs


@attrs.define
class Allowance:
    """What may still be spent. Full at first."""

    per_s: float
    burst: float
    _left: float = attrs.field(init=False)
    _at: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def left(self, mono_s: float) -> int:
        """Bytes that may be spent now."""
        if self._at is not None:
            self._left = min(self.burst, self._left + (mono_s - self._at) * self.per_s)
        self._at = mono_s
        return int(self._left)

    def spend(self, mono_s: float, count: int) -> bool:
        """Spend so many bytes. Returns False, nothing spent, if there are not so many."""
        if self.left(mono_s) < count:
            return False
        self._left -= count
        return True
