"""The relay: attempts of every entry, this node's own included, on this node's engines.

Theory of operation. An OPEN that arrives on a port (the link of a peer, or LOCAL)
is given a ticket and goes to an engine that holds the model; the engine's frames
go back on that port under the entry's own flight and attempt. Only headers are
rewritten. A ticket lives until its REJECT or FINISH, a CANCEL, the loss of its
port, or the loss of its engine. When an engine dies, each of its tickets is
rejected, and those in its last step are marked as such, so that the entry can
tell a poisonous request from a bystander.
"""

from collections import Counter
from collections.abc import Callable

import attrs

from mesh import wire
from mesh.attempt import Attempt
from mesh.effects import LOCAL, Effect, LinkId, SendFrame
from mesh.errors import DecodeError
from mesh.facts import Fact
from mesh.frames import Cancel, Frame, Kind, Reject

Output = Effect | Fact

TICKETS_MAX = 16_384
"""Most attempts that a node holds at once; a further one is refused as busy."""

Place = Callable[[str], str | None]
"""Chooses the replica for an attempt on a model, by its name; None if no engine here holds its model."""


@attrs.frozen
class SendEngine:
    """Send a frame to a local engine; `node.core` turns it into bytes."""

    replica: str
    frame: Frame


@attrs.define
class Ticket:
    """One attempt on one engine."""

    number: int
    port: LinkId
    node: str
    flight: int
    attempt: int
    replica: str


@attrs.define
class Relay:
    """All attempts on this node's engines."""

    place: Place
    tickets: dict[int, Ticket] = attrs.Factory(dict)
    _by_origin: dict[tuple[LinkId, int], int] = attrs.field(init=False, factory=dict)
    _ports: Counter[LinkId] = attrs.field(init=False, factory=Counter)
    _next: int = attrs.field(init=False, default=1)

    def receive(self, port: LinkId, node: str, frame: Frame) -> list[Output | SendEngine]:
        """Take an entry's frame. Raises DecodeError if its body means nothing."""
        match frame.kind:
            case Kind.OPEN:
                return self._open(port, node, frame)
            case Kind.CANCEL:
                return self._cancel(port, frame)
        raise DecodeError(f"an entry sent a frame of type {frame.kind}")

    def _open(self, port: LinkId, node: str, frame: Frame) -> list[Output | SendEngine]:
        model = wire.first(frame.body) if port == LOCAL else Attempt.read(frame).model
        outputs = self._supersede(port, frame)
        if len(self.tickets) >= TICKETS_MAX:
            return [*outputs, _answer(port, node, frame, Reject("busy", f"{TICKETS_MAX} attempts are held"))]
        replica = self.place(model)
        if replica is None:
            reject = Reject("no_engine", f"no engine here serves `{model}`")
            return [*outputs, _answer(port, node, frame, reject)]
        ticket = self._issue(port, node, frame, replica)
        return [*outputs, SendEngine(replica, _under(ticket.number, frame))]

    def _issue(self, port: LinkId, node: str, frame: Frame, replica: str) -> Ticket:
        ticket = Ticket(self._next, port, node, frame.flight, frame.attempt, replica)
        self._next += 1
        self.tickets[ticket.number] = ticket
        self._by_origin[port, frame.flight] = ticket.number
        self._ports[port] += 1
        return ticket

    def _supersede(self, port: LinkId, frame: Frame) -> list[Output | SendEngine]:
        number = self._by_origin.get((port, frame.flight))
        return [] if number is None else [self._drop(self.tickets[number], "superseded")]

    def _cancel(self, port: LinkId, frame: Frame) -> list[Output | SendEngine]:
        number = self._by_origin.get((port, frame.flight))
        if number is None or self.tickets[number].attempt != frame.attempt:
            return []
        return [self._drop(self.tickets[number], "the entry cancelled it")]

    def _drop(self, ticket: Ticket, reason: str) -> SendEngine:
        self._forget(ticket)
        return SendEngine(ticket.replica, Cancel(reason).frame(ticket.number, ticket.attempt))

    def _forget(self, ticket: Ticket) -> None:
        del self.tickets[ticket.number]
        del self._by_origin[ticket.port, ticket.flight]
        self._ports[ticket.port] -= 1
        if not self._ports[ticket.port]:
            del self._ports[ticket.port]

    def port_lost(self, port: LinkId) -> list[Output | SendEngine]:
        """An entry's link is gone: its attempts have no reader any more."""
        return [self._drop(t, "the entry's link is gone") for t in self._where("port", port)]

    def _where(self, field: str, value: object) -> list[Ticket]:
        return [ticket for ticket in self.tickets.values() if getattr(ticket, field) == value]

    def serves(self, port: LinkId) -> bool:
        """Whether attempts that came on a port are under way."""
        return port in self._ports

    def holds(self, replica: str) -> bool:
        """Whether an engine has attempts to work on."""
        return any(ticket.replica == replica for ticket in self.tickets.values())

    def answer(self, frame: Frame) -> list[Output]:
        """Take an engine's frame for a ticket, and send it where the attempt came from."""
        ticket = self.tickets.get(frame.flight)
        if ticket is None or ticket.attempt != frame.attempt:
            return []
        if frame.kind in (Kind.FINISH, Kind.REJECT):
            self._forget(ticket)
        return [SendFrame(ticket.node, _under(ticket.flight, frame), ticket.port)]

    def engine_lost(self, replica: str, reason: str, in_step: tuple[int, ...]) -> list[Output]:
        """An engine has died: give up its attempts, and say which were being computed."""
        outputs: list[Output] = []
        for ticket in self._where("replica", replica):
            self._forget(ticket)
            crashed = ticket.number in in_step
            reject = Reject("engine_lost", reason, crashed=crashed, alone=crashed and len(in_step) == 1)
            frame = reject.frame(ticket.flight, ticket.attempt)
            outputs.append(SendFrame(ticket.node, frame, ticket.port))
        return outputs


def _under(flight: int, frame: Frame) -> Frame:
    """Give a frame another flight; its body is not looked at."""
    return Frame(frame.kind, flight, frame.attempt, frame.body)


def _answer(port: LinkId, node: str, frame: Frame, reject: Reject) -> SendFrame:
    return SendFrame(node, reject.frame(frame.flight, frame.attempt), port)
