"""The table of members: one account per node, merged by the lattice.

Invariants:
- an account only moves up the lattice while it is held (`supersedes`);
- this node's own account is always held, and is neither probed nor sampled;
- at most `members_max` accounts. When full, the oldest dead or left one makes room; when
  all are live, the newcomer is refused (and counted);
- the digest covers id, generation, incarnation and liveness of the live accounts only:
  neither facts nor load, so that it is still while the mesh is still, and not the dead,
  whom each node forgets at its own time.

The table is a roll (`mesh.roll`), which never changes and may be shared, and what differs from it: accounts
by node, the ranks of the roll that are no longer live, the ids of the live that it lacks. When more differs
than the roll holds, a new roll is made, so that a change costs O(log n) by and large.

`next_probe` goes in SWIM's order (DSN 2002, section 4.3): round robin over a shuffled list, newcomers
inserted at random, reshuffled after each pass, so that two probes of one member are at
most 2n - 1 periods apart. The list is there only once it has been asked for.
"""

import bisect
import random
from collections.abc import Container

import attrs

from mesh.member import Liveness, Member, supersedes
from mesh.roll import DIGEST_BYTES, NOBODY, Roll, fingerprint

DIFFERENCES_MAX = 64
"""So many accounts may differ from the roll before a new one is made, however small it is."""
SCAN_MAX = 32
"""In a table of so few live members a sample is drawn from a list of all that may be drawn."""
DRAWS = 8
"""Draws per member wanted, in a larger one, before all are listed after all."""


@attrs.frozen
class Change:
    """An account was added or replaced."""

    before: Member | None
    after: Member


