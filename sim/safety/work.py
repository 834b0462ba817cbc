"""Checks of flights and of the relay: what clients are owed."""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect
from mesh.flight import Flight
from sim.safety.life import Life, life, object_to

if TYPE_CHECKING:
    from sim.engine import Engine
    from sim.host import Host


@attrs.define
class FlightCheck:
    """flight_forward, quarantine_routing and gone_routing."""

    _seen: dict[tuple[Life, int, float], tuple[int, int, bool]] = attrs.field(init=False, factory=dict)
    """Of each flight: attempt, delivered, ended."""

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the flights whose entry this node is."""
        for flight in host.core.flights.values():
            key = (life(host), flight.id, flight.submitted_at)  # one that comes back begins anew under its id
            seen, now = self._seen.get(key), (flight.attempt, flight.delivered, flight.ended)
            if seen != now:
                self._seen[key] = now
                self._moved(host, flight, seen or (0, 0, False))

    def _moved(self, host: "Host", flight: Flight, seen: tuple[int, int, bool]) -> None:
        attempt, delivered, ended = seen
        now = f"{flight.id:x}: attempt {flight.attempt}, {flight.delivered} delivered, {flight.state.value}"
        if flight.attempt < attempt or flight.delivered < delivered or ended:
            object_to(
                host, "flight_forward", f"{now}, after attempt {attempt}, {delivered} delivered, {ended=}"
            )
        positions = [chunk.position for chunk in flight.log[-2:]]
        if positions != sorted(positions) or flight.delivered != sum(len(chunk.ids) for chunk in flight.log):
            object_to(host, "flight_forward", f"{now}, but its log does not add up")
        if flight.attempt > attempt and flight.target is not None and flight.target != host.id:
            self._opened(host, flight.target, now)

    def _opened(self, host: "Host", target: str, now: str) -> None:
        host.world.reach("routed")
        if host.core.swim.is_quarantined(target):
            object_to(host, "quarantine_routing", f"{now}, was sent to quarantined {target}")
        row = host.core.swim.member(target)
        if row is None or not row.is_live:
            object_to(host, "gone_routing", f"{now}, was sent to {target}, who is no member")


@attrs.define
class TicketCheck:
    """tickets_match."""

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Compare the relay with engines that have nothing under way."""
        for engine in host.engines.values():
            if engine.core is not None and engine.is_quiet:
                self._compare(host, engine)

    def _compare(self, host: "Host", engine: "Engine") -> None:
        held = [number for number, t in host.core.relay.tickets.items() if t.replica == engine.replica]
        computed = sorted(engine.core.tickets)
        if sorted(held) != computed:
            object_to(host, "tickets_match", f"{engine.replica} has attempts {computed}, its relay {held}")
