"""How long what is read now may have waited in a socket before this process got to it.

Theory of operation. A datagram does not say when it came. Sockets are drained before timers fire, so whatever
is read came after the last tick, as long as the loop keeps up. A deadline that has passed shows that it does
not: it was stopped, or works off a queue, an input at a time. Then each input counts as old as the queue may
be. A tick that comes late, or after late input, may have been called with more still waiting (drivers drain within
a bound), so the queue is older than it: it began at the tick before, which is all that the bound allows.

Invariant: no input is older than `waited_s` says, while a tick on time leaves nothing behind and another no more
than a driver takes before the next; and a loop that is on time is told 0.
"""

import attrs

LATE_S = 0.01
"""Who runs later than this past a deadline was kept from running. An idle loop is a few milliseconds late."""


@attrs.define
class Backlog:
    """What one process knows of its own queue. Times are monotonic seconds."""

    _is_late: bool = attrs.field(init=False, default=False)
    """Whether what is read now may have waited."""
    _was_late: bool = attrs.field(init=False, default=False)
    """Whether anything since the last tick came late."""
    _ticked_at: float | None = attrs.field(init=False, default=None)
    _empty_at: float | None = attrs.field(init=False, default=None)
    """When nothing waited, at the latest."""

    def ran(self, now_s: float, lag_s: float) -> None:
        """Something is handled, so long after a deadline that has passed."""
        if lag_s > LATE_S:
            self._is_late = self._was_late = True
        if self._empty_at is None:
            self._ticked_at = self._empty_at = now_s

    def ticked(self, now_s: float) -> None:
        """Timers fire; call it after `ran`. On time, and after nothing late, they show that nothing waits."""
        self._is_late, self._was_late = self._was_late, False
        self._empty_at = self._ticked_at if self._is_late else now_s
        self._ticked_at = now_s

    def waited_s(self, now_s: float) -> float:
        """Longest that what is read now may have waited."""
        return now_s - self._empty_at if self._is_late and self._empty_at is not None else 0.0
