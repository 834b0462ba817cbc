"""Membership under trouble: the real cores, in virtual time."""

import pytest

from mesh.member import Liveness
from sim.checks import safety
from sim.liveness import disagreement
from sim.rule import Rule
from sim.world import World, WorldOptions

ROUGH = Rule(delay_s=0.0005, jitter_s=0.02, loss=0.07)


def agree(world: World, within_s: float) -> float:
    return world.await_none("views_agree", lambda: disagreement(world), within_s)


def formed(count: int, seed: int = 1, network: Rule | None = None, excused: tuple[str, ...] = ()) -> World:
    options = WorldOptions(network=network) if network else WorldOptions()
    world = World(seed, options, safety())
    world.excused = frozenset(excused)
    world.cluster(count, workers=1)
    world.run_for(count * 0.05)
    agree(world, 5.0)
    return world


def liveness(world: World, observer: str, subject: str) -> Liveness:
    return world[observer].core.swim.member(world[subject].id).liveness


def test_three_nodes_see_each_other_within_half_a_second_of_the_last_start():
    world = World(1, checks=safety())
    world.cluster(3)
    world.run_for(0.1)
    assert agree(world, 0.5) > 0.0
    assert all(len(host.core.swim.members()) == 3 for host in world.running)


def test_a_killed_node_is_dead_everywhere_and_its_next_life_is_welcome():
    world = formed(5)
    world["node-3"].crash()
    assert agree(world, 4.0) > 0.0
    assert liveness(world, "node-1", "node-3") is Liveness.DEAD
    world["node-3"].start()
    agree(world, 3.0)
    assert world["node-1"].core.swim.member(world["node-3"].id).identity.generation == 1


def test_a_node_that_restarts_at_once_is_its_new_self_everywhere():
    world = formed(5)
    world["node-3"].crash()
    world["node-3"].start()
    agree(world, 3.0)
    assert world["node-4"].core.swim.member(world["node-3"].id).identity.generation == 1


@pytest.mark.parametrize("minority", [1, 2])
def test_a_partition_heals_without_help(minority: int):
    world = formed(5, excused=("false_death",))
    names = tuple(world.hosts)
    with world.partition(names[:minority], names[minority:]):
        world.run_for(6.0)
        assert liveness(world, "node-4", "node-0") is Liveness.DEAD
    assert agree(world, 5.0) > 0.0


def test_a_node_that_is_cut_off_alone_buries_nobody_after_its_silence():
    world = formed(5, excused=("false_death",))
    with world.partition(("node-4",), ("node-0", "node-1", "node-2", "node-3")):
        world.run_for(30.0)
        dead = [m for m in world["node-4"].core.swim.members() if m.liveness is Liveness.DEAD]
        assert len(dead) < 4


def test_a_one_way_cut_kills_nobody_who_can_be_reached_through_others():
    world = formed(6)
    world.network.lay("one way", Rule(frozenset(("node-2",)), frozenset(("node-3",)), cut=True))
    world.run_for(20.0)
    assert disagreement(world) == ""


def test_a_pause_costs_the_paused_its_good_name_and_nobody_else():
    world = formed(6)
    world["node-2"].pause()
    world.run_for(5.0)
    assert liveness(world, "node-0", "node-2") is Liveness.DEAD
    world["node-2"].resume()
    assert agree(world, 4.0) > 0.0
    others = [host for host in world.running if host.name != "node-2"]
    assert all(host.core.swim.statistics().refutations == 0 for host in others)


@pytest.mark.slow
def test_a_hundred_nodes_under_loss_and_jitter_bury_the_five_that_died_and_nobody_else():
    world = World(7, WorldOptions(network=ROUGH), safety())
    names = world.cluster(100, workers=3, apart_s=0.01)
    world.run_for(1.0)
    assert agree(world, 5.0) > 0.0
    for name in names[10:60:10]:
        world[name].crash(power=True)
    assert agree(world, 6.0) > 0.5


def test_who_knows_only_lives_that_are_gone_asks_its_seeds_again():
    """All others have lost their directories: other ids are at their addresses now, and know nothing of it."""
    world = World(3, checks=safety())
    names = world.cluster(3)
    world.run_for(3.0)
    for name in names[:2]:
        world[name].crash()
        world[name].forget()
        world[name].start()
    world.run_until(lambda: not disagreement(world), within_s=10.0)
    assert world["node-2"].core.swim.options.alone_s > 10.0, "nor had it given up the others for dead"
