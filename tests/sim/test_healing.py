"""Once the mesh is healed no fault does anything more, nor undoes what it did: healing has undone it all."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.fault import Fault, Scene, Strike, later, plan, recover
from sim.faults import FAULTS, Clone, Crash, Pause, SlowNode
from sim.host import Host
from sim.world import World

NAMES = ("node-0", "node-1", "node-2", "node-3")
STRUCK_S = 2.0
AFTER_S = 10.0
"""Longer than any drawn fault lasts."""


def in_force(host: Host) -> tuple[object, ...]:
    """What faults may have done to a machine that goes on."""
    slow = [engine.slowness for engine in host.engines.values() if engine.slowness != 1.0]
    kernel = (host.sends_per_s, host.socket_bytes, host.disk_full, host.seen_as, host.powered)
    return (host.cost_s, host.clock.rate, host.paused, slow, *kernel)


def healed(faults: list[Fault], after_s: float, core: tuple[str, ...] = NAMES, seed: int = 1) -> World:
    world = World(seed)
    world.cluster(len(NAMES))
    plan(world, tuple(Strike(STRUCK_S, fault) for fault in faults))
    world.run_for(STRUCK_S + after_s)
    recover(world, core)
    return world


def lives(world: World) -> dict[str, tuple[int, bool]]:
    return {host.name: (host.generation, host.core is not None) for host in world.hosts.values()}


kinds = st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3)


@settings(max_examples=20)
@given(kinds, st.integers(0, 2**16), st.floats(0.0, 3.0))
def test_nothing_is_in_force_after_the_healing_and_nothing_happens(kinds, seed: int, after_s: float):
    rng = random.Random(seed)
    at_peace(healed([kind.draw(rng, Scene(NAMES)) for kind in kinds], after_s, seed=seed))


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_each_kind_of_fault_ends_with_the_healing(kind: type[Fault]):
    at_peace(healed([kind.draw(random.Random(2), Scene(NAMES))], 0.05))


def at_peace(world: World) -> None:
    untouched = in_force(World().add("another"))
    for moment_s in (0.0, AFTER_S):
        before, bitten = lives(world), dict(world.bitten)
        world.run_for(moment_s)
        assert (world.network.hidden, world.network.laid) == ({}, ())
        assert [host.name for host in world.well if in_force(host) != untouched] == []
        assert set(NAMES) <= {host.name for host in world.well}
        assert lives(world) == before, "no fault ends or begins a life"
        assert world.bitten == bitten, "no fault has an effect"


def test_those_who_are_not_healed_stay_as_they_are_for_ever():
    world = healed([SlowNode("node-3", 0.002, 1.0), Pause("node-2", 1.0)], 0.5, core=NAMES[:2])
    world.run_for(AFTER_S)
    assert (world["node-3"].cost_s, world["node-2"].paused) == (0.002, True)
    assert world.network.laid == ("beyond",)


def test_a_strike_that_comes_after_the_healing_is_none():
    world = World(1)
    world.cluster(2)
    plan(world, (Strike(3.0, Crash("node-1")),))
    world.run_for(2.0)
    recover(world, NAMES[:2])
    world.run_for(2.0)
    assert world["node-1"].core is not None
    assert world.struck == {}


@pytest.mark.parametrize("after_s", [0.0005, 1.0])
@pytest.mark.parametrize("core", [NAMES, ("node-0", "node-2", "node-3")])
def test_the_copy_of_a_machine_is_gone_when_the_mesh_is_healed_and_does_not_return(core, after_s: float):
    """Whether it had ended by itself, since another has its id, and whether that other is healed or not."""
    world = healed([Clone("node-1", 60.0)], after_s, core)
    assert world["copy-4"].core is None
    world.run_for(AFTER_S)
    assert world["copy-4"].core is None


@pytest.mark.parametrize(("heal_at_s", "acts"), [(None, True), (0.9, False), (1.1, True)])
def test_what_is_left_for_later_happens_unless_the_mesh_is_healed_by_then(
    heal_at_s: float | None, acts: bool
):
    world, done = World(1), []
    later(world, 1.0, lambda: done.append(world.time))
    if heal_at_s is not None:
        world.at(heal_at_s, lambda: setattr(world, "healed_at", heal_at_s))
    world.run_for(2.0)
    assert done == ([1.0] if acts else [])
