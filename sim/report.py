"""The figures of one run: what was found, how soon deaths were noticed, what clients felt, what it cost.

`report` returns plain values, ready for JSON. Times are virtual seconds; a figure that
does not exist in this run (nobody crashed, nobody waited) is None.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from sim.configuration import describe
from sim.journal import Event, Journal
from sim.page_verdicts import told
from sim.scenario import Result

HEADER_BYTES = 28
"""IP and UDP headers of each datagram."""


@attrs.frozen
class Detection:
    """How one crash was noticed. Times are seconds after it."""

    host: str
    at: float
    out_of_routing_first_s: float | None = None
    """Until somebody stopped sending requests there."""
    out_of_routing_all_s: float | None = None
    """Until everybody who ran then had; None if somebody never did, or it came back before."""
    dead_first_s: float | None = None
    dead_all_s: float | None = None
    back_s: float | None = None
    """Until it was started again."""


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value that this share of all values does not exceed (nearest rank); None if there is none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def detections(journal: Journal) -> list[Detection]:
    """Return how each crash was noticed, in order."""
    running: set[str] = set()
    found: list[Detection] = []
    for index, event in enumerate(journal.events):
        if event.event in ("started", "resumed"):
            running.add(event.who)
        elif event.event == "paused":
            running.discard(event.who)
        elif event.event == "crashed":
            running.discard(event.who)
            found.append(noticed(journal.events[index + 1 :], event.who, event.at, frozenset(running)))
    return found


def noticed(events: Iterable[Event], host: str, at: float, watchers: frozenset[str]) -> Detection:
    """Return how these watchers noticed, in the events since, that a host was gone at a time."""
    out: dict[str, float] = {}
    dead: dict[str, float] = {}
    waiting = set(watchers)
    back_s = None
    for event in events:
        after_s = event.at - at
        if event.event == "started" and event.who == host:
            back_s = after_s
            break
        if event.event in ("crashed", "paused"):
            waiting.discard(event.who)
        elif event.subject == host and (event.event == "quarantined" or event.state in ("dead", "left")):
            out.setdefault(event.who, after_s)
            if event.event != "quarantined":
                dead.setdefault(event.who, after_s)
    return Detection(host, at, _first(out), _last(out, waiting), _first(dead), _last(dead, waiting), back_s)


def _first(times: dict[str, float]) -> float | None:
    return min(times.values(), default=None)


def _last(times: dict[str, float], everybody: Iterable[str]) -> float | None:
    found = [times.get(name) for name in everybody]
    return None if not found or None in found else max(found)


def report(result: Result, journal: Journal, replay: str = "") -> dict[str, Any]:
    """Return all figures of a run."""
    scenario, world = result.scenario, result.world
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "workers": scenario.workers,
        "configuration": describe(scenario.options.node),
        "sealed": scenario.sealed,
        "virtual_s": round(world.time, 6),
        "events": world.events,
        "trace_digest": world.trace.digest(),
        "violation": _violation(result),
        "replay": replay,
        "faults": dict(world.struck),
        "bitten": dict(world.bitten),
        "reached": dict(sorted(journal.counts.items())),
        "detections": [attrs.asdict(found) for found in detections(journal)],
        "membership": membership(journal),
        "verdicts": told(journal),
        "clients": clients(result),
        "traffic": traffic(result),
        "settled_s": result.settled_s,
    }


def _violation(result: Result) -> dict[str, str] | None:
    found = result.violation
    return {"check": found.check, "message": found.message} if found else None


def membership(journal: Journal) -> dict[str, Any]:
    """Return how soon crashes were noticed, and how often somebody was judged wrongly."""
    found = detections(journal)
    dead = [one.dead_all_s for one in found if one.dead_all_s is not None]
    out = [one.out_of_routing_all_s for one in found if one.out_of_routing_all_s is not None]
    return {
        "crashes": len(found),
        "dead_everywhere_s": spread(dead),
        "out_of_routing_everywhere_s": spread(out),
        "false_deaths": sum(event.is_false for event in journal.events if event.state == "dead"),
        "false_quarantines": sum(event.is_false for event in journal.events if event.event == "quarantined"),
        "suspicions": journal.counts.get("member:suspect", 0),
        "refutations": journal.counts.get("refuted", 0),
    }


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, median, p99 and maximum of some values."""
    return {
        "count": len(values),
        "p50": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": max(values, default=None),
    }


def clients(result: Result) -> dict[str, Any]:
    """Return how requests ended and what their clients waited for."""
    all_of_them = result.world.clients
    pauses = [c.longest_pause_s for c in all_of_them if not c.request.read_s and c.first_at is not None]
    first = [c.first_at - c.request.at for c in all_of_them if c.first_at is not None]
    return {
        "count": len(all_of_them),
        "outcomes": dict(sorted(result.outcomes.items())),
        "moves": sum(c.moves for c in all_of_them),
        "first_token_s": spread(first),
        "longest_pause_s": spread(pauses),
    }


def traffic(result: Result) -> dict[str, Any]:
    """Return what gossip cost: datagrams and bytes, headers included, of a node in a second."""
    world, sent = result.world, result.world.network.statistics
    node_seconds = max(1e-9, world.time * len(world.hosts))
    return {
        "datagrams": sent.sent,
        "delivered": sent.delivered,
        "lost": sent.lost + sent.cut,
        "datagrams_per_node_s": round(sent.sent / node_seconds, 3),
        "bytes_per_node_s": round((sent.bytes_sent + HEADER_BYTES * sent.sent) / node_seconds, 1),
    }
