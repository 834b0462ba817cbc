"""A scenario: everything that decides a run, as one frozen value; and how it is run.

Two phases, as in TigerBeetle's VOPR: first faults, with the safety checks after
every input; then a core of hosts is healed, the rest stay broken, and within a
bound the mesh must be one, every request ended as it may, and nothing be held.
"""

import traceback
from collections.abc import Callable

import attrs

from sim.checks import safety
from sim.exam import examine
from sim.fault import Strike, excused, plan, recover
from sim.liveness import Bounds, judge, settle
from sim.workload import Request, begin
from sim.world import Violation, World, WorldOptions


@attrs.frozen
class Scenario:
    """One run, before it is run."""

    name: str
    seed: int
    nodes: int
    workers: int
    """How many of the nodes, the last ones, have an engine."""
    requests: tuple[Request, ...]
    strikes: tuple[Strike, ...]
    faults_end_s: float
    """When healing begins."""
    core: tuple[str, ...]
    """The hosts that are healed."""
    crashed: tuple[str, ...] = ()
    """Entries that may be lost with their clients."""
    may_fail: tuple[str, ...] = ()
    """Outcomes that are honest under these faults, beside those that a request asks for."""
    options: WorldOptions = WorldOptions()
    bounds: Bounds = Bounds()
    exam: bool = False
    """Whether the healed mesh must show what it can do (`sim.exam`)."""
    sealed: bool = False
    """Whether every datagram is sealed, and the ledger kept (`sim.sealed`)."""
    excused: tuple[str, ...] = ()
    """Checks that say nothing about this run, beside those that its faults break by their nature."""


@attrs.frozen
class Result:
    """One run, after it was run."""

    scenario: Scenario
    world: World
    violation: Violation | None
    settled_s: dict[str, float]
    """Seconds that each condition of liveness took."""

    @property
    def outcomes(self) -> dict[str, int]:
        """How many clients ended how."""
        counts: dict[str, int] = {}
        for client in self.world.clients:
            counts[client.outcome or "unserved"] = counts.get(client.outcome or "unserved", 0) + 1
        return counts


def nobody_watches(_time: float) -> None:
    """Show no progress."""


def nobody_listens(_world: World) -> None:
    """Leave a world as it is."""


def _world(scenario: Scenario) -> World:
    if not scenario.sealed:
        return World(scenario.seed, scenario.options, safety())
    from sim.sealed import world_of  # a compiled library, which only sealing needs

    return world_of(scenario.seed, scenario.options, safety())


def run(
    scenario: Scenario,
    watch: Callable[[float], None] = nobody_watches,
    listen: Callable[[World], None] = nobody_listens,
) -> Result:
    """Run a scenario to its end or its first failed check; what a core raises is one, called `exception`.

    `watch` is called with the virtual time now and then; `listen` with the world before it begins, to
    attach whoever observes it (`sim.journal`). Neither may change what happens.
    """
    world = _world(scenario)
    world.watch = watch
    world.excused = excused(scenario.strikes) | frozenset(scenario.excused)
    listen(world)
    world.cluster(scenario.nodes, scenario.workers)
    begin(world, list(scenario.requests))
    plan(world, scenario.strikes)
    try:
        return Result(scenario, world, None, _phases(scenario, world))
    except Violation as violation:
        return Result(scenario, world, violation, {})
    except StopRun:
        raise
    except Exception as error:  # noqa: BLE001 - no input may make a core raise, whatever it is
        return Result(scenario, world, _raised(error), {})


class StopRun(Exception):
    """Raised by `watch` to give a run up."""


def _raised(error: Exception) -> Violation:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Violation("exception", f"{type(error).__name__} at {where.name}:{where.lineno}: {error}")


def _phases(scenario: Scenario, world: World) -> dict[str, float]:
    world.run_for(scenario.faults_end_s)
    recover(world, scenario.core)
    settled_s = settle(world, scenario.bounds)
    judge(world, scenario.crashed, scenario.may_fail)
    if scenario.exam:
        settled_s |= examine(world)
    return settled_s
