"""How many accusations of one member this node acts on: a token bucket per accuser.

Theory of operation. A broken node that takes its own deafness for everybody's death accuses all of a mesh, again
after each refutation. Each accusation that is new here costs one token of *one* of those who accuse: the first who
has one left pays. Without any, it is dropped: no case, no look, not passed on.

    tokens of an accuser    at most `per_window`, refilled at per_window / window_s

A real mass failure is accused by all who probe, each in its own turns, so that somebody can always pay; and what a
failed round of our own says costs nothing.

Bounds: ACCUSERS_MAX buckets; the accuser who was charged longest ago is forgotten, with its debts.
"""

from collections.abc import Iterable

import attrs

from mesh.bucket import Bucket

ACCUSERS_MAX = 1024


@attrs.define
class Credit:
    """Tokens by accuser. Times are monotonic seconds."""

    per_window: int
    """Accusations of one accuser that are acted on in one window; 0 acts on all."""
    window_s: float
    _left: dict[str, Bucket] = attrs.field(factory=dict, init=False)

    def accepts(self, now_s: float, accusers: Iterable[str]) -> bool:
        """Whether one of these can pay for an accusation; who accuses without a name is not charged."""
        names = tuple(accusers)
        if not self.per_window or not names:
            return True
        return any(self._pays(now_s, name) for name in names)

    def repay(self, now_s: float, accusers: Iterable[str]) -> None:
        """They were right: a round of our own has failed too."""
        for name in accusers:
            if (tokens := self._left.get(name)) is not None:
                tokens.level = min(tokens.burst, tokens.fill(now_s) + 1)

    def _pays(self, now_s: float, accuser: str) -> bool:
        tokens = self._left.pop(accuser, None) or Bucket(self.per_window / self.window_s, self.per_window)
        self._left[accuser] = tokens
        if len(self._left) > ACCUSERS_MAX:
            del self._left[next(iter(self._left))]
        return tokens.take(now_s)
