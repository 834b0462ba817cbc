"""The one owner of the core: gives it inputs with the time, carries out its effects in order.

Nothing here decides anything. Every task of the node calls `step`; the core runs to
completion with no await inside, so there are no locks. One timer sleeps until the
core's next deadline. After a pause of the process (SIGSTOP, a starved host) the
sockets are drained, within a bound, before the timer fires: what arrived in the
meantime must be heard before anybody is judged.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import trio

from mesh.claims import Claim
from mesh.effects import (
    Address,
    CloseLink,
    Dial,
    Effect,
    FlushLink,
    KeepGeneration,
    KillEngine,
    LinkId,
    Report,
    SendDatagram,
    StartEngine,
    Stop,
    ViewMoved,
    Wake,
)
from mesh.now import Now
from node.core import NodeCore

LATE_S = 0.2
"""A timer that fires later than this after its deadline follows a pause."""

ASK_S = 0.1
"""So often peers are asked whether they hold the same view, while somebody waits for that."""

DRAIN_ROUNDS = 16
"""Scheduler rounds given to the sockets' tasks after a pause, before the timer fires."""


class Datagrams(Protocol):
    """Where datagrams go."""

    def send(self, address: Address, data: bytes) -> None: ...
    def statistics(self) -> Any: ...


class Counted(Protocol):
    """Whatever counts what happens to it."""

    def statistics(self) -> Any: ...


class Lossy(Counted, Protocol):
    """The intake of datagrams: it knows how many were dropped before the core saw them."""

    def lost(self) -> int: ...


class Connections(Protocol):
    """Where links live."""

    def dial(self, link: LinkId, address: Address) -> None: ...
    def flush(self, link: LinkId) -> None: ...
    def close(self, link: LinkId, reason: str) -> None: ...
    def statistics(self) -> Any: ...


class Processes(Protocol):
    """Where engines run."""

    def start(self, replica: str, link: LinkId) -> None: ...
    def kill(self, replica: str, reason: str) -> None: ...


def _not_stopped(reason: str) -> None:
    raise AssertionError(f"nobody said how to stop, and must: {reason}")


def _not_kept(generation: int) -> None:
    raise AssertionError(f"nobody said where to keep generation {generation}, and must")


