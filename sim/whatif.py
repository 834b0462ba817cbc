"""What would happen to a user's own mesh: the production cores on its topology, under its load and troubles.

The mesh forms, clients arrive for as long as the topology says, troubles come, and then
clients are waited for. Nothing is healed but what the topology itself ends. Speeds are a
model (`sim.topology.Site.device`): a step of an engine takes so long for itself and so
long for each row, which is what measured engines look like within a factor; how the mesh
notices, routes and moves is the real thing.
"""

import random
from collections.abc import Callable
from typing import Any

import attrs

from sim.checks import safety
from sim.fault import plan
from sim.journal import Journal
from sim.report import Detection, clients, detections, noticed, spread, traffic
from sim.scenario import Result, Scenario, nobody_watches
from sim.stream import random_of
from sim.topology import FOR_GOOD_S, Topology, Trouble
from sim.workload import Request, begin
from sim.world import MODEL, STARTS_APART_S, Violation, World, WorldOptions

FORM_S = 5.0
"""By then the mesh has formed and its engines are ready; the time of a topology begins here."""

FINISH_S = 60.0
"""How long clients are waited for after the last has come."""

SEEDS = 2
"""Nodes that everybody joins through: the first of the first sites."""

BEFORE = -1.0
"""A time before anything has happened."""

NO_RULE = WorldOptions().network


@attrs.frozen
class Outcome:
    """One run of a topology."""

    result: Result
    journal: Journal
    computing: tuple[tuple[Trouble, int], ...]
    """Of each trouble: how many streams its nodes computed when it came."""


def observe(topology: Topology, seed: int, watch: Callable[[float], None] = nobody_watches) -> Outcome:
    """Run a topology once."""
    scenario = _scenario(topology, seed)
    checks = safety()
    world = World(seed, scenario.options, checks)
    world.watch = watch
    journal = Journal()
    journal.attach(world)
    _build(world, topology)
    begin(world, list(scenario.requests))
    computing: list[tuple[Trouble, int]] = []
    for trouble in topology.troubles:
        world.at(
            trouble.at + FORM_S,
            lambda trouble=trouble: computing.append(_computing(world, topology, trouble)),
        )
    plan(world, scenario.strikes)
    violation = None
    try:
        world.run_for(FORM_S + topology.seconds)
        _finish(world)
    except Violation as found:
        violation = found
    return Outcome(Result(scenario, world, violation, {}), journal, tuple(computing))


def _scenario(topology: Topology, seed: int) -> Scenario:
    return Scenario(
        name=topology.name,
        seed=seed,
        nodes=len(topology.nodes),
        workers=sum(site.workers for site in topology.sites),
        requests=requests(topology, random_of(seed, "whatif")),
        strikes=topology.strikes(FORM_S),
        faults_end_s=FORM_S + topology.seconds,
        core=topology.nodes,
        options=WorldOptions(topology.node, NO_RULE),
    )


def requests(topology: Topology, rng: random.Random) -> tuple[Request, ...]:
    """Draw the clients: Poisson arrivals, lengths spread by a half around what is asked for."""
    asked, at, drawn = topology.asked, FORM_S, []
    while (at := at + rng.expovariate(asked.rate_per_s)) < FORM_S + topology.seconds:
        prompt = f"{len(drawn)} " + "x" * round(asked.prompt_tokens * rng.uniform(0.5, 1.5))
        tokens = max(1, round(asked.tokens * rng.uniform(0.5, 1.5)))
        drawn.append(Request(rng.choice(topology.entries), at, prompt, rng.getrandbits(64), tokens))
    return tuple(drawn)


def _build(world: World, topology: Topology) -> None:
    seeds = tuple(site.nodes[0] for site in topology.sites if site.nodes)[:SEEDS]
    for name in (*seeds, *(name for name in topology.nodes if name not in seeds)):
        site = topology.site_of(name)
        models = () if name in site.nodes[: site.entries] else (MODEL,)
        host = world.add(name, models, tuple(seed for seed in seeds if seed in world.hosts))
        host.device = site.device
        world.at(len(world.hosts) * STARTS_APART_S / 5, host.start)
    world.network.lay("topology", *topology.rules())


def _computing(world: World, topology: Topology, trouble: Trouble) -> tuple[Trouble, int]:
    cores = [world[name].core for name in topology.struck(trouble)]
    return trouble, sum(len(core.relay.tickets) for core in cores if core is not None)


def _finish(world: World) -> None:
    end = world.time + FINISH_S
    while world.time < end and any(not client.outcome for client in world.clients):
        world.run_for(0.5)


