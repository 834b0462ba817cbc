"""How long a suspect has to refute: Lifeguard's dynamic timeout, as pure functions.

    timeout(C) = max(min, max - (max - min) * log(C + 1) / log(K + 1))

C counts independent accusers beyond the first; K are expected (arXiv 1707.00788, section
IV-B). A lone accuser, who may be the sick one, gets the long timeout; each further one
shortens it towards the minimum. Where nobody else could accuse (two nodes, K = 0) the
maximum stands: the opposite of memberlist, which then takes the minimum, since in a mesh of
two each side would bury the other at the first hiccup.
"""

import math
from collections.abc import Iterable

import attrs

from mesh.identity import Identity


def suspicion_min_s(members: int, period_s: float, factor: float) -> float:
    """Seconds that a suspect always gets: factor * max(1, log10(members)) * period.

    The logarithm covers the time a refutation needs to spread (Lifeguard section IV-B; memberlist).
    """
    return factor * max(1.0, math.log10(max(1, members))) * period_s


def suspicion_timeout_s(min_s: float, max_s: float, confirmations: int, expected: int) -> float:
    """Seconds from the first accusation to death, after `confirmations` of `expected` others."""
    if expected < 1:
        return max_s
    share = math.log(confirmations + 1) / math.log(expected + 1)
    return max(min_s, max_s - (max_s - min_s) * share)


@attrs.frozen
class Suspicion:
    """An open case against one identity, as one observer holds it."""

    identity: Identity
    """Whom it accuses; an account with a higher incarnation closes the case."""
    started_at: float
    """Monotonic seconds when this observer first heard of it."""
    min_s: float
    max_s: float
    expected: int
    """Independent confirmations that shorten the timeout to `min_s` (Lifeguard's K)."""
    accusers: tuple[str, ...] = ()
    """Distinct accusing nodes, first to last; at most 1 + expected are kept."""
    born_at: float = 0.0
    """When it was first said, as far as is known: who has answered since then need not be looked at."""
    ours: bool = False
    """Whether a round of this node's own has failed since."""

    @property
    def deadline_at(self) -> float:
        """Monotonic seconds when the suspect is out of time."""
        confirmations = max(0, len(self.accusers) - 1)
        return self.started_at + suspicion_timeout_s(self.min_s, self.max_s, confirmations, self.expected)

    def names(self, accusers: Iterable[str]) -> bool:
        """Whether each of them is among the accusers, so that they add nothing."""
        return all(node in self.accusers for node in accusers)

    def confirmed_by(self, accusers: Iterable[str]) -> "Suspicion":
        """The case with these accusers too; equal to this one when they add nothing."""
        known = dict.fromkeys((*self.accusers, *accusers))
        return attrs.evolve(self, accusers=tuple(known)[: self.expected + 1])

    def shifted(self, by_s: float) -> "Suspicion":
        """The case as if it had begun `by_s` seconds later."""
        return attrs.evolve(self, started_at=self.started_at + by_s)
