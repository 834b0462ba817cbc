"""What an entry decided lately about whom to ask, and on which figures: `/why?request=ID`.

Invariant: at most `DECISIONS_MAX` are kept, each of at most `mesh.router.SHOWN_MAX` candidates; the oldest goes.
A flight that nobody can serve is tried again and again: only the first look of such a search is kept.
"""

import collections
from collections.abc import Iterator
from typing import Any

import attrs

from mesh.router import Choice, Scored

DECISIONS_MAX = 1024


@attrs.frozen
class Decision:
    """One choice of a worker for one attempt of a flight."""

    at_s: float
    """Monotonic seconds at the entry."""
    flight: int
    attempt: int
    """Number of the attempt that was opened by it, or that would have been."""
    model: str
    policy: str
    choice: Choice
    declined: tuple[tuple[str, str], ...] = ()
    """Who had turned the flight down or lost it since it was last accepted, and why."""

    def account(self) -> dict[str, Any]:
        """Say it in plain values."""
        chosen = self.choice.chosen
        return {
            "request": f"{self.flight:016x}",
            "attempt": self.attempt,
            "model": self.model,
            "policy": self.policy,
            "chosen": chosen.candidate.node if chosen else None,
            "why": self.choice.why,
            "known": self.choice.known,
            "able": self.choice.able,
            "declined": dict(self.declined),
            "candidates": [_account(one) for one in self.choice.best],
        }


def _account(scored: Scored) -> dict[str, Any]:
    candidate = scored.candidate
    return {
        "node": candidate.node,
        "local": candidate.local,
        "zone": candidate.zone,
        "score": round(scored.score, 6),
        "wait_s": round(scored.wait_s, 6),
        "queued_tokens": candidate.queued_tokens,
        "running": candidate.running,
        "tokens_per_s": candidate.tokens_per_s,
        "age_s": round(candidate.age_s, 3),
        "sent_tokens": candidate.sent_tokens,
        "sent_flights": candidate.sent_flights,
    }


@attrs.define
class Decisions:
    """The ring of what was decided last."""

    _ring: collections.deque[Decision] = attrs.field(
        init=False, factory=lambda: collections.deque(maxlen=DECISIONS_MAX)
    )

    def __len__(self) -> int:
        return len(self._ring)

    def note(self, decision: Decision) -> None:
        """Remember one; the oldest may be forgotten for it."""
        self._ring.append(decision)

    def of(self, flight: int) -> Iterator[Decision]:
        """Yield what was decided for a flight, oldest first. O(DECISIONS_MAX)."""
        return (decision for decision in self._ring if decision.flight == flight)
