"""The table of members: one account per node, merged by the lattice.

Invariants:
- an account only moves up the lattice while it is held (`supersedes`);
- this node's own account is always held, and is neither probed nor sampled;
- at most `members_max` accounts. When full, the oldest dead or left one makes room; when
  all are live, the newcomer is refused (and counted);
- the digest covers id, generation, incarnation and liveness of the live accounts only:
  neither facts nor load, so that it is still while the mesh is still, and not the dead,
  whom each node forgets at its own time.

`next_probe` goes in SWIM's order (DSN 2002, section 4.3): round robin over a shuffled list, newcomers
inserted at random, reshuffled after each pass, so that two probes of one member are at
most 2n - 1 periods apart.
"""

import bisect
import hashlib
import random
from collections.abc import Container, Iterable

import attrs

from mesh.member import Liveness, Member, supersedes

DIGEST_BYTES = 8


@attrs.frozen
class Change:
    """An account was added or replaced."""

    before: Member | None
    after: Member


class Members:
    """The table. `apply` costs O(1), and O(n) when a member comes or goes."""

    def __init__(
        self, me: Member, rng: random.Random, members_max: int = 1024, known: Iterable[Member] = ()
    ) -> None:
        self._me = me.node
        self._rng = rng
        self._members_max = members_max
        self._rows: dict[str, Member] = {me.node: me}
        self._gone_at: dict[str, float] = {}
        self._order: list[str] = []
        self._ranks: list[str] = [me.node] if me.is_live else []
        self._cursor = 0
        self._live = 1 if me.is_live else 0
        self._digest = _fingerprint(me)
        self.refused = 0
        """Newcomers refused because the table was full of live members."""
        for row in known:
            if row.node != me.node:
                self.apply(row, 0.0)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        rows = ", ".join(f"{row.name}:{row.liveness.name.lower()}" for row in self._rows.values())
        return f"<Members of {self._me}: {rows}>"

    @property
    def live(self) -> int:
        """How many accounts are alive or suspect, this node's own included."""
        return self._live

    @property
    def rank(self) -> int:
        """This node's place among the live members, by id. O(log n)."""
        return bisect.bisect_left(self._ranks, self._me)

    def ranked(self, rank: int) -> Member:
        """The live member at this place, by id."""
        return self._rows[self._ranks[rank]]

    def get(self, node: str) -> Member | None:
        """The account of `node`, or None."""
        return self._rows.get(node)

    def all(self) -> tuple[Member, ...]:
        """Every account, in the order in which nodes were first heard of."""
        return tuple(self._rows.values())

    def dead(self) -> tuple[Member, ...]:
        """The members that died and are remembered, since they may only have been cut off."""
        return tuple(row for node in self._gone_at if (row := self._rows[node]).liveness is Liveness.DEAD)

    def digest(self) -> bytes:
        """Fingerprint of the live view, 8 bytes; equal digests mean equal views. O(1)."""
        return self._digest.to_bytes(DIGEST_BYTES, "big")

    def apply(self, new: Member, now_s: float) -> Change | None:
        """Merge an account. Returns what changed, or None when it was no news or there was no room."""
        before = self._rows.get(new.node)
        if before is not None and not supersedes(new, before):
            return None
        if before is None and not self._make_room():
            self.refused += 1
            return None
        self._rows[new.node] = new
        self._recount(before, new, now_s)
        return Change(before, new)

    def forget(self, before_s: float) -> tuple[Member, ...]:
        """Drop and return the accounts that have been dead or left since before `before_s`."""
        old = [node for node, since in self._gone_at.items() if since < before_s and node != self._me]
        return tuple(self._drop(node) for node in old)

    def next_probe(self) -> Member | None:
        """The next live member in probe order, or None when there is no other."""
        for _pass in range(2):
            if self._cursor < len(self._order):
                self._cursor += 1
                return self._rows[self._order[self._cursor - 1]]
            self._rng.shuffle(self._order)
            self._cursor = 0
        return None

    def sample(self, count: int, excluding: Container[str] = ()) -> list[Member]:
        """At most `count` members drawn at random among those alive. O(n)."""
        pool = [
            row
            for node in self._order
            if node not in excluding and (row := self._rows[node]).liveness is Liveness.ALIVE
        ]
        return self._rng.sample(pool, min(count, len(pool)))

    def _make_room(self) -> bool:
        if len(self._rows) < self._members_max:
            return True
        oldest = next((node for node in self._gone_at if node != self._me), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, node: str) -> Member:
        del self._gone_at[node]
        return self._rows.pop(node)

    def _recount(self, before: Member | None, after: Member, now_s: float) -> None:
        was_live, is_live = before is not None and before.is_live, after.is_live
        self._live += is_live - was_live
        if before is not None:
            self._digest ^= _fingerprint(before)
        self._digest ^= _fingerprint(after)
        if is_live:
            self._gone_at.pop(after.node, None)
        elif was_live or before is None:
            self._gone_at[after.node] = now_s
        if was_live != is_live:
            self._rerank(after.node, is_live)
        if after.node != self._me and was_live != is_live:
            (self._enlist if is_live else self._delist)(after.node)

    def _rerank(self, node: str, is_live: bool) -> None:
        at = bisect.bisect_left(self._ranks, node)
        if is_live:
            self._ranks.insert(at, node)
        else:
            del self._ranks[at]

    def _enlist(self, node: str) -> None:
        at = self._rng.randint(0, len(self._order))
        self._order.insert(at, node)
        self._cursor += at < self._cursor

    def _delist(self, node: str) -> None:
        at = self._order.index(node)
        del self._order[at]
        self._cursor -= at < self._cursor


def _fingerprint(row: Member) -> int:
    if not row.is_live:
        return 0
    identity = row.identity
    text = f"{identity.node} {identity.generation} {identity.incarnation} {int(row.liveness)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")