class Members:
    """The table. `apply` costs O(log n), amortised."""

    def __init__(
        self,
        me: Member,
        rng: random.Random,
        members_max: int = 1024,
        known: Roll = NOBODY,
        differences_max: int = DIFFERENCES_MAX,
    ) -> None:
        """`known` holds accounts that are believed from the start; it is shared, not copied."""
        self._me = me.node
        self._rng = rng
        self._members_max = members_max
        self._roll, self._rows = known, known.rows
        self._differences_max = differences_max
        self._own: dict[str, Member | None] = {}
        """Where we differ from the roll; None where we have dropped an account of it."""
        self._dropped = 0
        self._added = 0
        self._went: list[int] = []
        """Ranks of the roll who are not live here, in order."""
        self._came: list[str] = []
        """The live whom the roll does not know as live, by id."""
        self._rank: int | None = None
        self._gone_at = dict.fromkeys(known.gone, 0.0)
        self._order: list[str] | None = None
        self._cursor = 0
        self._live = len(self._roll.ranks)
        self._digest = self._roll.digest
        self.refused = 0
        """Newcomers refused because the table was full of live members."""
        self.returned = 0
        """Members that had been held dead and came back in the same life: they had only been cut off."""
        if self._roll.rows.get(me.node) != me:
            self._put(self.get(me.node), me, 0.0)
        assert len(self) <= members_max, f"{len(self)} accounts are known from the start"

    def __len__(self) -> int:
        return len(self._roll.rows) + self._added - self._dropped

    def __repr__(self) -> str:
        rows = ", ".join(f"{row.name}:{row.liveness.name.lower()}" for row in self.all())
        return f"<Members of {self._me}: {rows}>"

    @property
    def live(self) -> int:
        """How many accounts are alive or suspect, this node's own included."""
        return self._live

    @property
    def rank(self) -> int:
        """This node's place among the live members, by id. O(log n)."""
        if self._rank is None:
            at = bisect.bisect_left(self._roll.ranks, self._me)
            self._rank = at - bisect.bisect_left(self._went, at) + bisect.bisect_left(self._came, self._me)
        return self._rank

    def ranked(self, rank: int) -> Member:
        """The live member at this place, by id. O(log n), squared while some have come or gone."""
        if self._went or self._came:
            node = self._ranked_apart(rank)
        else:
            node = self._roll.ranks[rank]
        row = self.get(node)
        assert row is not None, "the live are held"
        return row

    def get(self, node: str) -> Member | None:
        """The account of `node`, or None."""
        own = self._own
        if own:
            row = own.get(node)
            if row is not None or node in own:
                return row
        return self._rows.get(node)

    def all(self) -> tuple[Member, ...]:
        """Every account, in the order in which nodes were first heard of."""
        rows, own = self._roll.rows, self._own
        if not own:
            return tuple(rows.values())
        held = (own.get(node, row) for node, row in rows.items())
        new = (row for node, row in own.items() if node not in rows)
        return tuple(row for part in (held, new) for row in part if row is not None)

    def dead(self) -> tuple[Member, ...]:
        """The members that died and are remembered, since they may only have been cut off."""
        rows = (self.get(node) for node in self._gone_at)
        return tuple(row for row in rows if row is not None and row.liveness is Liveness.DEAD)

    def digest(self) -> bytes:
        """Fingerprint of the live view, 8 bytes; equal digests mean equal views. O(1)."""
        return self._digest.to_bytes(DIGEST_BYTES, "big")

    def between(self, low: str, high: str) -> tuple[list[str], list[int]]:
        """Ids, in order, and fingerprints of the live members with `low` <= id <= `high`. O(log n + found)."""
        ranks, own = self._roll.ranks, self._own
        start, end = bisect.bisect_left(ranks, low), bisect.bisect_right(ranks, high)
        ids, prints = list(ranks[start:end]), list(self._roll.prints[start:end])
        if not own:
            return ids, prints
        known = dict(zip(ids, prints, strict=True))
        for at in self._went[bisect.bisect_left(self._went, start) : bisect.bisect_left(self._went, end)]:
            del known[ranks[at]]
        came = self._came[bisect.bisect_left(self._came, low) : bisect.bisect_right(self._came, high)]
        nodes = sorted([*known, *came])
        return nodes, [fingerprint(row) if (row := own.get(node)) else known[node] for node in nodes]

    def apply(self, new: Member, now_s: float) -> Change | None:
        """Merge an account. Returns what changed, or None when it was no news or there was no room."""
        before = self.get(new.node)
        if before is not None and not supersedes(new, before):
            return None
        if before is None and not self._make_room():
            self.refused += 1
            return None
        self._put(before, new, now_s)
        return Change(before, new)

    def forget(self, before_s: float) -> tuple[Member, ...]:
        """Drop and return the accounts that have been dead or left since before `before_s`."""
        old = [node for node, since in self._gone_at.items() if since < before_s and node != self._me]
        return tuple(self._drop(node) for node in old)

    def next_probe(self) -> Member | None:
        """The next live member in probe order, or None when there is no other."""
        order = self._probe_order()
        for _pass in range(2):
            if self._cursor < len(order):
                self._cursor += 1
                return self.get(order[self._cursor - 1])
            self._rng.shuffle(order)
            self._cursor = 0
        return None

    def sample(self, count: int, excluding: Container[str] = (), suspects: bool = False) -> list[Member]:
        """At most `count` of those alive, or suspect if told so, at random. O(count), O(n) if few may be drawn."""
        worst = Liveness.SUSPECT if suspects else Liveness.ALIVE
        picked: list[Member] = []
        if self._live > SCAN_MAX:
            for _ in range(DRAWS * count):
                row = self.ranked(self._rng.randrange(self._live))
                if self._may_draw(row, excluding, worst) and row not in picked:
                    picked.append(row)
                    if len(picked) == count:
                        return picked
        everybody = map(self.ranked, range(self._live))
        pool = [row for row in everybody if self._may_draw(row, excluding, worst)]
        return self._rng.sample(pool, min(count, len(pool)))

    def _may_draw(self, row: Member, excluding: Container[str], worst: Liveness) -> bool:
        return row.liveness <= worst and row.node != self._me and row.node not in excluding

    def _make_room(self) -> bool:
        if len(self) < self._members_max:
            return True
        oldest = next((node for node in self._gone_at if node != self._me), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, node: str) -> Member:
        del self._gone_at[node]
        row = self.get(node)
        assert row is not None, "who is gone is held"
        if node in self._roll.rows:
            self._own[node] = None
            self._dropped += 1
        else:
            del self._own[node]
            self._added -= 1
        return row

    def _put(self, before: Member | None, after: Member, now_s: float) -> None:
        node = after.node
        was_live, is_live = before is not None and before.is_live, after.is_live
        if node not in self._roll.rows:
            self._added += before is None
        elif before is None:
            self._dropped -= 1
        self._own[node] = after
        self._digest ^= fingerprint(after) ^ (fingerprint(before) if before is not None else 0)
        if is_live:
            self._gone_at.pop(node, None)
            self.returned += _was_cut_off(before, after)
        elif was_live or before is None:
            self._gone_at[node] = now_s
        if was_live != is_live:
            self._live += is_live - was_live
            self._rerank(node, is_live)
            if node != self._me and self._order is not None:
                (self._enlist if is_live else self._delist)(self._order, node)
        if len(self._own) > max(self._differences_max, len(self._roll.rows)):
            self._settle()

    def _settle(self) -> None:
        """Make a roll of what is held."""
        self._roll = Roll.of(self.all())
        self._rows = self._roll.rows
        self._own = {}
        self._added = self._dropped = 0
        self._went, self._came, self._rank = [], [], None

    def _rerank(self, node: str, is_live: bool) -> None:
        ranks = self._roll.ranks
        at = bisect.bisect_left(ranks, node)
        self._rank = None
        if at < len(ranks) and ranks[at] == node:
            index = bisect.bisect_left(self._went, at)
            if is_live:
                del self._went[index]
            else:
                self._went.insert(index, at)
        elif is_live:
            bisect.insort(self._came, node)
        else:
            del self._came[bisect.bisect_left(self._came, node)]

    def _ranked_apart(self, rank: int) -> str:
        """The id at this rank, by halving between the roll's part of it and that of those who came."""
        came, low, high = self._came, 0, len(self._came)
        while low < high:
            middle = (low + high) // 2
            if self._rank_of_came(middle) < rank:
                low = middle + 1
            else:
                high = middle
        if low < len(came) and self._rank_of_came(low) == rank:
            return came[low]
        return self._roll.ranks[self._nth_left(rank - low)]

    def _rank_of_came(self, index: int) -> int:
        at = bisect.bisect_left(self._roll.ranks, self._came[index])
        return index + at - bisect.bisect_left(self._went, at)

    def _nth_left(self, place: int) -> int:
        """The rank in the roll of the live one with so many live ones of the roll before it."""
        low, high = 0, len(self._went)
        while low < high:
            middle = (low + high) // 2
            if self._went[middle] - middle <= place:
                low = middle + 1
            else:
                high = middle
        return place + low

    def _probe_order(self) -> list[str]:
        if self._order is None:
            self._order = [row.node for row in self.all() if row.is_live and row.node != self._me]
            self._rng.shuffle(self._order)
        return self._order

    def _enlist(self, order: list[str], node: str) -> None:
        at = self._rng.randint(0, len(order))
        order.insert(at, node)
        self._cursor += at < self._cursor

    def _delist(self, order: list[str], node: str) -> None:
        at = order.index(node)
        del order[at]
        self._cursor -= at < self._cursor


def _was_cut_off(before: Member | None, after: Member) -> bool:
    if before is None or before.liveness is not Liveness.DEAD:
        return False
    return before.identity.generation == after.identity.generation
