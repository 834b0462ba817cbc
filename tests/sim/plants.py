"""Bugs to be planted in the cores, each with the check that should catch it: what shrinking is measured on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from mesh.beliefs import Beliefs
from mesh.flight import Chunk, Flight
from mesh.forward import Forwarder
from mesh.frames import Ping, Tokens
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.myself import Myself
from mesh.relay import Relay, SendEngine, Ticket
from mesh.swim import Swim
from node.core import NodeCore
from sim.shrink import Failure, fail
from sim.swarm import draw

SEEDS = 30
"""Seeds of the swarm in which a planted bug is looked for."""


@attrs.frozen
class Plant:
    """One bug: what is replaced by what."""

    name: str
    check: str
    """Which check should catch it."""
    owner: type
    method: str
    broken: Callable[..., Any]

    @contextmanager
    def planted(self) -> Iterator[None]:
        honest = getattr(self.owner, self.method)
        setattr(self.owner, self.method, self.broken)
        try:
            yield
        finally:
            setattr(self.owner, self.method, honest)


def _twice(self: Flight, attempt: int, tokens: Tokens) -> bool:
    if not self.is_current(attempt):
        return False
    for _ in range(2 if tokens.position == 7 else 1):
        self.log.append(Chunk(self.delivered, tokens.ids, tokens.text))
        self.ids.extend(tokens.ids)
    return True


def _believes(self: Myself, now: Any, rumour: Member, accusers: int) -> Any:
    return self._members.apply(rumour, now.mono)


def _raises(self: Swim, now: Any, node: str, reason: str = "") -> list:
    raise KeyError(node)


_APPLY, _LOST = Members.apply, Flight.lost


def _corrupting(corrupt: Callable[[Member], Member]) -> Callable[..., object]:
    def apply(self: Members, new: Member, now_s: float) -> object:
        for row in self.all():
            spoilt = row if row.node in (self._me, new.node) else corrupt(row)
            if spoilt != row:
                self._put(row, spoilt, now_s)
        return _APPLY(self, new, now_s)

    return apply


def _risen(row: Member) -> Member:
    return attrs.evolve(row, liveness=Liveness.ALIVE) if row.liveness is Liveness.DEAD else row


def _younger(row: Member) -> Member:
    return attrs.evolve(row, identity=Identity(row.node, row.identity.generation, 0))


def _forgetful(self: Flight, attempt: int, reason: str) -> bool:
    del self.ids[5:]
    return _LOST(self, attempt, reason)


def _drop(self: Relay, ticket: Ticket, reason: str) -> SendEngine:
    self._forget(ticket)
    return SendEngine(ticket.replica, Ping(1).frame())


def _bury_unheard(self: Beliefs, now: Any, node: str) -> None:
    row = self.live_peer(node)
    if row is not None and node in self._cases and self._detector.is_quarantined(node):
        self._bury(now, row, "silent")


PLANTS = (
    Plant("a piece of text is taken twice", "text_exact", Flight, "tokens", _twice),
    Plant("a log is cut when a flight moves", "flight_forward", Flight, "lost", _forgetful),
    Plant("a node believes its own death", "own_life", Myself, "hear", _believes),
    Plant("the dead rise", "gone_returns", Members, "apply", _corrupting(_risen)),
    Plant("incarnations are forgotten", "account_ages", Members, "apply", _corrupting(_younger)),
    Plant("who is deaf buries others", "deaf_verdict", Beliefs, "_look", _bury_unheard),
    Plant("everybody is trusted", "quarantine_routing", NodeCore, "_is_trusted", lambda self, node: True),
    Plant("a cancel never arrives", "tickets_match", Relay, "_drop", _drop),
    Plant("a lost node moves no flight", "clients_served", Forwarder, "node_lost", lambda self, *_: []),
    Plant("a lost link makes a core raise", "exception", Swim, "evidence", _raises),
)


def first_failure(check: str, seconds: float = 8.0) -> Failure | None:
    """Return how the first seed of the swarm fails that fails this check; None if none of `SEEDS` does."""
    for seed in range(SEEDS):
        failure = fail(draw(seed, seconds=seconds))
        if failure is not None and failure.check == check:
            return failure
    return None