@attrs.define
class Driver:
    """Feeds the core and obeys it. The shells are set once, before the first step."""

    core: NodeCore
    report: Callable[[Report], None]
    datagrams: Datagrams | None = None
    connections: Connections | None = None
    processes: Processes | None = None
    intake: Lossy | None = None
    stop: Callable[[str], None] = _not_stopped
    """Ends the process, for a reason."""
    keep: Callable[[int], None] = _not_kept
    """Keeps the generation of the running life for the next one."""
    _watchers: dict[int, trio.Event] = attrs.field(init=False, factory=dict)
    _alarm: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    """What the timer sleeps in; its deadline is the core's."""
    deadline: float = attrs.field(init=False, default=0.0)
    """The core's next, as of the last step."""
    stirred: bool = attrs.field(init=False, default=False)
    """Whether a step has done more than send datagrams since this was last made false: a task may have
    been started or woken."""
    _lulled: bool = attrs.field(init=False, default=False)
    _view_moved: trio.Event = attrs.field(init=False, factory=trio.Event)
    _idle: trio.Event | None = attrs.field(init=False, default=None)

    def now(self) -> Now:
        """Read both clocks."""
        return Now(trio.current_time(), time.time())

    def step(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the core with the time, carry out what it asks, return its value if it has one."""
        result = method(self.now(), *arguments)
        value, effects = result if isinstance(result, tuple) else (None, result)
        for effect in effects:
            if type(effect) is SendDatagram:
                self.datagrams.send(effect.address, effect.data)
            else:
                self.stirred = True
                self._perform(effect)
        self._arm()
        if self._idle is not None and self.core.is_idle:
            self._idle.set()
            self.stirred = True
        return value

    def _perform(self, effect: Effect) -> None:
        match effect:
            case FlushLink(link):
                self.connections.flush(link)
            case Wake(flight):
                self._wake(flight)
            case Dial(link, address):
                self.connections.dial(link, address)
            case CloseLink(link, reason):
                self.connections.close(link, reason)
            case StartEngine(replica, link):
                self.processes.start(replica, link)
            case KillEngine(replica, reason):
                self.processes.kill(replica, reason)
            case _:
                self._perform_here(effect)

    def _perform_here(self, effect: Effect) -> None:
        match effect:
            case Report():
                self.report(effect)
            case ViewMoved():
                self._view_moved.set()
                self._view_moved = trio.Event()
            case KeepGeneration(generation):
                self.keep(generation)
            case Stop(reason):
                self.stop(reason)
            case _:
                raise AssertionError(f"no driver carries out {effect!r}")

    def net_statistics(self) -> dict[str, Any]:
        """Return the counters of the sockets, by part and name."""
        parts = {"udp": self.datagrams, "intake": self.intake, "links": self.connections}
        return {name: attrs.asdict(part.statistics()) for name, part in parts.items() if part is not None}

    # -- clients ----------------------------------------------------------------------------------

    def watch(self, flight: int) -> trio.Event:
        """Return an event that is set when the flight's log next grows or ends."""
        event = self._watchers.get(flight)
        if event is None or event.is_set():
            event = self._watchers[flight] = trio.Event()
        return event

    def _wake(self, flight: int) -> None:
        event = self._watchers.get(flight)
        if event is not None:
            event.set()

    def release(self, flight: int) -> None:
        """Cancel a flight if it runs, and forget it."""
        self._watchers.pop(flight, None)
        self.step(self.core.release, flight)

    def detach(self, claim: Claim) -> None:
        """Stop reading a claim."""
        if self.core.claims.readers(claim.id) <= 1:
            for flight in claim.flights:
                self.unwatch(flight)
        self.step(self.core.detach, claim)

    def unwatch(self, flight: int) -> None:
        """Nobody waits for this flight any more."""
        self._watchers.pop(flight, None)

    async def wait_view_moved(self) -> None:
        """Wait for the next change of the view."""
        await self._view_moved.wait()

    async def wait_converged(self, timeout_s: float) -> list[str]:
        """Wait until all live peers have our view, by their digests; return the ids of those who have not at the end.

        They are asked, some at a time, until they agree or `timeout_s` has passed: empty means that
        everybody agrees.
        """
        deadline = trio.current_time() + timeout_s
        while (unlike := self.step(self.core.ask_unlike)) and trio.current_time() < deadline:
            await trio.sleep(min(ASK_S, max(0.0, deadline - trio.current_time())))
        return unlike

    async def wait_idle(self) -> None:
        """Wait until the node neither serves nor computes anything."""
        while not self.core.is_idle:
            self._idle = trio.Event()
            await self._idle.wait()

    # -- time -------------------------------------------------------------------------------------

    async def run_timer(self) -> None:
        """Tick the core whenever it has asked for it; runs until cancelled."""
        while True:
            deadline = await self._sleep()
            if trio.current_time() - deadline > LATE_S:
                await self._drain_sockets()
            if trio.current_time() >= deadline:
                self.tick()

    async def _sleep(self) -> float:
        """Sleep until the core's deadline, which steps may move either way meanwhile; return what it was at last."""
        with trio.CancelScope() as self._alarm:
            self._arm()
            await trio.sleep_forever()
        return self.deadline

    def _arm(self) -> None:
        """Let the timer sleep neither longer nor shorter than the core wants."""
        self.deadline = self.core.next_deadline()
        if not self._lulled and self.deadline != self._alarm.deadline:
            self._alarm.deadline = self.deadline

    def tick(self) -> None:
        """Let the core do what has come due, after telling it what it could not hear."""
        lost = self.intake.lost() if self.intake is not None else 0
        if lost:
            self.step(self.core.lost_input, lost)
        self.step(self.core.tick)

    def lull(self, lulled: bool) -> None:
        """Somebody else calls `tick` when it is due (`mesh.net.lull`), or no longer does."""
        self._lulled, self.stirred = lulled, False
        self._alarm.deadline = math.inf if lulled else self.deadline

    async def _drain_sockets(self) -> None:
        for _ in range(DRAIN_ROUNDS):
            await trio.lowlevel.checkpoint()
