"""A short run under faults, in which a planted bug is to be caught."""

from collections.abc import Callable

import attrs

from node.core import NodeCore
from sim.fault import Fault, Strike
from sim.faults import Crash, CrashRestart, Pause
from sim.liveness import Bounds
from sim.scenario import Result, Scenario, run
from sim.workload import Request
from sim.world import WorldOptions

NAMES = tuple(f"node-{index}" for index in range(5))
STREAMS = tuple(
    Request(NAMES[index % 2], 2.0 + 0.05 * index, f"story {index}", 1000 + index, 300) for index in range(8)
)
SHORT = Bounds(8.0, 8.0, 8.0, 8.0, trust_s=45.0, queues_s=5.0, health_s=30.0, loads_s=10.0)
DEFAULTS = WorldOptions()


def caught(*faults: tuple[float, Fault], options: WorldOptions = DEFAULTS, **more: object) -> str:
    """Run streams under faults; return the name of the check that failed, or nothing."""
    strikes = tuple(Strike(at, fault) for at, fault in faults)
    requests, end_s = more.pop("requests", STREAMS), more.pop("end_s", 7.0)
    scenario = Scenario(
        "test", 3, 5, 3, requests, strikes, end_s, NAMES, options=options, bounds=SHORT, exam=True, **more
    )
    result: Result = run(scenario)
    return result.violation.check if result.violation else ""


def core(make: Callable[..., NodeCore]) -> WorldOptions:
    return attrs.evolve(DEFAULTS, core=make)


KILL = (3.0, Crash("node-3"))
CYCLE = (3.0, CrashRestart("node-3", 1.0))
PAUSE = (3.0, Pause("node-3", 2.0))
