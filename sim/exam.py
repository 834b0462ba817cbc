"""What the healed mesh can still do: be still, spread news, notice a death, welcome back, see a leave.

Each condition is awaited within a bound that follows from the options, the number of nodes and the round
trips that they measured: D(N) for a death, S(N) for news. Clocks that faults have set apart stay so, and then
probing is random (`mesh.rota`), so D(N) is that of the round robin.
"""

import math
from typing import TYPE_CHECKING

from mesh.gossip import sends_max
from mesh.member import Liveness
from mesh.suspicion import suspicion_min_s
from sim.stream import random_of

if TYPE_CHECKING:
    from mesh.swim_options import SwimOptions
    from sim.host import Host
    from sim.world import World

QUIET_S = 2.0
"""How long the healed mesh is listened to."""

QUIET_PER_PERIOD = 9.0
"""Datagrams that a node may send in a probe period when nothing happens: a ping, an ack, one to somebody
dead and one to a seed that is nobody's, and what an odd period more of all these brings."""

MARGIN_S = 0.5
"""For engines that publish, links that open, and the step of `await_none`."""

SETTLED_PERIODS = 2
"""Probe periods in which each has asked each: who has just returned can open what the others seal by then. A goodbye
is sent a few times within a gossip round or two; in that moment all of them would be lost."""

TRIPS = 8
"""Smoothed round trips to which a direct timeout may come (SRTT + 4 * RTTVAR, after jitter)."""

CLOCKS_APART = 0.5
"""Periods between two wall clocks beyond which the shared timetable is not one."""


def spread_s(world: "World") -> float:
    """S(N): seconds in which all have heard a rumour, or found by digest that they have not.

    Gossip alone takes the sends of a rumour, one round each; who has missed it (about one in n^4, more
    where packets are lost) compares digests after `sync_periods`, and its turn may be a round away.
    """
    options, count = _options(world), len(world.well)
    sync_s = (2 * options.sync_periods + 2 * count) * options.probe_period_s * max(1.0, math.log10(count))
    return _gossip_s(world) + (sync_s if count > 2 else 0.0) + MARGIN_S


def detection_s(world: "World", count: int) -> float:
    """D(N): seconds from a silent death among `count` nodes until it is a member nowhere."""
    options = _options(world)
    turns = 2 if options.shared_probing and not _clocks_apart(world) else 2 * count
    suspicion_s = suspicion_min_s(count, options.probe_period_s, options.suspicion_factor)
    if count <= 3:
        suspicion_s *= options.suspicion_max_factor
    timeout_s = min(options.probe_timeout_max_s, max(options.probe_timeout_min_s, TRIPS * _trip_s(world)))
    verdict_s = max(options.verdict_min_s, options.verdict_timeouts * timeout_s)
    told_s = spread_s(world) if world.options.network.loss else _gossip_s(world) + MARGIN_S
    return turns * options.probe_period_s + 3 * verdict_s + suspicion_s + told_s


def _gossip_s(world: "World") -> float:
    """Seconds that a rumour takes to reach all, or all but the few whom a digest then finds."""
    options, count = _options(world), len(world.well)
    rounds = sends_max(count, options.retransmit_factor) + math.ceil(math.log2(count + 1))
    return rounds * options.gossip_period_s + 2 * _trip_s(world)


def examine(world: "World") -> dict[str, float]:
    """Put the healed mesh to the test; return the seconds that each part took. Raises Violation."""
    if len(world.well) < 2:
        world.reach("exam_alone")
        return {}
    world.reach("exam")
    _quiet(world)
    rng = random_of(world.seed, "exam")
    taken_s = {"news_spreads": _news(world, rng.choice(world.well))}
    mortal = rng.sample(world.well, 2)
    taken_s |= _death(world, mortal[0])
    world.run_for(SETTLED_PERIODS * _options(world).probe_period_s)
    taken_s["leave_spreads"] = _leave(world, mortal[1])
    return taken_s


def _quiet(world: "World") -> None:
    before = {host.name: _sent(host) for host in world.well}
    periods = QUIET_S / _options(world).probe_period_s
    world.run_for(QUIET_S)
    for host in world.well:
        sent = _sent(host) - before.get(host.name, _sent(host))
        if sent > QUIET_PER_PERIOD * (periods + 1):
            world.fail("quiet", f"{host.name} sent {sent} packets within {QUIET_S} s, and nothing happened")


def _sent(host: "Host") -> int:
    return host.core.swim.statistics().packets_sent


def _news(world: "World", teller: "Host") -> float:
    teller.give(lambda core, now: core.swim.update_me(now, zone="exam"))

    def unaware() -> str:
        rows = {host.name: host.core.swim.member(teller.id) for host in world.well}
        return ", ".join(name for name, row in rows.items() if row is None or row.zone != "exam")

    return world.await_none("news_spreads", unaware, spread_s(world))


def _death(world: "World", victim: "Host") -> dict[str, float]:
    within_s = detection_s(world, len(world.well))
    victim.crash(power=True)
    died_s = world.await_none("death_spreads", lambda: _held(world, victim, (Liveness.DEAD,)), within_s)
    victim.start()
    return {"death_spreads": died_s, "life_returns": _return(world, victim)}


def _held(world: "World", gone: "Host", liveness: tuple[Liveness, ...]) -> str:
    rows = {host.name: host.core.swim.member(gone.id) for host in world.well if host is not gone}
    wrong = [
        f"{name}: {row.liveness.name}" for name, row in rows.items() if row and row.liveness not in liveness
    ]
    return f"{gone.name} is held {wrong}" if wrong else ""


def _return(world: "World", victim: "Host") -> float:
    def unaware() -> str:
        identity = victim.core.me.identity
        rows = {host.name: host.core.swim.member(victim.id) for host in world.well}
        late = [
            name for name, row in rows.items() if row is None or row.identity != identity or not row.is_live
        ]
        return f"{victim.name} is not alive to {late}" if late else ""

    heal_s = 2 * _options(world).heal_period_s + _options(world).join_retry_max_s
    return world.await_none("life_returns", unaware, heal_s + spread_s(world))


def _leave(world: "World", leaver: "Host") -> float:
    leaver.leave()
    return world.await_none("leave_spreads", lambda: _held(world, leaver, (Liveness.LEFT,)), spread_s(world))


def _options(world: "World") -> "SwimOptions":
    return world.options.node.swim


def _trip_s(world: "World") -> float:
    """The longest round trip that anybody has measured."""
    trips = [a.core.swim.round_trip_s(b.id) or 0.0 for a in world.well for b in world.well if a is not b]
    return max(trips, default=0.0)


def _clocks_apart(world: "World") -> bool:
    skews = [host.now().wall for host in world.well]
    return max(skews) - min(skews) > CLOCKS_APART * _options(world).probe_period_s
