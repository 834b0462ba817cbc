"""Every kind of fault can be drawn, bites, and is undone."""

import random

import attrs
import pytest

from sim.fault import Fault, Scene, Strike, plan, recover
from sim.faults import (
    FAULTS,
    ClockSkew,
    Crash,
    CrashRestart,
    Delay,
    Duplicate,
    EngineCrash,
    EngineFreeze,
    Loss,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    SlowEngine,
    SlowNode,
)
from sim.world import World

NAMES = ("node-0", "node-1", "node-2")


def struck(fault: Fault, for_s: float = 0.0) -> World:
    """Return a formed mesh that a fault has just struck, `for_s` seconds later."""
    world = World(1)
    world.cluster(3)
    plan(world, (Strike(2.0, fault),))
    world.run_for(2.0 + for_s)
    assert world.struck == {type(fault).__name__: 1}
    return world


def there(world: World, source: str = "node-0", target: str = "node-1"):
    return world.network.path(source, target).condition


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_kind_is_drawn_the_same_from_the_same_numbers(kind: type[Fault]):
    scene = Scene(NAMES, spared=("node-0",))
    draws = [[kind.draw(random.Random(seed), scene) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 1


def test_the_spared_are_never_killed():
    scene = Scene(NAMES, spared=("node-0", "node-1"))
    killers = (Crash, CrashRestart, Restart)
    victims = [kind.draw(random.Random(seed), scene).host for kind in killers for seed in range(20)]
    assert victims == ["node-2"] * 60


def test_a_crash_ends_a_node_and_its_engines():
    world = struck(Crash("node-1"))
    assert world["node-1"].core is None
    assert world["node-1"].engines == {}
    assert world["node-1"].powered


def test_a_restart_is_the_next_life():
    world = struck(CrashRestart("node-1", 0.5, power=True), 0.6)
    assert world["node-1"].generation == 1
    assert world["node-1"].core is not None


def test_a_pause_stops_inputs_and_their_burst_comes_at_its_end():
    world = struck(Pause("node-1", 1.0), 0.9)
    before = world["node-1"].inputs
    assert world["node-1"].paused
    world.run_for(0.0999)
    assert world["node-1"].inputs == before
    world.run_for(0.0002)
    assert world["node-1"].inputs > before + 3


def test_a_slow_node_runs_late_and_recovers():
    world = struck(SlowNode("node-1", 0.05, 2.0), 2.0)
    assert world["node-1"].core.links.lag_s > 0.01
    world.run_for(5.0)
    assert world["node-1"].core.links.lag_s < 0.01


def test_a_clock_that_jumps_moves_the_wall_and_nothing_else():
    world = struck(ClockSkew("node-1", 3600.0))
    here, other = world["node-1"].now(), world["node-0"].now()
    assert here.wall - other.wall == pytest.approx(3600.0)


def test_an_engine_that_crashes_is_started_again():
    world = struck(EngineCrash("node-1"), 2.0)
    assert world["node-1"].engines["toy-0"].pid == 2


def test_a_frozen_engine_takes_no_step():
    world = struck(EngineFreeze("node-1"))
    assert world["node-1"].engines["toy-0"].frozen


def test_a_slow_engine_is_slow_for_a_while():
    world = struck(SlowEngine("node-1", 20.0, 1.0))
    assert world["node-1"].engines["toy-0"].slowness == 20.0
    world.run_for(1.0)
    assert world["node-1"].engines["toy-0"].slowness == 1.0


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        (Partition(("node-0",), 1.0), {"cut": True}),
        (OneWayCut("node-0", "node-1", 1.0), {"cut": True}),
        (Loss(0.3, 1.0), {"loss": pytest.approx(0.3)}),
        (Delay(0.1, 0.2, 1.0), {"delay_s": pytest.approx(0.1003), "jitter_s": pytest.approx(0.2004)}),
        (Duplicate(0.5, 1.0), {"duplicate": pytest.approx(0.5)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_network_changes_the_path_and_is_undone(fault: Fault, changes: dict):
    world = struck(fault)
    assert {name: getattr(there(world), name) for name in changes} == changes
    world.run_for(1.01)
    assert attrs.astuple(there(world)) == attrs.astuple(there(World(1)))


def test_a_one_way_cut_leaves_the_way_back():
    assert not there(struck(OneWayCut("node-0", "node-1", 1.0)), "node-1", "node-0").cut


def test_recovery_undoes_everything_in_the_core_and_leaves_the_rest_down():
    world = struck(Pause("node-0", 100.0))
    for name in ("node-1", "node-2"):
        world[name].crash()
    recover(world, ("node-0", "node-1"))
    assert [host.name for host in world.running] == ["node-0", "node-1"]
