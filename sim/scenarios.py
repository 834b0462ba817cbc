"""Named scenarios: one trouble each, so that its effect can be seen apart from others.

Each is a function of (seed, nodes, seconds under faults). Clients enter through the
first two nodes, which have no engine and are spared; the others work.
"""

import random
from collections.abc import Callable

import attrs

from sim.engine import POISON_ID
from sim.fault import Fault, Strike
from sim.faults import CrashRestart, EngineCrash, EngineFreeze, Partition, Pause
from sim.scenario import Scenario
from sim.stream import random_of
from sim.swarm import BEGIN_S
from sim.swarm import draw as swarm
from sim.workload import Workload

ENTRIES = 2
NODES = 5
SECONDS = 12.0
EVERY_S = 6.0
"""Time between two strikes: the mesh has mended itself by then."""

Draw = Callable[[random.Random, tuple[str, ...]], Fault]


def _scenario(name: str, seed: int, nodes: int, seconds: float, draw: Draw | None) -> Scenario:
    rng = random_of(seed, name)
    names = tuple(f"node-{index}" for index in range(nodes))
    end_s = BEGIN_S + seconds
    times = [BEGIN_S + 1.0 + EVERY_S * index for index in range(max(1, int(seconds / EVERY_S)))]
    strikes = tuple(Strike(at + rng.random(), draw(rng, names[ENTRIES:])) for at in times) if draw else ()
    return Scenario(
        name=name,
        seed=seed,
        nodes=nodes,
        workers=nodes - ENTRIES,
        requests=tuple(Workload(names[:ENTRIES], 3.0, BEGIN_S, end_s).requests(rng)),
        strikes=strikes,
        faults_end_s=end_s,
        core=names,
    )


def calm(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """Nothing goes wrong: what a trouble is compared with."""
    return _scenario("calm", seed, nodes, seconds, None)


def kill(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """A worker is killed every few seconds, and comes back."""
    return _scenario(
        "kill",
        seed,
        nodes,
        seconds,
        lambda rng, workers: CrashRestart(rng.choice(workers), rng.uniform(0.2, 4.0), rng.random() < 0.5),
    )


def pause(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """A worker's process is stopped past the silence limit; its late tokens come after the move."""
    return _scenario(
        "pause", seed, nodes, seconds, lambda rng, workers: Pause(rng.choice(workers), rng.uniform(0.5, 5.0))
    )


def partition(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """Workers are cut off together, and come back."""
    return _scenario(
        "partition",
        seed,
        nodes,
        seconds,
        lambda rng, workers: Partition(
            tuple(rng.sample(workers, max(1, len(workers) // 2))), rng.uniform(0.5, 5.0)
        ),
    )


def engine(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """Engines are killed and frozen under their nodes."""
    scenario = _scenario(
        "engine",
        seed,
        nodes,
        seconds,
        lambda rng, workers: rng.choice((EngineCrash, EngineFreeze))(rng.choice(workers)),
    )
    return attrs.evolve(scenario, may_fail=("failed:engine_crash",))


def poison(seed: int, nodes: int = NODES, seconds: float = SECONDS) -> Scenario:
    """One request among many kills every engine that computes it."""
    scenario = _scenario("poison", seed, nodes, seconds, None)
    first, *rest = scenario.requests
    poisonous = attrs.evolve(
        first, prompt=first.prompt + chr(POISON_ID), timeout_s=None, cancel_after_s=None, at=BEGIN_S + 1.0
    )
    return attrs.evolve(scenario, requests=(poisonous, *rest))


SCENARIOS: dict[str, Callable[[int, int, float], Scenario]] = {
    "calm": calm,
    "kill": kill,
    "pause": pause,
    "partition": partition,
    "engine": engine,
    "poison": poison,
    "swarm": swarm,
}
