"""The soak: an engine core, a crowd of clients, and everything that may befall them, for very long.

Clients keep a number of requests at hand. They are cancelled, run out of time, are pre-empted because the memory is
small, find each other's prefixes, and lose their engine again and again: it dies, or spoils a step, and they go on
from their logs, as at an entry (`mesh.flight`). Every answer is checked. Now and then the crowd pauses until nothing
is at hand; then nothing may be held: no block, no attempt, no account.
"""

import gc
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import attrs

from mesh.flight import Flight, State
from mesh.frames import Accept, Cancel, Finish, Frame, Kind, Reject, Status, Tokens
from node.engine.core import EngineCore
from node.engine.plan import Plan, Sampled
from tests.soak.traffic import Ask, Traffic

CROWD = 40
"""Requests at hand."""
CRASH_ONE_IN = 600
"""Steps from one death of the engine to the next, on average."""
SPOIL_ONE_IN = 400
"""Steps from one whose logits are not finite to the next, on average."""
CHECK_EVERY = 32
"""Steps from one look at the account of blocks to the next."""


class Runner(Protocol):
    """What computes steps."""

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one."""


@attrs.define
class Soak:
    """One run. `open_core` begins a new life of the engine; `spend` says when a step that began now ends."""

    open_core: Callable[[], EngineCore]
    runner: Runner
    traffic: Traffic
    rng: random.Random
    spend: Callable[[float, Plan], float]
    pause_every: int = 2000
    """Requests from one pause of the crowd to the next."""
    now_s: float = 0.0
    counts: Counter[str] = attrs.field(init=False, factory=Counter)
    core: EngineCore = attrs.field(init=False)
    _flights: dict[int, tuple[Flight, Ask]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.core = self.open_core()

    @property
    def ended(self) -> int:
        """Requests that have ended, one way or another."""
        return self.counts["asked"] - len(self._flights)

    def run(self, requests: int, until: Callable[[], bool] = lambda: False) -> None:
        """Serve so many more requests, or until told to stop; end in a pause."""
        goal = self.counts["asked"] + requests
        while self.counts["asked"] < goal and not until():
            self._serve(min(goal, self.counts["asked"] + self.pause_every))
            self._pause()

    def _serve(self, goal: int) -> None:
        while self.counts["asked"] < goal:
            while len(self._flights) < CROWD and self.counts["asked"] < goal:
                self._ask()
            self._turn()

    def _pause(self) -> None:
        while self._flights:
            self._turn()
        assert self._step() is None, "a step without requests"
        self._check_idle()
        self.counts["pauses"] += 1

    def _check_idle(self) -> None:
        scheduler = self.core.scheduler
        scheduler.check_integrity()
        assert self.core.idle and self.core.tickets == () and self.core.queued_tokens == 0
        assert scheduler.blocks.available == scheduler.blocks.count, "blocks are held by nobody"
        assert len(scheduler.accounts) == 0 and len(self.core.errands) == 0
        gc.collect()

    # -- clients ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        ask = self.traffic.draw()
        self.counts["asked"] += 1
        deadline = None if ask.deadline_s is None else self.now_s + ask.deadline_s
        flight = Flight(self.counts["asked"], ask.attempt, deadline)
        self._flights[flight.id] = flight, ask
        flight.route()
        self._open(flight)

    def _open(self, flight: Flight) -> None:
        left = 0 if flight.deadline is None else max(1, round((flight.deadline - self.now_s) * 1000))
        attempt = flight.open("engine", left)
        self._hear(self.core.receive(self.now_s, attempt.frame(flight.id, flight.attempt)))

    def _leave(self, flight: Flight) -> None:
        """The client goes away; its blocks must be free at once."""
        self.counts["cancelled"] += 1
        frame = Cancel("gone").frame(flight.id, flight.attempt)
        flight.cancel()
        self._hear(self.core.receive(self.now_s, frame))
        assert flight.id not in self.core.tickets

    def _settle(self, flight: Flight, ask: Ask) -> None:
        del self._flights[flight.id]
        self.counts[flight.failure.code if flight.failure else flight.state.value] += 1
        self.counts["tokens"] += len(flight.ids)
        self.traffic.check(ask, flight.ids, whole=flight.state is State.DONE)

    # -- the engine -------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One step, or one misfortune; then what clients do about it."""
        if self.rng.random() * CRASH_ONE_IN < 1:
            self._crash()
        plan = self._step()
        if plan is not None and self.counts["steps"] % CHECK_EVERY == 0:
            self.core.scheduler.check_integrity()
        for flight, ask in list(self._flights.values()):
            if flight.ended:
                self._settle(flight, ask)
            elif ask.patience is not None and flight.delivered >= ask.patience:
                self._leave(flight)
                self._settle(flight, ask)
            elif flight.target is None:
                self._again(flight)

    def _again(self, flight: Flight) -> None:
        why = set(flight.tried.values())
        if why == {"deadline_exceeded"} or (flight.deadline is not None and flight.deadline <= self.now_s):
            flight.fail("deadline_exceeded", "")
        else:
            flight.tried.clear()
            self._open(flight)

    def _step(self) -> Plan | None:
        plan, frames = self.core.plan(self.now_s)
        self._hear(frames)
        if plan is None:
            return None
        self.counts["steps"] += 1
        if self.rng.random() * SPOIL_ONE_IN < 1:
            self.counts["spoiled"] += 1
            self._hear(self.core.fail(self.now_s, plan, self.rng.choice(plan.rows).sequence, "not finite"))
            return plan
        sampled = self.runner.run(plan)
        if self.rng.random() < 0.02:
            self._leave_in_step()
        self.now_s = self.spend(self.now_s, plan)
        self._hear(self.core.commit(self.now_s, plan, sampled))
        return plan

    def _leave_in_step(self) -> None:
        """Some client goes away while the step is computed."""
        flight, ask = self.rng.choice(list(self._flights.values()))
        if not flight.ended and flight.target is not None:
            self._leave(flight)
            self._settle(flight, ask)

    def _crash(self) -> None:
        """The engine dies; all that it knew is gone."""
        self.counts["crashes"] += 1
        self.count_life()
        self.core = self.open_core()
        for flight, _ in self._flights.values():
            flight.lost(flight.attempt, "engine_lost")

    def count_life(self) -> None:
        """Add up what this life of the engine has counted."""
        self.counts["preemptions"] += self.core.scheduler.preemptions

    def _hear(self, frames: list[Frame]) -> None:
        for frame in frames:
            entry = self._flights.get(frame.flight)
            if entry is not None:
                self._take(entry[0], frame)
            elif frame.kind == Kind.STATUS:
                assert Status.read(frame).kv_free_ratio <= 1

    def _take(self, flight: Flight, frame: Frame) -> None:
        number = frame.attempt
        match frame.kind:
            case Kind.ACCEPT:
                accept = Accept.read(frame)
                self.counts["cached tokens"] += accept.cached_tokens
                assert flight.accept(number, accept)
            case Kind.TOKENS:
                assert flight.tokens(number, Tokens.read(frame)) or flight.ended
            case Kind.FINISH:
                assert flight.finished(number, Finish.read(frame)) or flight.ended
            case Kind.REJECT:
                reject = Reject.read(frame)
                self.counts[f"refused {reject.code}"] += 1
                flight.rejected(number, reject)
