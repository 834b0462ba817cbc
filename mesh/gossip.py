"""Rumours that wait to ride on packets, each sent a limited number of times.

SWIM (DSN 2002, section 4.1): a rumour that everybody passes on lambda * log(n) times
reaches all but about n^-(2*lambda - 2) of the members, so it is then forgotten here.
Invariants: one rumour per member, the newest (so at most as many as there are members);
those sent least go first, so a fresh rumour overtakes a stale one.
"""

import functools
import math

import attrs

SIZES_MAX = 256
"""Sizes of the mesh for which the number of sends is remembered."""


@functools.lru_cache(maxsize=SIZES_MAX)
def sends_max(members: int, factor: float) -> int:
    """How often each node passes a rumour on: ceil(factor * ln(members + 1)), at least 1."""
    return max(1, math.ceil(factor * math.log(members + 1)))


@attrs.define
class _Rumour:
    item: bytes
    order: int
    sends: int = 0


@attrs.define
class Broadcasts:
    """The queue of rumours, as encoded items."""

    _rumours: dict[str, _Rumour] = attrs.field(factory=dict, init=False)
    _order: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._rumours)

    def __contains__(self, node: str) -> bool:
        return node in self._rumours

    def offer(self, node: str, item: bytes) -> None:
        """Queue the newest rumour about `node`, instead of any older one."""
        self._order += 1
        self._rumours[node] = _Rumour(item, self._order)

    def discard(self, node: str) -> None:
        """Stop spreading what is said about `node`."""
        self._rumours.pop(node, None)

    def clear(self) -> None:
        """Stop spreading everything."""
        self._rumours.clear()

    def fill(self, budget_bytes: int, sends_max: int) -> list[bytes]:
        """Take rumours of at most `budget_bytes` in all: fewest sent first, then newest. O(n log n).

        Each counts as sent; one that has been sent `sends_max` times leaves the queue.
        """
        taken: list[bytes] = []
        waiting = sorted(self._rumours.items(), key=lambda entry: (entry[1].sends, -entry[1].order))
        for node, rumour in waiting:
            if len(rumour.item) > budget_bytes:
                continue
            budget_bytes -= len(rumour.item)
            rumour.sends += 1
            taken.append(rumour.item)
            if rumour.sends >= sends_max:
                del self._rumours[node]
        return taken
