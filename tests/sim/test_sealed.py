"""Meshes of sealing nodes in virtual time: the production seal under restarts, rotation and recordings."""

import attrs
import pytest

from mesh.envelope import Kind, word
from mesh.member import Liveness
from mesh.replay import ReplayWindow
from mesh.seal import Seal, SealOptions
from sim.network import Network
from sim.rule import Rule
from sim.sealed import Ledger, keyring_of, sealed
from sim.world import Violation, World, WorldOptions


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


def test_sealing_costs_thirty_bytes_a_packet_and_no_packets_when_idle():
    cost = {}
    for name, options in (("clear", WorldOptions()), ("sealed", None)):
        world = world_of() if options is None else World(1, options)
        if options is not None:
            world.cluster(6, workers=0)
        world.run_for(15)
        before = attrs.evolve(world.network.statistics)
        world.run_for(20)
        sent = world.network.statistics
        cost[name] = (sent.sent - before.sent, sent.bytes_sent - before.bytes_sent)
    assert cost["sealed"][0] == pytest.approx(cost["clear"][0], rel=0.03)
    assert cost["sealed"][1] - cost["clear"][1] == pytest.approx(30 * cost["clear"][0], rel=0.1)


def is_dead(host, other):
    return host.core.swim.member(other.id).liveness is Liveness.DEAD


def test_a_sealed_mesh_notices_a_crash_and_takes_the_restarted_back():
    world = world_of()
    world.run_for(5)
    world["node-3"].crash()
    world.run_until(lambda: all(is_dead(host, world["node-3"]) for host in world.running), 6)
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
        assert [after[name] for name in ("deaths", "suspicions")] == [
            before[host.name][name] for name in ("deaths", "suspicions")
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


# -- the ledger: S9 to S11 as a check, and that it bites --------------------------------------------


def ledger_world(seed: int) -> World:
    """A lossy, duplicating, reordering network under a sealed mesh, with every datagram in the ledger."""
    ledger = Ledger()
    options = WorldOptions(
        network=Rule(delay_s=0.001, jitter_s=0.05, loss=0.05, duplicate=0.3),
        core=sealed(SealOptions(keyring_of(seed, 1)), ledger),
    )
    world = World(seed, options, (ledger,))
    world.cluster(5, workers=0)
    return world


def trouble(world: World) -> None:
    world.run_for(3)
    world["node-1"].crash()
    world.run_for(1)
    world["node-1"].start()
    for host in world.running:
        host.give(lambda core, now: core.rekey(now, keyring_of(world.seed, 2, 1)))
    world.run_for(4)


@pytest.mark.parametrize("seed", range(4))
def test_in_any_trouble_each_datagram_is_opened_once_and_only_if_a_member_made_it(seed):
    world = ledger_world(seed)
    trouble(world)
    assert len(world.checks[0].opened) > 300
    assert rejected(world)["replayed"] > 30, "duplicates did arrive"


def test_the_ledger_sees_a_window_that_forgets(monkeypatch):
    monkeypatch.setattr(ReplayWindow, "is_fresh", lambda window, counter: True)
    with pytest.raises(Violation, match="ledger: a datagram was opened twice"):
        trouble(ledger_world(1))


def test_the_ledger_sees_a_counter_that_is_used_twice(monkeypatch):
    plain = Seal._header

    def stuck(seal, kind):
        seal._counter = seal._counter // 2 * 2
        return plain(seal, kind)

    monkeypatch.setattr(Seal, "_header", stuck)
    with pytest.raises(Violation, match="a nonce was used twice"):
        trouble(ledger_world(1))


def test_the_ledger_sees_a_seal_that_opens_anything(monkeypatch):
    world = ledger_world(1)
    world.run_for(3)
    monkeypatch.setattr(Seal, "_unseal", lambda seal, now, aead, data, body_at: b"anything")
    target, peer = world["node-0"], next(iter(world["node-0"].core.seal._sessions.peers.values()))
    forged = bytes((1, 1)) + peer.session + word(Kind.DATA, 2**30) + bytes(40)
    target.core.seal.receive(target.now(), forged, ("10.9.9.9", 1))
    with pytest.raises(Violation, match="no holder of the key has made"):
        world.run_for(1)
