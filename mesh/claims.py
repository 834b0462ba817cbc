"""Claims: requests of this entry whose clients may go away and come back.

Theory of operation. A claim names the flights of one request (one per choice) and
carries a note, opaque here, from which the request can be answered again. While
somebody reads it, nothing bounds it but its flights. When its last reader has gone
it *waits*: its flights go on and their logs are kept for `return_s`. If all that
waits holds more than `waiting_bytes_max`, those that have waited longest are given
up first. A claim that is given up takes its flights along (`ClaimEnded`).

Invariant: a claim waits iff it is held and has no readers, and then it has a deadline.
"""

from collections.abc import Callable

import attrs

from mesh import wire
from mesh.agenda import Agenda
from mesh.facts import ClaimEnded, Fact
from mesh.now import Now
from mesh.wire import field, integer, many, raw

FLIGHTS_MAX = 64
"""Most choices of one request."""

NOTE_BYTES_MAX = 8 * 2**20
"""Longest note: a request's body and little more."""

REVIEW_S = 1.0
"""So often the logs of those that wait are measured, for they go on growing."""


@attrs.frozen(eq=False)
class Claim:
    """One request that its client may come back for."""

    id: int = field(integer(0, wire.U64_MAX))
    """The id of its first flight, which the client knows."""
    flights: tuple[int, ...] = field(many(integer(0, wire.U64_MAX), FLIGHTS_MAX))
    note: bytes = field(raw(NOTE_BYTES_MAX))
    """Whatever the shell needs to answer the request again, at any node."""


@attrs.frozen
class ClaimOptions:
    """How long, and how much, is kept for clients that have gone."""

    return_s: float = 60.0
    """Seconds after its last reader has gone in which a client may come back."""
    waiting_bytes_max: int = 64 * 2**20
    """Most bytes of logs and notes, roughly, that all waiting claims may hold."""


@attrs.define
class ClaimStatistics:
    """Counters since the node started."""

    made: int = 0
    returned: int = 0
    """Clients that came back to a claim held here."""
    expired: int = 0
    """Claims whose clients did not come back in time."""
    evicted: int = 0
    """Claims given up early, for others' sake."""
    waiting: int = 0
    """Claims that nobody reads now."""


@attrs.define
class Claims:
    """The claims of this entry. `size(flight)` is what a flight's log holds, in bytes."""

    size: Callable[[int], int]
    options: ClaimOptions = ClaimOptions()
    held: dict[int, Claim] = attrs.Factory(dict)
    statistics: ClaimStatistics = attrs.Factory(ClaimStatistics)
    _readers: dict[int, int] = attrs.field(init=False, factory=dict)
    _waiting: dict[int, None] = attrs.field(init=False, factory=dict)
    """Those without readers, the longest waiting first."""
    _agenda: Agenda = attrs.field(init=False, factory=Agenda)

    def add(self, claim: Claim) -> None:
        """Hold a claim, which its maker reads."""
        assert claim.id not in self.held
        self.held[claim.id] = claim
        self._readers[claim.id] = 1
        self.statistics.made += 1

    def attach(self, id: int) -> Claim | None:
        """Begin to read a claim; None if it is not held here."""
        claim = self.held.get(id)
        if claim is None:
            return None
        self._readers[id] += 1
        self.statistics.returned += 1
        self._rouse(id)
        return claim

    def detach(self, now: Now, claim: Claim) -> list[Fact]:
        """End one reading; without readers, the claim waits. One that was ended and made anew has other readers."""
        id = claim.id
        if self.held.get(id) is not claim:
            return []
        self._readers[id] -= 1
        assert self._readers[id] >= 0
        if self._readers[id]:
            return []
        self._waiting[id] = None
        self._agenda.set(("return", id), now.mono + self.options.return_s)
        return self._review(now)

    def end(self, id: int) -> list[Fact]:
        """Give up a claim and its flights; nothing if it is not held."""
        claim = self.held.pop(id, None)
        if claim is None:
            return []
        self._rouse(id)
        del self._readers[id]
        return [ClaimEnded(id, claim.flights)]

    def readers(self, id: int) -> int:
        """Return how many read a claim now."""
        return self._readers.get(id, 0)

    @property
    def waiting_flights(self) -> int:
        """Flights that nobody reads now."""
        return sum(len(self.held[id].flights) for id in self._waiting)

    def _rouse(self, id: int) -> None:
        self._waiting.pop(id, None)
        self._agenda.cancel(("return", id))
        if not self._waiting:
            self._agenda.cancel(("review", 0))
        self.statistics.waiting = len(self._waiting)

    def _review(self, now: Now) -> list[Fact]:
        """Give up the longest waiting until the others fit."""
        self.statistics.waiting = len(self._waiting)
        sizes = {id: self._size(self.held[id]) for id in self._waiting}
        over, facts = sum(sizes.values()) - self.options.waiting_bytes_max, []
        for id, size in sizes.items():
            if over <= 0:
                break
            over -= size
            self.statistics.evicted += 1
            facts += self.end(id)
        if self._waiting:
            self._agenda.set(("review", 0), now.mono + REVIEW_S)
        return facts

    def _size(self, claim: Claim) -> int:
        return len(claim.note) + sum(self.size(flight) for flight in claim.flights)

    # -- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` must be called; None while nothing waits."""
        return self._agenda.next_deadline()

    def tick(self, now: Now) -> list[Fact]:
        """Give up what was not come back for, and measure the rest."""
        facts: list[Fact] = []
        for name, id in self._agenda.due(now.mono):
            if name == "return":
                self.statistics.expired += 1
                facts += self.end(id)
            else:
                facts += self._review(now)
        return facts
