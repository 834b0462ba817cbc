"""Liveness: what must come true within a bound once faults have stopped.

The conditions have names, under which their failure is reported; `sim.exam` adds those that are about
what the healed mesh can still do.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from mesh.member import Liveness
from node.policy.engines import EngineState
from sim.record_checks import records_differ

if TYPE_CHECKING:
    from sim.host import Host
    from sim.workload import Client
    from sim.world import World


LIVENESS: dict[str, str] = {
    "views_agree": "every node of the core sees all of them alive in their present lives, and only those; "
    "all view digests are equal",
    "engines_back": "every engine of a running node is ready again",
    "clients_served": "every request has ended",
    "nothing_left": "no flight, ticket, attempt or KV block is held by anybody; engines' accounts add up",
    "records_agree": "those who are well hold the same replicated records",
    "trust_returns": "nobody quarantines a node of the core, once the probation of those who flapped is over",
    "queues_empty": "no rumour waits to be sent",
    "health_returns": "every node holds itself to be well again",
    "loads_fresh": "every node knows the present load record of every other, no older than three rounds",
    "outcomes": "each request ended in a way that its client asked for or its entry's fate explains",
    "quiet": "for two seconds, each node sends no more than an idle mesh costs",
    "news_spreads": "what a node says of itself is known to all",
    "death_spreads": "a node without power is a member nowhere within detection and one spread",
    "life_returns": "when it starts again all see it alive in its new life",
    "leave_spreads": "a goodbye is known to all within a spread, and to all as one",
}
"""Every condition, in the order in which they are awaited, and what it says."""


@attrs.frozen
class Bounds:
    """Seconds of virtual time that each may take after the healing; those of the exam are formulas there."""

    views_s: float = 30.0
    """Each of the dead is pinged in its turn, and patience may be stretched ninefold: a few seconds are usual.
    A core of one has nobody to prove that it hears, and waits `alone_s` more (`mesh.beliefs`)."""
    engines_s: float = 45.0
    """One that froze while it loaded is left alone for 30 s."""
    clients_s: float = 90.0
    left_s: float = 30.0
    records_s: float = 60.0
    """Some exchanges of five seconds, each with one peer at random."""
    trust_s: float = 700.0
    """Who has flapped is on probation, ten minutes at most (`mesh.trust`), and then trusted at its next echo."""
    queues_s: float = 5.0
    """A rumour leaves the queue after some gossip rounds."""
    health_s: float = 60.0
    """The worst health takes 1 + 2 + .. + 9 probe periods to mend."""
    loads_s: float = 30.0


def _alone_s(world: "World") -> float:
    """How long who is left alone doubts itself before it holds all others dead."""
    return world.options.node.swim.alone_s if len(world.well) == 1 else 0.0


def disagreement(world: "World") -> str:
    """Say who sees the mesh wrongly; empty if nobody does."""
    running = {host.id: host for host in world.well}
    for host in world.well:
        live = {row.node: row for row in host.core.swim.members() if row.is_live}
        wrong = [row.name for node, row in live.items() if not _is_present(running.get(node), row.identity)]
        missing = [other.name for node, other in running.items() if node not in live]
        suspect = [row.name for row in live.values() if row.liveness is not Liveness.ALIVE]
        if wrong or missing or suspect:
            return f"{host.name} holds {wrong} live wrongly, misses {missing}, suspects {suspect}"
    digests = {host.core.swim.statistics().digest for host in world.well}
    return f"{len(digests)} different digests of one view" if len(digests) > 1 else ""


def _is_present(host: "Host | None", identity: object) -> bool:
    return host is not None and identity.age == host.core.me.identity.age


def unready(world: "World") -> str:
    """Name an engine of a running node that is not ready; empty if there is none."""
    for host in world.well:
        for replica in host.core.engines.replicas.values():
            if replica.state is not EngineState.READY:
                return f"{replica.name} of {host.name} is {replica.state.value}: {replica.reason}"
    return ""


def unserved(world: "World") -> str:
    """Name a client whose request goes on; empty if there is none."""
    waiting = [client for client in world.clients if not client.outcome]
    return "; ".join(map(_waiting, waiting[:3]))


def _waiting(client: "Client") -> str:
    host = client.host
    flight = host.core.flights.get(client.flight) if host.core is not None else None
    state = f"{flight.state.value} at attempt {flight.attempt} on {flight.target}" if flight else "unknown"
    return f"{client.label} at {host.name}: {state}, {len(client.text)} characters read"


def leftovers(world: "World") -> str:
    """Say what is still held although nothing should be; empty if nothing is.

    Ended flights wait for clients that might come back, for a minute.
    An engine that froze unnoticed, with nothing to do, keeps what it has until it is given work and killed.
    """
    for host in world.well:
        if len(host.core.flights) != host.core.claims.waiting_flights or host.core.relay.tickets:
            return f"{host.name} holds flights {list(host.core.flights)}, tickets {list(host.core.relay.tickets)}"
        for engine in host.engines.values():
            if engine.core is not None and not engine.frozen and (held := engine.held):
                return f"{engine.replica} of {host.name} {held}"
    return ""


def distrusted(world: "World") -> str:
    """Name who quarantines whom of the core; empty if nobody does."""
    for host in world.well:
        held = [other.name for other in world.well if host.core.swim.is_quarantined(other.id)]
        if held:
            return f"{host.name} quarantines {held}"
    return ""


def unsaid(world: "World") -> str:
    """Say whose rumours wait; empty if none do. Who is alone has nobody to tell."""
    for host in world.well if len(world.well) > 1 else ():
        rumours = host.core.swim.statistics().rumours
        if rumours:
            return f"{host.name} has {rumours} rumours to tell"
    return ""


def unwell(world: "World") -> str:
    """Say who blames itself; empty if nobody does. Who is alone has nobody to prove itself by."""
    for host in world.well if len(world.well) > 1 else ():
        health = host.core.swim.statistics().health
        if health:
            return f"{host.name} has a local health of {health}"
    return ""


def stale(world: "World") -> str:
    """Say whose figures are old somewhere; empty if nobody's are. T is a probe period, or the time between records."""
    for host in world.well:
        options = host.core.options
        age_max_s = 3 * (options.publish_s + len(world.well) * options.swim.probe_period_s)
        for other in world.well:
            own = other.core.swim.loads.get(other.now(), other.id)
            seen = host.core.swim.loads.get(host.now(), other.id)
            if own is not None and (seen is None or seen.version != own.version):
                return f"{host.name} holds {seen and seen.version} of {other.name}, not {own.version}"
            if seen is not None and seen.age_ms / 1000 > age_max_s:
                return f"{host.name} has figures of {other.name} of {seen.age_ms} ms ago"
    return ""


