"""Rumours that wait to ride on packets, each sent a limited number of times.

SWIM (DSN 2002, section 4.1): a rumour that everybody passes on lambda * log(n) times
reaches all but about n^-(2*lambda - 2) of the members, so it is then forgotten here.

Order. Doubts, and what refutes them, go before mere news: a thousand joins must not keep a suspect from
hearing that it is suspected, nor its answer from being heard. Among the urgent, and among the news, those
sent least go first, so a fresh rumour overtakes a stale one; of equals, life goes before doubt
(whoever is refuted should not be buried meanwhile); of the unsent the newest first, of others by turns.

Invariant: one rumour per member, the newest (so at most as many as there are members).
"""

import enum
import functools
import math
from collections.abc import Iterator

import attrs

SIZES_MAX = 256
"""Sizes of the mesh for which the number of sends is remembered."""


class Rank(enum.IntEnum):
    """What sort of rumour it is; lower goes first."""

    LIFE = 0
    """A member has spoken up for itself, with a higher incarnation."""
    DOUBT = 1
    """Suspect, dead or left."""
    NEWS = 2
    """A newcomer."""


@functools.lru_cache(maxsize=SIZES_MAX)
def sends_max(members: int, factor: float) -> int:
    """How often each node passes a rumour on: ceil(factor * ln(members + 1)), at least 1."""
    return max(1, math.ceil(factor * math.log(members + 1)))


@attrs.define(eq=False)
class _Rumour:
    node: str
    item: bytes
    rank: Rank
    born_at: float
    most: int | None
    sends: int = 0

    @property
    def shelf(self) -> tuple[bool, int, Rank]:
        return (self.rank is Rank.NEWS, self.sends, self.rank)


@attrs.define
class Broadcasts:
    """The queue of rumours, as encoded items."""

    _rumours: dict[str, _Rumour] = attrs.field(factory=dict, init=False)
    _shelves: dict[tuple[bool, int, Rank], dict[str, _Rumour]] = attrs.field(factory=dict, init=False)
    """By urgency, times sent and rank; on each, in order of arrival there. None is empty."""
    _least_bytes: int = attrs.field(default=2**16, init=False)
    """No rumour was ever shorter."""

    def __len__(self) -> int:
        return len(self._rumours)

    def __contains__(self, node: str) -> bool:
        return node in self._rumours

    def offer(
        self,
        node: str,
        item: bytes,
        rank: Rank = Rank.NEWS,
        born_at: float = 0.0,
        most: int | None = None,
    ) -> None:
        """Queue the newest rumour about `node`, instead of any older one.

        `born_at` is when it was first said, as monotonic seconds of ours; it is sent `most` times at most.
        """
        self.discard(node)
        self._least_bytes = min(self._least_bytes, len(item))
        self._rumours[node] = rumour = _Rumour(node, item, rank, born_at, most)
        self._put(rumour)

    def discard(self, node: str) -> None:
        """Stop spreading what is said about `node`."""
        rumour = self._rumours.pop(node, None)
        if rumour is not None:
            self._take(rumour)

    def clear(self) -> None:
        """Stop spreading everything."""
        self._rumours.clear()
        self._shelves.clear()

    def fill(self, budget_bytes: int, sends_max: int, alive_sends_max: int | None = None) -> list[bytes]:
        """The items of `take`."""
        return [item for item, _ in self.take(budget_bytes, sends_max, alive_sends_max)]

    def take(
        self, budget_bytes: int, sends_max: int, alive_sends_max: int | None = None, each_bytes: int = 0
    ) -> list[tuple[bytes, float]]:
        """Take rumours, each with its birth, of at most `budget_bytes` in all, counting `each_bytes` more for each.

        O(taken), and what does not fit is passed over. Each counts as sent; one that has been sent
        `sends_max` times leaves the queue, and one that tells of somebody alive already after
        `alive_sends_max`.
        """
        taken: list[_Rumour] = []
        for rumour in self._waiting():
            if budget_bytes < self._least_bytes:
                break
            if len(rumour.item) + each_bytes <= budget_bytes:
                budget_bytes -= len(rumour.item) + each_bytes
                taken.append(rumour)
        for rumour in taken:
            doubt = rumour.rank is Rank.DOUBT or alive_sends_max is None
            often = sends_max if doubt else alive_sends_max
            self._sent(rumour, often if rumour.most is None else min(often or rumour.most, rumour.most))
        return [(rumour.item, rumour.born_at) for rumour in taken]

    def _waiting(self) -> Iterator[_Rumour]:
        for key in sorted(self._shelves):
            shelf = self._shelves[key].values()
            yield from shelf if key[1] else reversed(shelf)

    def _sent(self, rumour: _Rumour, sends_max: int | None) -> None:
        self._take(rumour)
        rumour.sends += 1
        if sends_max is not None and rumour.sends >= sends_max:
            del self._rumours[rumour.node]
        else:
            self._put(rumour)

    def _put(self, rumour: _Rumour) -> None:
        self._shelves.setdefault(rumour.shelf, {})[rumour.node] = rumour

    def _take(self, rumour: _Rumour) -> None:
        shelf = self._shelves[rumour.shelf]
        del shelf[rumour.node]
        if not shelf:
            del self._shelves[rumour.shelf]