# -- what it comes to -----------------------------------------------------------------------------


def findings(topology: Topology, outcome: Outcome) -> dict[str, Any]:
    """Return what happened in one run."""
    result, journal = outcome.result, outcome.journal
    return {
        "seed": result.scenario.seed,
        "trace_digest": result.world.trace.digest(),
        "violation": str(result.violation) if result.violation else None,
        "clients": clients(result),
        "waiting": sum(not client.outcome for client in result.world.clients),
        "failed": _failed(result),
        "gossip_bytes_per_node_s": traffic(result)["bytes_per_node_s"],
        "events": [_event(topology, outcome, place) for place in range(len(outcome.computing))],
        "load": {name: _load(journal, name) for name in topology.nodes},
        "capacity": capacity(topology),
    }


def _failed(result: Result) -> int:
    return sum(client.outcome not in ("", "done", "cancelled") for client in result.world.clients)


def _event(topology: Topology, outcome: Outcome, place: int) -> dict[str, Any]:
    trouble, computing = outcome.computing[place]
    at = trouble.at + FORM_S
    until = (
        outcome.computing[place + 1][0].at + FORM_S if place + 1 < len(outcome.computing) else float("inf")
    )
    found = _noticed(topology, outcome, trouble)
    paused = [
        client.longest_pause_s
        for client in outcome.result.world.clients
        if at < client.longest_ended_at <= until
        and client.longest_ended_at - client.longest_pause_s < at + 5.0
    ]
    return {
        "at": trouble.at,
        "what": f"{trouble.kind} {trouble.what}" + (f" for {trouble.for_s:g} s" if trouble.for_s else ""),
        "streams_there": computing,
        "out_of_routing_s": spread(
            [e.out_of_routing_all_s for e in found if e.out_of_routing_all_s is not None]
        ),
        "dead_everywhere_s": spread([e.dead_all_s for e in found if e.dead_all_s is not None]),
        "longest_pause_s": max(paused, default=0.0),
    }


def _noticed(topology: Topology, outcome: Outcome, trouble: Trouble) -> list[Detection]:
    """Return how those who were not struck noticed that the struck were gone, as long as they were."""
    at, struck = trouble.at + FORM_S, topology.struck(trouble)
    if trouble.kind in ("kill", "power"):
        return [
            each for each in detections(outcome.journal) if each.host in struck and abs(each.at - at) < 1e-6
        ]
    until = at + (trouble.for_s or FOR_GOOD_S)
    events = [event for event in outcome.journal.events if at <= event.at < until]
    watchers = frozenset(name for name in topology.nodes if name not in struck)
    return [noticed(events, name, at, watchers) for name in struck] if trouble.kind != "slow" else []


def _load(journal: Journal, name: str) -> dict[str, float]:
    samples = [s.attempts for at, s in zip(journal.times, journal.samples[name], strict=True) if at >= FORM_S]
    if not samples:
        return {"mean": 0.0, "most": 0, "busy": 0.0}
    busy = sum(attempts > 0 for attempts in samples) / len(samples)
    return {"mean": round(sum(samples) / len(samples), 2), "most": max(samples), "busy": round(busy, 3)}


def capacity(topology: Topology) -> dict[str, float]:
    """Return tokens a second: what is asked, what all workers give, and the least that is left at any time.

    What is cut off, stopped or slowed counts as lost for as long as the trouble lasts; prefill is charged
    at its own speed, in the place of decoding.
    """
    asked = topology.asked
    moments = [BEFORE, *(trouble.at for trouble in topology.troubles)]
    left = [_left(topology, at) for at in moments]
    return {"wanted": asked.rate_per_s * asked.tokens, "at_first": left[0], "at_worst": min(left)}


def _gone(topology: Topology, at: float) -> frozenset[str]:
    lasting = [t for t in topology.troubles if t.at <= at < t.at + (t.for_s or FOR_GOOD_S)]
    return frozenset(name for trouble in lasting for name in topology.struck(trouble))


def _left(topology: Topology, at: float) -> float:
    gone = _gone(topology, at)
    return sum(
        _decode_tokens_per_s(topology, site.name)
        for site in topology.sites
        for name in site.nodes[site.entries :]
        if name not in gone
    )


def _decode_tokens_per_s(topology: Topology, name: str) -> float:
    """Return what one worker of a site gives when part of its time goes to prompts."""
    site = next(site for site in topology.sites if site.name == name)
    asked = topology.asked
    prefill_s = asked.prompt_tokens / site.prefill_tokens_per_s
    return asked.tokens / (asked.tokens / site.total_tokens_per_s + prefill_s)
