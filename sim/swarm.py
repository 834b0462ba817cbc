"""The swarm: a whole scenario drawn from one number.

Each seed draws the size of the mesh, its network, its clients, which kinds of
fault it meets at all, and when. To meet only some kinds is the point of swarm
testing (Groce et al., ISSTA 2012): faults that are always together hide what
each does alone.
"""

import random

import attrs

from mesh.swim_options import SwimOptions
from node.core import NodeOptions
from sim.engine import POISON_ID
from sim.fault import Fault, Scene, Strike
from sim.faults import FAULTS
from sim.rule import Rule
from sim.scenario import Scenario
from sim.stream import random_of
from sim.troubles.records import RecordStorm
from sim.workload import Request, Workload
from sim.world import WorldOptions

BEGIN_S = 3.0
"""By then the mesh has formed and its engines are ready."""

KINDS_MAX = 8
"""Most kinds of fault that one scenario meets."""

SEALED_SHARE = 1 / 3
"""Part of all scenarios in which every datagram is sealed; drawn apart, so that nothing else depends on it."""

HONEST = (
    "failed:no_worker",
    "failed:too_many_moves",
    "failed:engine_crash",
    "refused:model_not_found",
)
"""How requests may end when workers are crashed, cut off and killed under them again and again."""

NETWORKS = (
    Rule(delay_s=0.0001, jitter_s=0.0001),
    Rule(delay_s=0.0003, jitter_s=0.0004),
    Rule(delay_s=0.001, jitter_s=0.01, loss=0.01),
    Rule(delay_s=0.02, jitter_s=0.005),
)
"""Loopback, a data centre, a bad one, a region."""


def draw(seed: int, nodes: int | None = None, seconds: float = 12.0, keep_trace: bool = False) -> Scenario:
    """Draw a scenario; `nodes` and the `seconds` under faults may be given instead of drawn."""
    rng = random_of(seed, "swarm")
    count = nodes or rng.choice((2, 3, 3, 4, 5, 5, 6, 8))
    names = tuple(f"node-{index}" for index in range(count))
    end_s = BEGIN_S + seconds
    entries = names[: rng.randint(1, min(2, count - 1))]
    spared = entries if rng.random() < 0.7 else ()
    requests = _resumable(seed, _requests(rng, entries, end_s))
    first = FAULTS[seed % len(FAULTS)]
    strikes = (*_strikes(rng, Scene(names, spared), end_s, first), *_edits(seed, end_s))
    down = tuple(name for name in names[1:] if name not in entries and rng.random() < 0.15)
    return Scenario(
        name="swarm",
        seed=seed,
        nodes=count,
        workers=rng.randint(max(1, count // 2), count),
        requests=requests,
        strikes=strikes,
        faults_end_s=end_s,
        core=tuple(name for name in names if name not in down),
        crashed=() if spared else names,
        may_fail=HONEST,
        exam=True,
        sealed=random_of(seed, "swarm sealed").random() < SEALED_SHARE,
        options=WorldOptions(_node_options(rng), rng.choice(NETWORKS), keep_trace=keep_trace),
    )


def _node_options(rng: random.Random) -> NodeOptions:
    return NodeOptions(rng.choice((SwimOptions.local(), SwimOptions.local(), SwimOptions.lan())))


def _requests(rng: random.Random, entries: tuple[str, ...], end_s: float) -> tuple[Request, ...]:
    rate = rng.choice((0.5, 2.0, 4.0))
    requests = Workload(entries, rate, BEGIN_S, end_s).requests(rng)
    if requests and rng.random() < 0.3:
        poison = rng.randrange(len(requests))
        prompt = requests[poison].prompt + chr(POISON_ID)
        requests[poison] = attrs.evolve(requests[poison], prompt=prompt)
    return tuple(requests)


def _resumable(seed: int, requests: tuple[Request, ...]) -> tuple[Request, ...]:
    """Let half of the clients come back when their entry dies; drawn apart."""
    rng = random_of(seed, "swarm returns")
    return tuple(attrs.evolve(request, resumable=rng.random() < 0.5) for request in requests)


def _edits(seed: int, end_s: float) -> tuple[Strike, ...]:
    """Clients that write records all the while, in half of all scenarios."""
    rng = random_of(seed, "swarm records")
    storm = RecordStorm(rng.randrange(2**32), rng.choice((0.5, 2.0)), end_s - BEGIN_S)
    return (Strike(BEGIN_S, storm),) if rng.random() < 0.5 else ()


def _strikes(rng: random.Random, scene: Scene, end_s: float, first: type[Fault]) -> tuple[Strike, ...]:
    """Draw strikes; the first is of a given kind, so that as many seeds in a row as there are kinds meet all."""
    kinds = rng.sample(FAULTS, rng.randint(1, KINDS_MAX))
    count = rng.randint(1, 10)
    times = sorted(round(rng.uniform(BEGIN_S, end_s), 3) for _ in range(count))
    drawn = [first, *(rng.choice(kinds) for _ in times[1:])]
    return tuple(Strike(at, kind.draw(rng, scene)) for at, kind in zip(times, drawn, strict=True))
