"""Checks of what a node sends, holds and waits for."""

from typing import TYPE_CHECKING

import attrs

from mesh import codec
from mesh.beliefs import DOUBT_SENDS
from mesh.effects import Effect, SendDatagram
from mesh.errors import DecodeError
from mesh.gossip import sends_max
from mesh.links import LINKS_MAX
from mesh.member import Liveness, Member
from mesh.messages import Reconcile, Update
from mesh.relay import TICKETS_MAX
from mesh.shelf import SHELF_BYTES_MAX
from sim.network import MTU_BYTES
from sim.safety.life import Life, life, object_to
from sim.spoken import said_in_clear

if TYPE_CHECKING:
    from node.core import NodeCore
    from sim.host import Host

TICKS_PER_S_MAX = 1000
"""A node at work ticks some tens of times a second; this is a busy loop."""

TICKS_AT_ONCE_MAX = 50
"""Ticks at one instant: each may only set deadlines that are due already so often."""

BOUNDS_EVERY_S = 1.0
"""Counting is linear in the members, so it is done once a second."""

PACKETS_PER_S = 120
"""Datagrams that a node may send in any second, whatever happens: gossip rounds of three every 50 ms
are 60, a turn and its answers some ten, and the rest is for an hour in which everybody is suspect."""

PACKETS_PER_S_EACH = 20
"""More for each member: its pings are answered, it is probed when it is suspect, helped for, told."""

BYTES_PER_PACKET = 700
"""Mean size that a node may reach within a second; a full datagram has 1,400."""


@attrs.define
class TimerCheck:
    """timers and awake."""

    _window: dict[Life, tuple[int, int]] = attrs.field(init=False, factory=dict)
    """The second that is counted, and the ticks before it."""
    _instant: dict[Life, tuple[float, int]] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Count the ticks of this second and of this instant."""
        key, time = life(host), host.world.time
        second, before = self._window.get(key, (-1, 0))
        if second != int(time):
            self._window[key] = (int(time), host.ticks)
            self._awake(host)
        elif host.ticks - before > TICKS_PER_S_MAX:
            object_to(host, "timers", f"more than {TICKS_PER_S_MAX} ticks within a second")
        instant, ticks = self._instant.get(key, (-1.0, 0))
        if instant != time:
            self._instant[key] = (time, host.ticks)
        elif host.ticks - ticks > TICKS_AT_ONCE_MAX:
            object_to(host, "timers", f"more than {TICKS_AT_ONCE_MAX} ticks at one instant")

    def _awake(self, host: "Host") -> None:
        if host.leaving or not host.ticks:
            return
        options, deadline_at = host.core.swim.options, host.core.swim.next_deadline()
        longest_s = (options.health_max + 2) * options.probe_period_s + options.pause_tolerance_s
        if deadline_at is None or deadline_at - host.now().mono > longest_s:
            object_to(
                host, "awake", f"it wants to be woken at {deadline_at}, more than {longest_s} s from now"
            )


@attrs.define
class BoundsCheck:
    """bounds, datagram_size, addresses and traffic_budget."""

    _due_at: dict[Life, float] = attrs.field(init=False, factory=dict)
    _sent: dict[Life, list[int]] = attrs.field(init=False, factory=dict)
    """The second that is counted, its datagrams and their bytes."""

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Measure what is sent, and now and then what is held."""
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self._sending(host, effect)
        if host.world.time >= self._due_at.get(life(host), 0.0):
            self._due_at[life(host)] = host.world.time + BOUNDS_EVERY_S
            self._measure(host, host.core)

    def _sending(self, host: "Host", effect: SendDatagram) -> None:
        world = host.world
        if len(effect.data) > MTU_BYTES:
            object_to(host, "datagram_size", f"{len(effect.data)} bytes exceed {MTU_BYTES}")
        if effect.address not in world.addresses:
            object_to(host, "addresses", f"a datagram goes to {effect.address}, which is nobody's")
        spent = self._sent.setdefault(life(host), [-1, 0, 0])
        if spent[0] != int(world.time):
            spent[:] = [int(world.time), 0, 0]
        spent[1] += 1
        spent[2] += len(effect.data)
        packets_max = PACKETS_PER_S + PACKETS_PER_S_EACH * len(world.hosts)
        if spent[1] > packets_max or spent[2] > packets_max * BYTES_PER_PACKET:
            object_to(host, "traffic_budget", f"{spent[1]} datagrams, {spent[2]} bytes within a second")

    def _measure(self, host: "Host", core: "NodeCore") -> None:
        members = len(core.swim.members())
        for what, size, limit in (
            ("members", members, core.swim.options.members_max),
            ("rumours", core.swim.statistics().rumours, members),
            ("load records", len(core.swim.loads), sum(row.is_live for row in core.swim.members()) + 1),
            ("metadata bytes", core.swim.metadata.held_bytes, SHELF_BYTES_MAX + codec.METADATA_BYTES_MAX),
            ("links", len(core.links), LINKS_MAX),
            ("tickets", len(core.relay.tickets), TICKETS_MAX),
            ("flights", core.active, core.options.flights_max),
        ):
            if size > limit:
                object_to(host, "bounds", f"{size} {what}, at most {limit} are allowed")


