"""Safety: what must hold after every input of every node, whatever the faults.

Each check has a name, looks at one host after it has handled an input, and ends
the run with `Violation` where it fails. `tests/sim/test_checks.py` plants a bug
for each and sees it caught; a check without such a test does not count. The
names in brackets number the invariants in docs/explanation/simulation.md.

    text_exact          (in `sim.workload`) clients get their text, each token once, in order
    account_ages        an account never gets older (generation, incarnation) while it is known [S1]
    gone_returns        dead and left accounts return only with a greater age [S2, S3]
    own_age             a node's own age never falls, restarts included [S4]
    own_life            a running node never believes itself suspect or dead [S7]
    one_truth           one set of facts per (id, generation, incarnation) in the whole world [S5]
    deaf_verdict        who has heard nobody for a while declares nobody dead [S20]
    flight_forward      a flight's log only grows, its attempts only rise, its end is final
    quarantine_routing  no attempt is opened at a node that this router has quarantined [S12]
    tickets_match       a relay's tickets are its engines' attempts, when nothing is under way
    timers              no deadline in the past after a tick, no busy loop [S16]
    bounds              members, rumours, links, tickets and flights within their limits [S6]
    datagram_size       no datagram beyond the MTU
    no_resurrection     (in `sim.record_checks`) a record once known deleted does not return
    stamps_monotone     (in `sim.record_checks`) a life's hybrid clock never runs back
    false_death         nobody who runs is declared dead
"""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect, Report, SendDatagram
from mesh.flight import Flight
from mesh.links import LINKS_MAX
from mesh.member import Liveness, Member
from mesh.relay import TICKETS_MAX
from sim.network import MTU_BYTES
from sim.record_checks import RecordCheck

if TYPE_CHECKING:
    from node.core import NodeCore
    from sim.engine import Engine
    from sim.host import Host
    from sim.world import Check

TICKS_PER_S_MAX = 1000
"""A node at work ticks some tens of times a second; this is a busy loop."""

TICKS_AT_ONCE_MAX = 50
"""Ticks at one instant: each may only set deadlines that are due already so often."""

BOUNDS_EVERY_S = 1.0
"""Counting is linear in the members, so it is done once a second."""

SLOWEST = 0.9
"""A drifting clock may make a second of its node last this much longer."""

Life = tuple[str, str, int]
"""(host, node id, generation): what is remembered of one life says nothing about the next."""


def life(host: "Host") -> Life:
    """Name the running life of a host."""
    return host.name, host.id, host.generation


def _fail(host: "Host", check: str, message: str) -> None:
    host.world.doubt(check, f"{host.name}: {message}")


@attrs.define
class AccountCheck:
    """account_ages, gone_returns, one_truth, own_age, own_life and false_death."""

    _rows: dict[Life, tuple[Member, ...]] = attrs.field(init=False, factory=dict)
    _truth: dict[tuple[str, int, int], tuple[object, ...]] = attrs.field(init=False, factory=dict)
    _own: dict[tuple[str, str], tuple[int, int]] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the accounts that this input has changed."""
        rows = host.core.swim.members()
        known = self._rows.get(life(host), ())
        if rows == known:
            return
        self._rows[life(host)] = rows
        before = {row.node: row for row in known}
        for row in rows:
            old = before.get(row.node)
            if row is not old:
                self._changed(host, old, row)

    def _changed(self, host: "Host", old: Member | None, new: Member) -> None:
        if old is not None:
            self._moved(host, old, new)
        if new.node == host.id:
            self._own_account(host, new)
        self._one_truth(host, new)
        if new.liveness is Liveness.DEAD:
            self._false_death(host, new)

    def _moved(self, host: "Host", old: Member, new: Member) -> None:
        if new.identity.age < old.identity.age:
            _fail(host, "account_ages", f"{new.name} fell from {old.identity.age} to {new.identity.age}")
        returned = old.liveness >= Liveness.DEAD and new.liveness < old.liveness
        if returned and new.identity.age <= old.identity.age:
            was, now = old.liveness.name, new.liveness.name
            _fail(host, "gone_returns", f"{new.name} went from {was} to {now} at {new.identity.age}")

    def _own_account(self, host: "Host", me: Member) -> None:
        key = (host.name, host.id)
        if me.identity.age < self._own.get(key, (0, 0)):
            _fail(host, "own_age", f"{me.identity.age} comes after {self._own[key]}")
        self._own[key] = me.identity.age
        if me.liveness in (Liveness.SUSPECT, Liveness.DEAD):
            _fail(host, "own_life", f"it believes itself {me.liveness.name}")

    def _one_truth(self, host: "Host", row: Member) -> None:
        facts = (row.name, row.address, row.http, row.models, row.draining, row.zone)
        if self._truth.setdefault((row.node, *row.identity.age), facts) != facts:
            _fail(host, "one_truth", f"two accounts of {row.name} at {row.identity.age} differ")

    def _false_death(self, host: "Host", row: Member) -> None:
        subject = host.world.lives[row.node][-1]
        runs = subject.is_well and host.is_well and subject.id == row.node
        if runs and row.identity.generation == subject.core.me.identity.generation:
            _fail(host, "false_death", f"{row.name} runs, and is declared dead")


@attrs.define
class DeafVerdictCheck:
    """deaf_verdict."""

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look for deaths that this node declared."""
        for effect in effects:
            if isinstance(effect, Report) and effect.event == "member_dead":
                self._judged(host, str(dict(effect.fields)["name"]))

    def _judged(self, host: "Host", name: str) -> None:
        live = sum(row.is_live for row in host.core.swim.members())
        silent_s = host.world.time - host.heard_at
        if live > 1 and silent_s > host.core.swim.options.silence_s / SLOWEST + 1e-6:
            _fail(
                host, "deaf_verdict", f"declared {name} dead after {silent_s:.2f} s without hearing anybody"
            )


