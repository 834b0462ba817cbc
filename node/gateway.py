"""What the HTTP shell sees of a node: submit a request, follow its log, let go of it.

Clients are served from the flight's own log, which is bounded by `max_tokens`,
so a slow client stalls nobody: the entry always reads its links.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import trio

from mesh.attempt import Attempt
from mesh.claims import Claim
from mesh.custody import Finding
from mesh.errors import LimitError
from mesh.flight import Chunk, Failure, Flight, Started, State
from mesh.frames import Finish, PromptToken
from mesh.links import format_address
from mesh.load import LoadRecord
from mesh.member import Member
from mesh.records import Record
from mesh.views import ViewChange
from node.core import NodeCore
from node.driver import Driver
from node.errors import RequestError

SEEK_S_MAX = 3.0
"""Longest wait for a claim that is sought in the mesh."""

SECRET_NAMESPACES = frozenset(("keys",))
"""Namespaces of records whose values are shown to nobody."""


class FlightFailed(Exception):
    """The flight ended without its answer; `failure` says why, in words for its client."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@attrs.frozen
class ModelCard:
    """A model that some node of the mesh serves or is loading."""

    name: str
    digest: str
    context_max: int
    """Tokens of prompt and output together; 0 while nobody has loaded it."""
    ready: bool
    nodes: tuple[str, ...]
    """Labels of the nodes that hold it."""


@attrs.define
class Stream:
    """One flight, as its client is served. Not to be shared between tasks."""

    _flight: Flight
    _gateway: "Gateway"
    _grown: trio.Event
    _cursor: int = 0

    @property
    def id(self) -> int:
        """The flight's id."""
        return self._flight.id

    @property
    def worker(self) -> str:
        """Label of the node that serves, or served last."""
        return self._flight.worker

    @property
    def moves(self) -> int:
        """How many times the flight has been moved to another worker."""
        return self._flight.moves + self._flight.crashes

    @property
    def policy_changed(self) -> bool:
        """Whether another numerical policy computes it than the one that began: its words may differ from those
        of an undisturbed run.
        """
        return self._flight.policy_changed

    @property
    def finish(self) -> Finish | None:
        """How it ended; None before `chunks()` has returned ()."""
        return self._flight.finish

    @property
    def delivered(self) -> int:
        """Tokens produced so far."""
        return self._flight.delivered

    @property
    def prompt(self) -> tuple[PromptToken, ...]:
        """The prompt's tokens, if they were asked for; all of them once the first token has come."""
        return tuple(self._flight.prompt)

    async def begun(self) -> None:
        """Wait until the first token has come, or the end. Raises FlightFailed."""
        while not self._flight.log and not self._flight.ended:
            await self._wait()
        self._raise_if_failed()

    async def started(self) -> Started:
        """Wait until a worker has accepted. Raises FlightFailed."""
        while self._flight.started is None:
            self._raise_if_failed()
            await self._wait()
        return self._flight.started

    async def chunks(self) -> tuple[Chunk, ...]:
        """Wait for more of the log than was returned before; () at its good end. Raises FlightFailed."""
        while self._cursor == len(self._flight.log):
            self._raise_if_failed()
            if self._flight.ended:
                return ()
            await self._wait()
        more = tuple(self._flight.log[self._cursor :])
        self._cursor += len(more)
        return more

    def close(self) -> None:
        """Let go of the flight: cancelled if it still runs, forgotten if it has ended. Idempotent."""
        self._gateway.close(self._flight.id)

    def _raise_if_failed(self) -> None:
        if self._flight.state is State.FAILED and self._flight.failure is not None:
            raise FlightFailed(self._flight.failure)
        if self._flight.state is State.CANCELLED:
            raise FlightFailed(Failure("cancelled", "the request was cancelled"))

    async def _wait(self) -> None:
        await self._grown.wait()
        self._grown = self._gateway.watch(self._flight.id)


