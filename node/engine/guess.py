"""Guesses at what a sequence says next: what followed when it last said the same (prompt lookup decoding).

Guesses are verified: a step computes them as if they had been said, the sampler draws at each of their positions
with that position's own key, and they count as far as it draws the same. So they change how fast a text is said
and never what is said; what a guesser remembers is no part of the resume contract.

Whoever guesses wrong pauses, for twice as many steps each time: a text that does not repeat itself costs next to
nothing.
"""

from collections.abc import Sequence

import attrs

GRAM = 3
"""Ids that must have been said before, in the same order, for what followed them to be a guess."""

INDEX_MAX = 16_384
"""Most ids of a text that are remembered, the last ones: some 2 MB per sequence."""

PAUSE_MAX = 64
"""Most steps without a guess: then the text is given another chance."""


@attrs.define
class Guesser:
    """One sequence's guesses."""

    width: int = 2
    """Ids to guess at most; grows while guesses hold."""
    _followed: dict[tuple[int, ...], int] = attrs.field(init=False, factory=dict)
    """Where each gram was last followed by an id."""
    _indexed: int = attrs.field(init=False, default=GRAM)
    _pause: int = attrs.field(init=False, default=0)
    _pauses: int = attrs.field(init=False, default=1)

    def guess(self, ids: Sequence[int], most: int) -> tuple[int, ...]:
        """Return up to `most` ids that may follow `ids`. `ids` only grows from call to call. O(new ids)."""
        self._index(ids)
        if self._pause:
            self._pause -= 1
            return ()
        at = self._followed.get(tuple(ids[-GRAM:]))
        if at is None:
            return ()
        guessed: list[int] = []
        for place in range(at, at + min(most, self.width)):
            guessed.append(ids[place] if place < len(ids) else guessed[place - len(ids)])
        return tuple(guessed)

    def learn(self, guessed: int, right: int) -> None:
        """Take how many of the last guess's ids were right."""
        if right == guessed:
            self.width, self._pauses = 2 * self.width, 1
        elif right:
            self.width, self._pauses = max(right, 1), 1
        else:
            self.width = max(self.width // 2, 1)
            self._pauses = min(2 * self._pauses, PAUSE_MAX)
            self._pause = self._pauses
        self.width = min(self.width, 64)

    def _index(self, ids: Sequence[int]) -> None:
        start = max(self._indexed, len(ids) - INDEX_MAX)
        for place in range(start, len(ids)):
            self._followed[tuple(ids[place - GRAM : place])] = place
        self._indexed = max(start, len(ids))
        if len(self._followed) > 2 * INDEX_MAX:
            self._followed = {gram: at for gram, at in self._followed.items() if at >= len(ids) - INDEX_MAX}
