"""What an entry has under way at each worker: flights, and the tokens that they are expected to cost there.

Every question is answered in constant time, since each is asked for every request, and ten thousand may be under way.
"""

from collections.abc import Iterable

import attrs


@attrs.define
class Sent:
    """Flights by the node that serves them. A flight is at one node at most."""

    _at: dict[str, dict[int, int]] = attrs.field(init=False, factory=dict)
    """node -> flight -> tokens; no node without flights."""
    _tokens: dict[str, int] = attrs.field(init=False, factory=dict)
    _node_of: dict[int, str] = attrs.field(init=False, factory=dict)

    def add(self, node: str, flight: int, tokens: int) -> None:
        """A flight that is nowhere goes to a node, where it will cost so many tokens."""
        assert flight not in self._node_of, "a flight is at one node at most"
        self._node_of[flight] = node
        self._at.setdefault(node, {})[flight] = tokens
        self._tokens[node] = self._tokens.get(node, 0) + tokens

    def remove(self, flight: int) -> None:
        """A flight is there no more; nothing if it is nowhere."""
        node = self._node_of.pop(flight, None)
        if node is None:
            return
        self._tokens[node] -= self._at[node].pop(flight)
        if not self._at[node]:
            del self._at[node], self._tokens[node]

    def flights(self, node: str) -> Iterable[int]:
        """The flights at a node, in the order in which they went there."""
        return self._at.get(node, {}).keys()

    def count(self, node: str) -> int:
        """How many flights are at a node."""
        return len(self._at.get(node, ()))

    def tokens(self, node: str) -> int:
        """Tokens that all flights at a node are expected to cost."""
        return self._tokens.get(node, 0)