@attrs.define
class FlightCheck:
    """flight_forward and quarantine_routing."""

    _seen: dict[tuple[Life, int], tuple[int, int, bool]] = attrs.field(init=False, factory=dict)
    """Of each flight: attempt, delivered, ended."""

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the flights whose entry this node is."""
        for flight in host.core.flights.values():
            key = (life(host), flight.id)
            seen, now = self._seen.get(key), (flight.attempt, flight.delivered, flight.ended)
            if seen != now:
                self._seen[key] = now
                self._moved(host, flight, seen or (0, 0, False))

    def _moved(self, host: "Host", flight: Flight, seen: tuple[int, int, bool]) -> None:
        attempt, delivered, ended = seen
        now = f"{flight.id:x}: attempt {flight.attempt}, {flight.delivered} delivered, {flight.state.value}"
        if flight.attempt < attempt or flight.delivered < delivered or ended:
            _fail(host, "flight_forward", f"{now}, after attempt {attempt}, {delivered} delivered, {ended=}")
        positions = [chunk.position for chunk in flight.log[-2:]]
        if positions != sorted(positions) or flight.delivered != sum(len(chunk.ids) for chunk in flight.log):
            _fail(host, "flight_forward", f"{now}, but its log does not add up")
        target = flight.target
        if flight.attempt > attempt and target is not None and host.core.swim.is_quarantined(target):
            _fail(host, "quarantine_routing", f"{now}, was sent to quarantined {target}")


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
            _fail(host, "tickets_match", f"{engine.replica} has attempts {computed}, its relay {held}")


@attrs.define
class TimerCheck:
    """timers."""

    _window: dict[Life, tuple[int, int]] = attrs.field(init=False, factory=dict)
    """The second that is counted, and the ticks before it."""
    _instant: dict[Life, tuple[float, int]] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Count the ticks of this second and of this instant."""
        key, time = life(host), host.world.time
        second, before = self._window.get(key, (-1, 0))
        if second != int(time):
            self._window[key] = (int(time), host.ticks)
        elif host.ticks - before > TICKS_PER_S_MAX:
            _fail(host, "timers", f"more than {TICKS_PER_S_MAX} ticks within a second")
        instant, ticks = self._instant.get(key, (-1.0, 0))
        if instant != time:
            self._instant[key] = (time, host.ticks)
        elif host.ticks - ticks > TICKS_AT_ONCE_MAX:
            _fail(host, "timers", f"more than {TICKS_AT_ONCE_MAX} ticks at one instant")


@attrs.define
class BoundsCheck:
    """bounds and datagram_size."""

    _due_at: dict[Life, float] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Measure what is sent, and now and then what is held."""
        for effect in effects:
            if isinstance(effect, SendDatagram) and len(effect.data) > MTU_BYTES:
                _fail(host, "datagram_size", f"{len(effect.data)} bytes exceed {MTU_BYTES}")
        if host.world.time >= self._due_at.get(life(host), 0.0):
            self._due_at[life(host)] = host.world.time + BOUNDS_EVERY_S
            self._measure(host, host.core)

    def _measure(self, host: "Host", core: "NodeCore") -> None:
        members = len(core.swim.members())
        for what, size, limit in (
            ("members", members, core.swim.options.members_max),
            ("rumours", core.swim.statistics().rumours, members),
            ("load records", len(core.swim.loads), members),
            ("links", len(core.links), LINKS_MAX),
            ("tickets", len(core.relay.tickets), TICKETS_MAX),
            ("flights", core.active, core.options.flights_max),
        ):
            if size > limit:
                _fail(host, "bounds", f"{size} {what}, at most {limit} are allowed")


def safety() -> tuple["Check", ...]:
    """Return fresh instances of all checks, to be given to one world."""
    return (
        AccountCheck(),
        DeafVerdictCheck(),
        FlightCheck(),
        TicketCheck(),
        TimerCheck(),
        BoundsCheck(),
        RecordCheck(),
    )
