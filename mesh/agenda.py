"""One ordered agenda of deadlines, so that a core names one moment to its driver.

Invariants: a key has at most one deadline; keys come due in the order of (time, the
order in which they were set), which makes a run reproducible; a cancelled or moved
entry stays in the heap until it surfaces (lazy deletion) or until the dead entries
outnumber the live ones, so the heap holds at most twice the live keys and a constant. No key is None.
"""

import heapq
from collections.abc import Hashable, Iterator
from typing import Any

import attrs

DEAD_ENTRIES_MAX = 64
"""Dead heap entries tolerated beyond the number of live ones before the heap is rebuilt."""

KEY = 2
"""Where an entry has its key."""


Entry = list[Any]
"""[time, the order in which it was set, key], or None for the key once it is cancelled or moved."""


@attrs.define
class Agenda:
    """Deadlines by key. `set`, `cancel` and one popped key cost O(log n)."""

    _heap: list[Entry] = attrs.field(factory=list, init=False)
    _live: dict[Hashable, Entry] = attrs.field(factory=dict, init=False)
    _sequence: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._live

    def set(self, key: Hashable, at: float) -> None:
        """Let `key` come due at `at` (monotonic seconds), instead of whenever it was set for."""
        moved = self._live.get(key)
        if moved is not None:
            moved[KEY] = None
        self._sequence += 1
        entry = self._live[key] = [at, self._sequence, key]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._live) + DEAD_ENTRIES_MAX:
            self._rebuild()

    def cancel(self, key: Hashable) -> None:
        """Forget the deadline of `key`, if it has one."""
        entry = self._live.pop(key, None)
        if entry is not None:
            entry[KEY] = None

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
            key = heapq.heappop(self._heap)[KEY]
            del self._live[key]
            yield key

    def clear(self) -> None:
        """Forget every deadline."""
        self._heap.clear()
        self._live.clear()

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None when there is none."""
        heap = self._heap
        while heap:
            if heap[0][KEY] is not None:
                return heap[0][0]
            heapq.heappop(heap)
        return None

    def shift(self, by_s: float) -> None:
        """Move every deadline by `by_s` seconds: this process was away for so long."""
        for entry in self._live.values():
            entry[0] += by_s
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [*self._live.values()]
        heapq.heapify(self._heap)
