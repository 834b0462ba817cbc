"""How small planted bugs are shrunk, and how fast: `python -m tests.bench.shrink [BUDGET_S]`.

Each bug is looked for in seeds of the swarm, which draw meshes of up to eight nodes, ten faults and some
tens of clients; the first seed that fails the bug's own check is shrunk within the budget.
"""

import statistics
import sys
import time

from sim.shrink import Failure, Shrinker
from tests.sim.plants import PLANTS, Plant, first_failure

BUDGET_S = 60.0
ROW = "  {:36} {:18} {:>6} {:>14} {:>14} {:>6} {:>8}"


def shrunk(plant: Plant, budget_s: float) -> tuple[Failure, Failure, int, float] | None:
    """Return the failure, the smallest that was found, runs and seconds."""
    with plant.planted():
        failure = first_failure(plant.check)
        if failure is None:
            return None
        began = time.monotonic()
        shrinker = Shrinker(failure, lambda: began + budget_s - time.monotonic())
        return failure, shrinker.shrink(), shrinker.runs, time.monotonic() - began


def size(failure: Failure) -> str:
    return f"{failure.scenario.nodes} / {failure.events}"


def run(budget_s: float = BUDGET_S) -> None:
    """Print a row for each bug, and the medians."""
    print(ROW.format("planted bug", "check", "seed", "nodes / events", "shrunk to", "runs", "s"))
    taken, small = [], 0
    for plant in PLANTS:
        found = shrunk(plant, budget_s)
        if found is None:
            print(ROW.format(plant.name, plant.check, "-", "-", "-", "-", "-"))
            continue
        before, after, runs, seconds = found
        taken.append(seconds)
        small += after.scenario.nodes <= 6 and after.events <= 8
        cells = before.scenario.seed, size(before), size(after), runs, f"{seconds:.1f}"
        print(ROW.format(plant.name, plant.check, *cells), flush=True)
    print(
        f"  median {statistics.median(taken):.1f} s, longest {max(taken):.1f} s;"
        f" {small} of {len(taken)} to six nodes and eight events or fewer"
    )


if __name__ == "__main__":
    run(*map(float, sys.argv[1:]))