@attrs.define
class Gateway:
    """The node, for the shells that people touch."""

    _driver: Driver
    _stop: Callable[[], None]
    """Lets the node leave once it is drained."""

    @property
    def name(self) -> str:
        """This node's label."""
        return self._core.name

    @property
    def _core(self) -> NodeCore:
        return self._driver.core

    def models(self) -> tuple[ModelCard, ...]:
        """Return every model known in the mesh, by name."""
        return tuple(ModelCard(*row) for row in self._core.models(self._driver.now()))

    def submit(self, request: Attempt, timeout_s: float | None = None, id: int = 0) -> Stream:
        """Begin a flight, under `id` unless that is 0.

        Raises RequestError (node.errors) if it cannot be admitted; nothing was kept.
        """
        return self.stream(self._driver.step(self._core.submit, request, timeout_s, id))

    def stream(self, flight: int) -> Stream:
        """Read a flight that is held here, from the beginning of its log."""
        return Stream(self._core.flights[flight], self, self.watch(flight))

    def claim(self, claim: Claim) -> None:
        """Keep the flights of a request for their client, who reads them now; to be ended by `detach`, not `close`."""
        self._driver.step(self._core.claim, claim)

    async def covered(self, claim: Claim) -> bool:
        """Wait until a peer keeps a claim too, or nobody can; return which."""
        while not self._core.custody.is_settled(claim.id):
            await self.watch(claim.id).wait()
        return bool(self._core.custody.keeper(claim.id))

    def attach(self, id: int) -> Claim | None:
        """Read a claim that somebody made; None if it is not held here. To be ended by `detach`."""
        return self._driver.step(self._core.attach, id)

    async def find(self, id: int) -> Finding | None:
        """Look for a claim in the mesh, for a second or two."""
        self._driver.step(self._core.seek, id)
        with trio.move_on_after(SEEK_S_MAX):
            try:
                while self._core.custody.is_sought(id):
                    await self.watch(id).wait()
            finally:
                self._driver.unwatch(id)
        return self._core.custody.finding(id)

    def reopen(self, id: int, finding: Finding, attempts: list[Attempt]) -> Claim:
        """Go on with a claim that was found, and read it; to be ended by `detach`. Raises RequestError."""
        return self._driver.step(self._core.reopen, id, finding, attempts)

    def detach(self, claim: Claim) -> None:
        """Stop reading; when nobody reads, the flights are kept for `ClaimOptions.return_s`."""
        self._driver.detach(claim)

    def watch(self, flight: int) -> trio.Event:
        """Return an event that is set when the flight's log next grows or ends."""
        return self._driver.watch(flight)

    def close(self, flight: int) -> None:
        """Cancel the flight if it runs, and forget it."""
        self._driver.release(flight)

    # -- operators --------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Return whether a model can answer here or anywhere in the mesh; if not, why."""
        return self._core.is_ready(self._driver.now())

    def members(self) -> list[dict[str, Any]]:
        """Return every member that this node knows of, itself first."""
        me = self._core.me
        others = sorted(
            (m for m in self._core.swim.members() if m.node != me.node), key=lambda m: (m.name, m.node)
        )
        return [self._member(member) for member in (me, *others)]

    def _member(self, member: Member) -> dict[str, Any]:
        load = self._core.load_of(self._driver.now(), member.node)
        return {
            "name": member.name,
            "node": member.node,
            "address": format_address(member.address),
            "http": member.http,
            "state": member.liveness.name.lower(),
            "quarantined": self._core.swim.is_quarantined(member.node),
            "generation": member.identity.generation,
            "incarnation": member.identity.incarnation,
            "draining": member.draining,
            "metadata": _metadata(member),
            "round_trip_ms": _milliseconds(self._core.swim.round_trip_s(member.node)),
            "distance_ms": _milliseconds(self._core.swim.distance_s(self._core.me.node, member.node)),
            "models": [model.name for model in load.models if model.ready] if load else [],
            "load": _load(load),
        }

    def flights(self) -> list[dict[str, Any]]:
        """Return the flights whose entry this node is and that have not ended."""
        return [_flight(flight) for flight in self._core.flights.values() if not flight.ended]

    def records(self, namespace: str) -> list[dict[str, Any]]:
        """Return the live records of a namespace, or of all if it is empty; values of secrets are left out."""
        table = self._core.records.table
        names = (namespace,) if namespace else table.namespaces()
        return [_record(record) for name in names for record in table.scan(name)]

    def drain(self) -> None:
        """Begin to drain: no new requests; what runs may end; then the node leaves. Idempotent."""
        self._driver.step(self._core.drain)
        self._stop()

    async def view(self) -> AsyncIterator[dict[str, Any]]:
        """Follow the view of the mesh: a snapshot first, then each change; a snapshot again for who falls behind."""
        views, change = self._core.swim.views, self._core.swim.views.snapshot(self._driver.now())
        yield _view("snapshot", change)
        while True:
            changes = views.since(change.number)
            if changes is None:
                change = views.snapshot(self._driver.now())
                yield _view("snapshot", change)
            for change in changes or ():
                yield _view("change", change)
            if views.number == change.number:
                await self._driver.wait_view_moved()

    async def converged(self, timeout_s: float) -> list[str]:
        """Wait until all live peers have our view; return labels of those who have not said so in time."""
        unlike = await self._driver.wait_converged(timeout_s)
        rows = (self._core.swim.member(node) for node in unlike)
        return sorted(row.name for row in rows if row is not None)

    def forget(self, node: str) -> bool:
        """Let the mesh forget this life of a member, by its id; whether it was known, and not this node itself."""
        return self._driver.step(self._core.forget, node)

    def metadata(self, node: str) -> bytes | None:
        """Return what a member, by its id, publishes about itself; None if that is not here, or nobody has the id."""
        return self._core.swim.metadata.get(node)

    def announce(self, name: str, payload: str) -> None:
        """Tell every node of the mesh a user event. Raises RequestError if it cannot be told."""
        try:
            self._driver.step(self._core.announce, name, payload.encode())
        except LimitError as error:
            raise RequestError("invalid_request", str(error)) from None

    def events(self) -> list[dict[str, Any]]:
        """Return the user events that were delivered here last, oldest first."""
        return [
            {**attrs.asdict(event), "payload": event.payload.decode(errors="replace")}
            for event in self._core.swim.events.recent
        ]

    def why(self, node: str) -> list[dict[str, Any]]:
        """Return this node's verdicts on a member, by its id, or on all if empty, with what they rested on."""
        now = self._driver.now().mono
        rows = [attrs.asdict(verdict) for verdict in self._core.swim.explain(node or None)]
        return [{"s_ago": round(now - row.pop("at_s"), 3), **row} for row in rows]

    def why_there(self, flight: int) -> list[dict[str, Any]]:
        """Return what this entry decided about a request's workers, by its flight's id, oldest first."""
        now = self._driver.now().mono
        decisions = self._core.forwarder.decisions.of(flight)
        return [{"s_ago": round(now - one.at_s, 3), **one.account()} for one in decisions]

    def statistics(self) -> dict[str, Any]:
        """Return counters and gauges of every part, by part and name."""
        return {**self._core.statistics(), "net": self._driver.net_statistics()}