@attrs.define
class RumourCheck:
    """rumour_bound, at one node of the world, since it reads every datagram again.

    What is sent to compare tables is none. What a node says of itself, or to whom it is about, is not
    counted: both are said as often as is asked. What was a doubt first is told some times more as a suspicion; a
    doubt that ended, and begins anew, is another rumour. An account that is told beside its metadata has the same bound
    once more, since a value is a rumour of its own.
    """

    _sends: dict[tuple[Life, Update, float | None, bool], int] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Count the rumours in what is sent."""
        if not host.watched:
            return
        for effect in said_in_clear(host, effects):
            if isinstance(effect, SendDatagram) and len(effect.data) > codec.HEADER_BYTES:
                self._read(host, effect)

    def _read(self, host: "Host", effect: SendDatagram) -> None:
        try:
            packet = codec.decode(effect.data)
        except DecodeError:
            host.world.reach("not_membership")
            return
        if isinstance(packet.message, Reconcile):
            return
        receiver = host.world.hosts.get(host.world.addresses.get(effect.address, ""))
        about = {host.id, receiver.id if receiver is not None else ""}
        for update in packet.updates:
            if update.member.node not in about and update.member.address != effect.address:
                self._count(host, update, bool(packet.pieces))

    def _count(self, host: "Host", update: Update, with_value: bool) -> None:
        host.world.reach("rumour")
        since = host.world.doubted.get(life(host), {}).get(update.member.identity)
        key = (life(host), update, since, with_value)
        self._sends[key] = sends = self._sends.get(key, 0) + 1
        known = len(host.world.lives)
        most = sends_max(known, host.core.swim.options.retransmit_factor)
        most += DOUBT_SENDS if update.member.liveness is Liveness.SUSPECT else 0
        if sends > most:
            object_to(
                host, "rumour_bound", f"a rumour of {update.member.name} was sent {sends} times, not {most}"
            )


@attrs.define
class LoadCheck:
    """load_age and load_life."""

    _measured: dict[tuple[str, int, int], float] = attrs.field(init=False, factory=dict)
    """When the owner last looked and found this version true: its own figures grew younger then."""
    _own_age_ms: dict[Life, int] = attrs.field(init=False, factory=dict)
    _due_at: dict[Life, float] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Note when a node's own figures were true, and compare what it is told of others'."""
        core, world = host.core, host.world
        own = core.swim.loads.still(host.now())
        if own is not None:
            key = (host.id, own.generation, own.sequence)
            if key not in self._measured or own.age_ms < self._own_age_ms.get(life(host), 0):
                self._measured[key] = world.time
            self._own_age_ms[life(host)] = own.age_ms
        if world.time < self._due_at.get(life(host), 0.0):
            return
        self._due_at[life(host)] = host.world.time + BOUNDS_EVERY_S
        for row in core.swim.members():
            if row.node != host.id:
                self._compare(host, row)

    def _compare(self, host: "Host", row: Member) -> None:
        node, record = row.node, host.core.swim.loads.get(host.now(), row.node)
        if record is not None and record.generation < row.identity.generation:
            object_to(host, "load_life", f"figures of {node} are those of an earlier life")
        measured_at = self._measured.get((node, *record.version)) if record is not None else None
        if measured_at is None:
            return
        host.world.reach("load")
        world, period_s = host.world, host.core.swim.options.probe_period_s
        overrun_s = max(each.overrun_s for each in world.hosts.values())
        unseen_s = 2 * period_s + len(world.hosts) * world.network.statistics.longest_s + overrun_s
        true_s = world.time - measured_at
        if record.age_ms / 1000 < (true_s - unseen_s) * SLOWEST_CLOCK:
            object_to(
                host, "load_age", f"figures of {node} look {record.age_ms} ms old, and are {true_s:.2f} s old"
            )


SLOWEST_CLOCK = 0.9
"""A drifting clock may count so little of a second."""
