"""A process's event loop in virtual time: in what order inputs and timers are taken, and when.

What has arrived is handed over before a tick, within a bound, as in the trio
driver. While the process is stopped or busy, inputs queue up, and are handed over
in one burst. At most one tick is due at a time, however many deadlines have passed.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs

from mesh.effects import Effect
from mesh.now import Now
from node.core import NodeCore

DRAIN_MAX = 256
"""Inputs that the driver takes before it ticks, however many wait."""

Input = Callable[[NodeCore, Now], list[Effect]]


class Process(Protocol):
    """Whose loop it is: `sim.host.Host`."""

    paused: bool

    def take(self, give: Input) -> None:
        """Hand one input to the core."""

    def tick(self, core: NodeCore, now: Now) -> list[Effect]:
        """Tick the core."""


@attrs.define(eq=False)
class Loop:
    """One life's loop. Times are virtual seconds."""

    process: Process
    time: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    busy_until: float = 0.0
    """Until when the last input keeps the processor."""
    closed: bool = False
    """Whether the process is gone; nothing is taken then."""
    waited_s: float = attrs.field(init=False, default=0.0)
    """Longest that an input has waited here."""
    overrun_s: float = attrs.field(init=False, default=0.0)
    """Longest that an input has waited which the second tick before it left behind: a core cannot know of it."""
    _inbox: deque[tuple[float, Input]] = attrs.field(init=False, factory=deque)
    """When each came, and what it is."""
    _running: bool = attrs.field(init=False, default=False)
    _resumes_at: float | None = attrs.field(init=False, default=None)
    _drained: int = attrs.field(init=False, default=0)
    """Inputs since the last tick."""
    _tick_at: float | None = attrs.field(init=False, default=None)
    """When a tick is planned."""
    _tick_due: bool = attrs.field(init=False, default=False)
    _ticked: tuple[float, float] = attrs.field(init=False, default=(0.0, 0.0))
    """When the last tick but one and the last were taken."""

    def give(self, take: Input) -> None:
        """Let an input wait for its turn, which may be now."""
        self._inbox.append((self.time(), take))
        self.run()

    def arm(self, due_at: float) -> None:
        """Plan a tick, unless one is due or planned sooner."""
        due_at = max(self.time(), due_at)
        if not self._tick_due and (self._tick_at is None or due_at < self._tick_at):
            self._tick_at = due_at
            self.at(due_at, partial(self._wake, due_at))

    def _wake(self, at: float) -> None:
        if self._tick_at == at:
            self._tick_at, self._tick_due = None, True
            self.run()

    def run(self) -> None:
        """Take what waits, as far as the process can."""
        if self._running or self.closed or self.process.paused:
            return
        self._running = True
        while not self.closed and self.busy_until <= self.time() and (take := self._next()):
            self.process.take(take)
        self._running = False
        if (self._inbox or self._tick_due) and self._resumes_at != self.busy_until:
            self._resumes_at = self.busy_until
            self.at(self.busy_until, self.run)

    def _next(self) -> Input | None:
        if self._tick_due and (not self._inbox or self._drained >= DRAIN_MAX):
            self._tick_due, self._drained, self._ticked = False, 0, (self._ticked[1], self.time())
            return self.process.tick
        if not self._inbox:
            return None
        self._drained += 1
        came_at, take = self._inbox.popleft()
        self.waited_s = max(self.waited_s, self.time() - came_at)
        if came_at < self._ticked[0]:
            self.overrun_s = max(self.overrun_s, self.time() - came_at)
        return take
