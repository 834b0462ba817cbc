"""Metadata in whole nodes: pulled over the links that carry flights, through troubles."""

import random

import pytest

from mesh.codec import METADATA_BYTES_MAX
from sim.checks import safety
from sim.world import World

SIZES = (10, 900, 901, 30_000, METADATA_BYTES_MAX)


def published(world: World) -> dict[str, bytes]:
    """Let each node publish something of another size; return it by node id."""
    values = {}
    for host, size in zip(world.hosts.values(), SIZES, strict=True):
        value = values[host.id] = random.Random(size).randbytes(size)
        host.give(lambda core, now, value=value: core.publish_metadata(now, value))
    return values


def all_hold(world: World, values: dict[str, bytes]) -> bool:
    """Whether each node that is well holds what each published."""
    return all(
        host.core.swim.metadata.get(node) == value for host in world.well for node, value in values.items()
    )


@pytest.mark.parametrize("seed", range(3))
def test_all_hold_all_although_one_was_stopped_and_two_were_cut_off_meanwhile(seed: int):
    world = World(seed, checks=safety())
    world.excused = frozenset(("false_death",))
    world.cluster(5)
    world.run_for(5.0)
    values = published(world)
    world.hosts["node-1"].pause()
    with world.partition(("node-3", "node-4"), ("node-0", "node-1", "node-2")):
        world.run_for(4.0)
    world.hosts["node-1"].resume()
    world.run_until(lambda: len(world.well) == 5 and all_hold(world, values), 40.0)


def test_who_restarts_without_its_value_holds_those_of_the_others_and_they_none_of_its_own():
    world = World(7, checks=safety())
    world.cluster(5)
    world.run_for(5.0)
    values = published(world)
    world.run_until(lambda: all_hold(world, values), 20.0)
    host = world.hosts["node-2"]
    host.crash()
    world.run_for(1.0)
    host.start()
    values[host.id] = b""
    world.run_until(lambda: len(world.well) == 5 and all_hold(world, values), 20.0)
