"""Meshes of sealing nodes in virtual time: the production seal under restarts, rotation and recordings."""

import attrs
import pytest

from mesh.member import Liveness
from mesh.seal import SealOptions
from sim.network import Network
from sim.sealed import keyring_of, sealed
from sim.world import World, WorldOptions


def world_of(seed: int = 1, nodes: int = 6, ids: tuple[int, ...] = (1,)) -> World:
    world = World(seed, WorldOptions(core=sealed(SealOptions(keyring_of(seed, *ids)))))
    world.cluster(nodes, workers=0)
    return world


def complete(world: World) -> bool:
    live = len(world.running)
    return all(host.core.statistics()["swim"]["members"]["alive"] == live for host in world.running)


def rejected(world: World) -> dict[str, int]:
    total: dict[str, int] = {}
    for host in world.running:
        for reason, count in host.core.statistics()["seal"]["rejected"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def test_a_sealed_mesh_forms_and_every_datagram_is_sealed(monkeypatch):
    seen = []
    plain = Network.send
    monkeypatch.setattr(Network, "send", lambda net, *rest: (seen.append(rest[2]), plain(net, *rest))[1])
    world = world_of()
    world.run_until(lambda: len(world.running) == 6 and complete(world), 5)
    world.run_for(5)
    assert len(seen) > 100 and {data[1] for data in seen} == {1}
    assert max(map(len, seen)) <= 1400
    assert rejected(world).keys() <= {"stranger"}


def test_a_sealed_mesh_notices_a_crash_and_takes_the_restarted_back():
    world = world_of()
    world.run_for(5)
    world["node-3"].crash()
    dead = lambda: all(  # noqa: E731
        host.core.swim.member(world["node-3"].id).liveness is Liveness.DEAD for host in world.running
    )
    world.run_until(dead, 6)
    world["node-3"].start()
    world.run_until(lambda: complete(world), 6)


def test_keys_are_rotated_under_way_and_nobody_is_suspected():
    world = world_of(ids=(1,))
    world.run_for(5)
    before = {host.name: host.core.statistics()["swim"] for host in world.running}
    for ids in ((1, 2), (2, 1), (2,)):
        for host in world.running:
            host.give(lambda core, now, ids=ids: core.rekey(now, keyring_of(1, *ids)))
            world.run_for(0.3)
        world.run_for(3)
    assert complete(world)
    for host in world.running:
        after = host.core.statistics()["swim"]
        assert [after[name] for name in ("deaths", "suspicions", "quarantines")] == [
            before[host.name][name] for name in ("deaths", "suspicions", "quarantines")
        ]
    lost = rejected(world)
    assert set(lost) <= {"stranger", "replayed"} and lost.get("replayed", 0) <= 3, "overtaken by a renewal"


def test_a_node_with_another_key_hears_and_tells_nothing():
    world = world_of()
    world.run_for(3)
    builder = sealed(SealOptions(keyring_of(99, 1)))
    stranger = world.add("stranger", (), ("node-0",))
    world.options = attrs.evolve(world.options, core=builder)
    stranger.start()
    known = stranger.core.seal.send(stranger.now(), world["node-0"].address, b"\1\0let me in")
    for effect in known:
        world.network.send(stranger, effect.address, effect.data)
    world.run_for(1)
    assert world["node-0"].core.statistics()["seal"]["rejected"]["wrong_key"] >= 1
    assert stranger.core.seal.statistics.opened == 0


@pytest.mark.parametrize("again", [1, 7])
def test_everything_replayed_everywhere_is_opened_nowhere(monkeypatch, again):
    world = world_of(seed=again)
    taped = []
    plain = Network.send
    monkeypatch.setattr(Network, "send", lambda net, *rest: (taped.append(rest), plain(net, *rest))[1])
    world.run_for(4)
    monkeypatch.setattr(Network, "send", plain)
    world.run_for(1)
    opened = {host.name: host.core.seal.statistics.opened for host in world.running}
    held = {host.name: len(host.core.seal) for host in world.running}
    for host in world.running:
        for source, _, data in taped:
            packet, _, _ = host.core.seal.receive(host.now(), data, source.address)
            assert packet is None
    assert {host.name: host.core.seal.statistics.opened for host in world.running} == opened
    assert {host.name: len(host.core.seal) for host in world.running} == held


def test_one_seed_is_one_history_sealed_too():
    digests = set()
    for _ in range(2):
        world = world_of(seed=5)
        world.run_for(3)
        digests.add(world.trace.digest())
    assert len(digests) == 1
