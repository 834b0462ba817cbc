"""One ordered agenda of deadlines, so that a core names one moment to its driver.

Invariants: a key has at most one deadline; keys come due in the order of (time, the
order in which they were set), which makes a run reproducible; a cancelled or moved
entry stays in the heap until it surfaces (lazy deletion) or until the dead entries
outnumber the live ones, so the heap holds at most twice the live keys and a constant.
"""

import heapq
from collections.abc import Hashable, Iterator

import attrs

DEAD_ENTRIES_MAX = 64
"""Dead heap entries tolerated beyond the number of live ones before the heap is rebuilt."""


@attrs.define
class Agenda:
    """Deadlines by key. `set`, `cancel` and one popped key cost O(log n)."""

    _heap: list[tuple[float, int, Hashable]] = attrs.field(factory=list, init=False)
    _live: dict[Hashable, tuple[float, int]] = attrs.field(factory=dict, init=False)
    _sequence: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._live

    def set(self, key: Hashable, at: float) -> None:
        """Let `key` come due at `at` (monotonic seconds), instead of whenever it was set for."""
        self._sequence += 1
        self._live[key] = (at, self._sequence)
        heapq.heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > 2 * len(self._live) + DEAD_ENTRIES_MAX:
            self._rebuild(0.0)

    def cancel(self, key: Hashable) -> None:
        """Forget the deadline of `key`, if it has one."""
        self._live.pop(key, None)

    def at(self, key: Hashable) -> float | None:
        """When `key` comes due, or None."""
        entry = self._live.get(key)
        return entry[0] if entry is not None else None

    def due(self, now_mono: float) -> Iterator[Hashable]:
        """Take out and yield the keys whose time has come, in order, one at a time.

        A key that the caller cancels meanwhile is not yielded; one that it sets meanwhile waits
        for the next call, so that the loop is bounded.
        """
        newest = self._sequence
        while (deadline := self.next_deadline()) is not None and deadline <= now_mono:
            if self._heap[0][1] > newest:
                return
            key = heapq.heappop(self._heap)[2]
            del self._live[key]
            yield key

    def clear(self) -> None:
        """Forget every deadline."""
        self._heap.clear()
        self._live.clear()

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None when there is none."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def shift(self, by_s: float) -> None:
        """Move every deadline by `by_s` seconds: this process was away for so long."""
        self._rebuild(by_s)

    def _is_live(self, entry: tuple[float, int, Hashable]) -> bool:
        return self._live.get(entry[2]) == entry[:2]

    def _rebuild(self, shift_s: float) -> None:
        self._live = {key: (at + shift_s, order) for key, (at, order) in self._live.items()}
        self._heap = [(at, order, key) for key, (at, order) in self._live.items()]
        heapq.heapify(self._heap)
