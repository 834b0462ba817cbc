"""How soon an idle crash is noticed: `python -m tests.mesh.detection [NODES...]`, in virtual time."""

import random
import sys

import attrs

from mesh.facts import MemberChanged, Quarantined
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from tests.mesh.small_world import World

RUNS = {3: 300, 5: 400, 16: 160, 64: 60, 128: 30}
CRASHES_PER_WORLD = 6
"""In worlds of more than 16, which take long to form."""

LOCAL = SwimOptions.local()
PERIOD_S = LOCAL.probe_period_s
CASES = {
    "round robin": (False, 0.0),
    "shared": (True, 0.0),
    "shared, clocks ± T/2": (True, PERIOD_S / 2),
    "shared, clocks ± 1 h": (True, 3600.0),
}


def skewed_world(count, seed, options, skew_s):
    """A world in which each wall clock is off by up to `skew_s`."""
    rng = random.Random(f"skew {seed}")
    return World(count, seed=seed, options=options, skew_s=lambda _index: rng.uniform(-skew_s, skew_s))


def crash(world, rng, count):
    """Kill one at a random moment; return the seconds to the first quarantine and to death everywhere."""
    world.run(rng.uniform(7, 8) * PERIOD_S)
    alive = [index for index in range(1, count + 1) if world.is_up(index)]
    victim = rng.choice(alive)
    world.log.clear()
    world.crash(victim)
    began = world.now
    first_s = world.run(60 * PERIOD_S, until=lambda: world.facts(Quarantined))
    world.run(60 * PERIOD_S, until=lambda: len(_deaths(world)) >= len(alive) - 1)
    everywhere_s = world.now - began
    assert {fact.after.node for fact in _deaths(world)} == {f"{victim:016x}"}, "nobody else died"
    return first_s, everywhere_s


def _deaths(world):
    return [fact for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]


def measure(count, runs, options, skew_s):
    """Return the times of `runs` crashes."""
    per_world = 1 if count <= 16 else CRASHES_PER_WORLD
    times = []
    for seed in range(runs // per_world):
        world, rng = skewed_world(count, seed, options, skew_s), random.Random(f"crash {seed}")
        world.run(20, until=world.converged)
        times += [crash(world, rng, count) for _ in range(per_world)]
    return times


def quantiles(values):
    """p50 / p90 / p99 / max."""
    ordered = sorted(values)
    return " / ".join(
        f"{ordered[min(len(ordered) - 1, int(len(ordered) * p))]:.2f}" for p in (0.5, 0.9, 0.99, 1)
    )


def main():
    """Print the table of docs/explanation/membership.md."""
    for count in map(int, sys.argv[1:] or RUNS):
        for name, (shared, skew_s) in CASES.items():
            times = measure(count, RUNS[count], attrs.evolve(LOCAL, shared_probing=shared), skew_s)
            first, everywhere = map(quantiles, zip(*times, strict=True))
            print(f"| {count} | {name} | {first} | {everywhere} | {len(times)} |", flush=True)


if __name__ == "__main__":
    main()
