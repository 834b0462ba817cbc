"""The other live members and their addresses, to draw from at random in constant time."""

import random

import attrs

from mesh.effects import Address


@attrs.define
class Roster:
    """Each operation costs O(1), a draw O(what it draws)."""

    _places: dict[str, int] = attrs.field(init=False, factory=dict)
    _rows: list[tuple[str, Address]] = attrs.field(init=False, factory=list)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, node: str) -> bool:
        return node in self._places

    def put(self, node: str, address: Address) -> None:
        """Add a member, or note its new address."""
        if node in self._places:
            self._rows[self._places[node]] = (node, address)
        else:
            self._places[node] = len(self._rows)
            self._rows.append((node, address))

    def drop(self, node: str) -> None:
        """Take a member out, if it is in."""
        place = self._places.pop(node, None)
        if place is None:
            return
        last = self._rows.pop()
        if last[0] != node:
            self._rows[place] = last
            self._places[last[0]] = place

    def address(self, node: str) -> Address:
        """Where a member listens."""
        return self._rows[self._places[node]][1]

    def draw(self, rng: random.Random, count: int) -> list[tuple[str, Address]]:
        """At most `count` of them, none twice."""
        return rng.sample(self._rows, min(count, len(self._rows)))