def judge(world: "World", crashed: tuple[str, ...], may_fail: tuple[str, ...]) -> None:
    """Check `outcomes`: that each request ended as it may.

    `crashed` are hosts that were down at some time; `may_fail` are outcomes that anybody may have met.
    """
    for client in world.clients:
        allowed = _allowed(client, crashed)
        if client.outcome not in (*allowed, *may_fail):
            world.fail(
                "outcomes", f"{client.label} at {client.host.name}: {client.outcome}, not one of {allowed}"
            )


def _allowed(client: "Client", crashed: tuple[str, ...]) -> tuple[str, ...]:
    request = client.request
    if request.is_poison:
        allowed = ["failed:engine_crash"]
    else:
        allowed = ["done"]
    if request.cancel_after_s is not None:
        allowed.append("cancelled")
    if request.timeout_s is not None:
        allowed.append("failed:deadline_exceeded")
    if request.entry in crashed or client.returns:
        allowed.append("entry_lost")
    return tuple(allowed)


def settle(world: "World", bounds: Bounds = Bounds()) -> dict[str, float]:
    """Let the world come to rest, or fail; return the seconds that each condition took."""
    conditions: tuple[tuple[str, Callable[[], str], float], ...] = (
        ("views_agree", lambda: disagreement(world), bounds.views_s + _alone_s(world)),
        ("engines_back", lambda: unready(world), bounds.engines_s),
        ("clients_served", lambda: unserved(world), bounds.clients_s),
        ("nothing_left", lambda: leftovers(world), bounds.left_s),
        ("records_agree", lambda: records_differ(world), bounds.records_s),
        ("trust_returns", lambda: distrusted(world), bounds.trust_s),
        ("queues_empty", lambda: unsaid(world), bounds.queues_s),
        ("health_returns", lambda: unwell(world), bounds.health_s),
        ("loads_fresh", lambda: stale(world), bounds.loads_s),
    )
    return {name: world.await_none(name, wrong, within_s) for name, wrong, within_s in conditions}