def _view(kind: str, change: ViewChange) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "node": row.node,
            "address": format_address(row.address),
            "http": row.http,
            "state": row.liveness.name.lower(),
            "generation": row.identity.generation,
            "draining": row.draining,
            "models": row.models,
        }
        for row in change.members
    ]
    return {"kind": kind, "number": change.number, "members": rows}


def _milliseconds(seconds: float | None) -> float | None:
    return round(1000 * seconds, 3) if seconds is not None else None


def _metadata(member: Member) -> dict[str, Any] | None:
    if not member.metadata_digest:
        return None
    return {"digest": member.metadata_digest.hex(), "bytes": member.metadata_bytes}


def _load(load: LoadRecord | None) -> dict[str, Any] | None:
    if load is None:
        return None
    return {
        "age_ms": load.age_ms,
        "lag_ms": load.lag_ms,
        "models": [attrs.asdict(model) for model in load.models],
    }


def _record(record: Record) -> dict[str, Any]:
    shown = {} if record.namespace in SECRET_NAMESPACES else {"value": record.value.decode(errors="replace")}
    return {
        "namespace": record.namespace,
        "id": record.id,
        "author": record.author,
        "wall_ms": record.stamp.wall_ms,
        "counter": record.stamp.counter,
        "bytes": len(record.value),
        **shown,
    }


def _flight(flight: Flight) -> dict[str, Any]:
    return {
        "id": f"{flight.id:016x}",
        "model": flight.request.model,
        "state": flight.state.value,
        "worker": flight.worker,
        "delivered": flight.delivered,
        "attempts": flight.attempt,
        "moves": flight.moves,
        "crashes": flight.crashes,
    }
