"""Every kind of fault can be drawn, bites, and is undone."""

import ast
import random

import pytest

from mesh.effects import SendDatagram
from mesh.member import Liveness
from sim.fault import Fault, Scene, Strike, plan, recover
from sim.faults import (
    FAULTS,
    Amnesia,
    ClockBack,
    ClockDrift,
    ClockSkew,
    Clone,
    Crash,
    CrashRestart,
    Delay,
    Duplicate,
    EngineCrash,
    EngineFreeze,
    FullDisk,
    Jitter,
    JoinStorm,
    LeaveStorm,
    Loss,
    MassRestart,
    Move,
    NatRebind,
    OneWayCut,
    Partition,
    Pause,
    Restart,
    SendDenied,
    SlowEngine,
    SlowNode,
    StaleSeeds,
    TcpCut,
    UdpCut,
)
from sim.stream import seed_of
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


def condition(world: World, source: str = "node-0", target: str = "node-1"):
    return world.network.path(source, target).condition


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_kind_is_drawn_the_same_from_the_same_numbers(kind: type[Fault]):
    scene = Scene(NAMES, spared=("node-0",))
    draws = [[kind.draw(random.Random(seed), scene) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 1


DEADLY = (
    Amnesia,
    Clone,
    Crash,
    CrashRestart,
    FullDisk,
    LeaveStorm,
    MassRestart,
    Move,
    Restart,
    StaleSeeds,
)


@pytest.mark.parametrize("kind", DEADLY, ids=lambda kind: kind.__name__)
def test_the_spared_are_never_killed(kind: type[Fault]):
    scene = Scene(NAMES, spared=("node-0", "node-1"))
    faults = [kind.draw(random.Random(seed), scene) for seed in range(20)]
    assert {getattr(fault, "hosts", None) or (fault.host,) for fault in faults} == {("node-2",)}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_kind_has_an_effect_that_is_counted(kind: type[Fault]):
    for seed in range(10):
        world = World(seed)
        names = tuple(world.cluster(4))
        plan(
            world, (Strike(2.0, kind.draw(random.Random(seed), Scene(names))), Strike(2.2, Restart("node-3")))
        )
        world.run_for(6.0)
        if world.bitten.get(kind.__name__):
            return
    raise AssertionError(f"{kind.__name__} never had an effect")


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_what_a_drawn_fault_prints_can_be_pasted(kind: type[Fault]):
    for seed in range(10):
        fault = kind.draw(random.Random(seed), Scene(NAMES))
        assert pasted(repr(fault)) == fault


def pasted(text: str) -> Fault:
    """Build a fault from its printed form: a call with keywords of plain values."""
    call = ast.parse(text, mode="eval").body
    kinds = {kind.__name__: kind for kind in FAULTS}
    return kinds[call.func.id](**{word.arg: ast.literal_eval(word.value) for word in call.keywords})


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
        (UdpCut("node-1", 1.0), {"udp_cut": True, "tcp_cut": False}),
        (TcpCut("node-1", 1.0), {"udp_cut": False, "tcp_cut": True}),
        (Loss(0.3, 1.0), {"loss": pytest.approx(0.3)}),
        (Delay(0.1, 1.0), {"delay_s": pytest.approx(0.1003)}),
        (Jitter(0.2, 1.0), {"jitter_s": pytest.approx(0.2004)}),
        (Duplicate(0.5, 1.0), {"duplicate": pytest.approx(0.5)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_network_changes_the_path_and_is_undone(fault: Fault, changes: dict):
    world = struck(fault)
    assert {name: getattr(condition(world), name) for name in changes} == changes
    world.run_for(1.01)
    assert condition(world) == condition(World(1))


def test_a_one_way_cut_leaves_the_way_back():
    assert not condition(struck(OneWayCut("node-0", "node-1", 1.0)), "node-1", "node-0").cut


def test_a_node_that_lost_its_directory_is_a_new_node_at_the_old_address():
    world = struck(Amnesia("node-1", 0.5), 1.0)
    first, second = (host.core for host in (World(1).add("node-1"), world["node-1"]))
    assert first is None
    assert second.me.node != f"{seed_of(1, 'id', 'node-1'):016x}"
    assert (second.me.name, second.me.identity.generation) == ("node-1", 0)


def test_a_node_that_moves_keeps_its_id_and_raises_its_generation():
    world = struck(Move("node-1", 0.5), 1.0)
    me = world["node-1"].core.me
    assert (me.node, me.identity.generation) == (f"{seed_of(1, 'id', 'node-1'):016x}", 1)
    assert me.address == world["node-1"].address != ("10.0.0.2", 7946)


def test_a_full_disk_keeps_a_node_from_starting_until_there_is_room():
    world = struck(FullDisk("node-1", 1.0), 0.9)
    assert world["node-1"].core is None
    world.run_for(0.2)
    assert world["node-1"].generation == 1


def test_a_storm_of_joins_brings_new_nodes_and_one_of_leaves_says_goodbye():
    joined = struck(JoinStorm("node-0", 3), 2.0)
    assert [len(host.core.swim.members()) for host in joined.running] == [6] * 6
    left = struck(LeaveStorm(("node-1",), 60.0), 2.0)
    seen = [row.liveness for row in left["node-0"].core.swim.members() if row.name == "node-1"]
    assert (seen, left["node-1"].core) == ([Liveness.LEFT], None)


def test_a_copy_speaks_with_the_id_of_its_original_until_one_of_them_gives_way():
    world = struck(Clone("node-1", 60.0), 0.0005)
    copy, original = world.hosts["copy-3"], world["node-1"]
    assert copy.core.me.node == original.core.me.node
    world.run_for(2.0)
    assert (copy.core is None) != (original.core is None)


def test_a_clock_that_is_set_back_moves_the_wall_and_one_that_drifts_moves_both():
    world = struck(ClockBack("node-1", 5.0))
    assert world["node-1"].now().wall - world["node-0"].now().wall == pytest.approx(-5.0)
    world = struck(ClockDrift("node-1", 1.1, 60.0))
    before = world["node-1"].now()
    world.run_for(10.0)
    after = world["node-1"].now()
    assert (after.mono - before.mono, after.wall - before.wall) == pytest.approx((11.0, 11.0))


def test_a_kernel_that_refuses_sends_stops_datagrams_and_no_streams():
    world = struck(SendDenied("node-1", 1.0))
    heard = [host.core.swim.statistics().packets_received for host in world.running]
    sent = world.network.statistics.sent
    world["node-1"]._carry_out(SendDatagram(world["node-0"].address, b"x"))
    assert world.network.statistics.sent == sent
    assert len(heard) == 3
    assert world.bitten["SendDenied"] >= 1


def test_a_gateway_that_rebinds_shows_another_source_and_carries_the_answers():
    world = struck(NatRebind("node-1", True, 1.0), 0.5)
    host = world["node-1"]
    assert host.seen_as != host.address
    assert world.network.hosts[host.seen_as] is host
    assert host.address in world.network.hidden
    world.run_for(1.0)
    assert (host.seen_as, world.network.hidden) == (None, {})


def test_recovery_undoes_everything_in_the_core_and_leaves_the_rest_down():
    world = struck(Pause("node-0", 100.0))
    for name in ("node-1", "node-2"):
        world[name].crash()
    recover(world, ("node-0", "node-1"))
    assert [host.name for host in world.running] == ["node-0", "node-1"]
