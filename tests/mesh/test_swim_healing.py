"""Pauses, partitions, doubts and garbage: how a mesh gets back to the truth."""

import random

import attrs
import pytest

from mesh import codec
from mesh.facts import MemberChanged, Quarantined
from mesh.load import LoadRecord, ModelLoad
from mesh.member import Liveness
from mesh.messages import Ack, Gossip, Ping, Update
from mesh.now import Now
from mesh.swim import Swim
from tests.mesh.small_world import LOCAL, World, account, doubt, is_doubted, settled


@pytest.mark.parametrize("pause_s", [1.0, 5.0, 60.0])
def test_a_paused_node_blames_itself(pause_s):
    world = settled(5)
    world.pause(2)
    world.run(pause_s)
    world.resume(2)
    world.run(5)
    assert world.converged()
    assert len(world.reports("paused")) == 1
    own = [
        fact.after for _, who, fact in world.facts(MemberChanged) if who == "n2" and fact.after.name != "n2"
    ]
    assert not own, "the sleeper doubted nobody"
    assert not [1 for _, who, _ in world.facts(Quarantined) if who == "n2"]


def test_a_node_that_is_always_late_tells_the_mesh_seldom():
    swim = Swim(LOCAL, account(1), random.Random(1))
    swim.tick(Now(0.0, 0.0))
    now_s = 0.0
    while now_s < 60.0:
        now_s = max(now_s, swim.next_deadline() or 0.0) + 1.0
        swim.tick(Now(now_s, now_s))
    assert swim.statistics().pauses > 20
    assert 1 <= swim.me.identity.incarnation <= 7


def test_a_suspicion_that_ran_out_during_a_pause_kills_nobody():
    world = settled(5)
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.pause(1)
    world.run(10)
    world.resume(1)
    world.run(5)
    dead = [(who, fact.after.name) for _, who, fact in world.facts(MemberChanged) if fact.after.liveness > 1]
    assert {name for _, name in dead} <= {"n1"}
    assert world.converged()


@pytest.mark.parametrize("seed", range(4))
def test_two_halves_of_a_partition_heal_without_seeds(seed):
    world = World(0, seed=seed)
    world.start(1)
    for index in range(2, 7):
        world.start(index, seeds=[1])
    world.run(5)
    for index in range(1, 7):
        world.call(index, "join", [])
    left, right = [1, 2, 3], [4, 5, 6]
    world.sever(left, right)
    world.run(30)
    assert {world.sees(a, b) for a in left for b in right} == {Liveness.DEAD}
    assert {world.sees(a, b) for a in left for b in left if a != b} == {Liveness.ALIVE}
    world.heal()
    world.log.clear()
    assert world.run(30, until=world.converged) < 5.0
    world.run(10)
    assert world.converged()
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]
    assert len({core.statistics().digest for core in world.running()}) == 1


def test_tables_that_differ_are_compared_when_gossip_has_had_its_chance():
    world = settled(3)
    world.start(9)
    world.core(1)._members.apply(account(9), 0.0)
    assert world.run(15, until=world.converged) > LOCAL.sync_periods * LOCAL.probe_period_s
    assert world.converged()
    assert sum(core.statistics().syncs for core in world.running()) >= 1
    world.run(10)
    syncs = sum(core.statistics().syncs for core in world.running())
    world.run(30)
    assert syncs == sum(core.statistics().syncs for core in world.running()), "equal tables are left alone"


# One rule, one test.


def test_a_doubt_that_was_refuted_long_ago_is_refuted_again_with_the_same_incarnation():
    world = settled(5)
    stale = attrs.evolve(world.core(2).me, liveness=Liveness.SUSPECT)
    world.call(2, "update_me", zone="a")
    world.run(5)
    assert world.core(2).statistics().rumours == 0
    incarnation = world.core(2).me.identity
    accusers = tuple(f"{index:016x}" for index in (1, 3, 4))
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(Update(stale, accusers))])
    world.call(2, "receive", data, account(3).address)
    assert world.core(2).statistics().rumours == 1
    assert world.core(2).me.identity == incarnation


def test_a_quarantined_member_is_asked_again_every_period():
    world = settled(16, options=attrs.evolve(LOCAL, suspicion_factor=100.0))
    world.crash(2)
    world.run(20, until=lambda: all(core.is_quarantined(f"{2:016x}") for core in world.running()))
    before = world.core(1).statistics().rounds_failed
    world.run(10 * LOCAL.probe_period_s)
    assert world.core(1).statistics().rounds_failed - before >= 8, "the round robin alone would ask once"


def test_an_answer_through_a_helper_saves_a_member_and_does_not_lift_its_quarantine():
    world = settled(5)
    world.sever([1], [2])
    world.call(1, "evidence", f"{2:016x}")
    world.run(5)
    assert world.core(1).is_quarantined(f"{2:016x}"), "it does not answer us"
    assert world.sees(1, 2) is Liveness.ALIVE


def test_what_was_heard_before_a_link_was_lost_does_not_count_after():
    world = settled(5)
    world.crash(2)
    world.call(1, "probe", f"{2:016x}")
    world.run(0.005)
    world.call(1, "heard", f"{2:016x}")
    world.run(0.005)
    world.call(1, "evidence", f"{2:016x}")
    assert world.run(2, until=lambda: is_doubted(world, 1, 2)) <= LOCAL.verdict_min_s


def test_a_suspect_that_answers_us_does_not_die_though_it_never_refutes():
    world = settled(3, options=attrs.evolve(LOCAL, witnesses=0))
    world.core(2)._myself.hear = lambda now, rumour, accusers: None
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.run(30)
    assert world.sees(1, 2) is Liveness.SUSPECT
    assert world.sees(3, 2) is Liveness.SUSPECT


def test_a_ping_to_the_dead_says_that_they_are_held_dead():
    world = settled(2)
    world.crash(2)
    world.run(20)
    assert world.sees(1, 2) is Liveness.DEAD
    world.posted.clear()
    world.run(3, until=lambda: bool(world.posted))
    packet = codec.decode(world.posted[0][2].data)
    assert isinstance(packet.message, Ping)
    assert [update.member.liveness for update in packet.updates] == [Liveness.DEAD]


def test_gossip_rounds_go_on_until_the_rumour_has_been_sent_often_enough():
    world = settled(3)
    world.call(2, "update_me", zone="a")
    assert world.core(2).statistics().rumours == 1
    waited_s = world.run(10, until=lambda: not any(core.statistics().rumours for core in world.running()))
    assert waited_s < LOCAL.gossip_period_s * 8


def test_gossip_rounds_carry_news_round_a_large_mesh_within_a_probe_period():
    world = settled(32)
    world.call(2, "update_me", zone="a")
    node = f"{2:016x}"
    waited_s = world.run(10, until=lambda: all(core.member(node).zone == "a" for core in world.running()))
    assert waited_s < LOCAL.probe_period_s


# The wire.


def test_garbage_is_counted_and_dropped():
    world = settled(2)
    core = world.core(1)
    rng = random.Random(7)
    before = core.members()
    for length in range(200):
        world.call(1, "receive", rng.randbytes(length), ("127.0.0.1", 9))
    assert core.statistics().decode_errors == 200
    assert core.members() == before


def test_an_ack_counts_only_with_the_nonce_of_an_open_round():
    world = settled(2)
    world.crash(2)
    world.call(1, "evidence", f"{2:016x}")
    forged = codec.packet([codec.item(Ack(f"{3:016x}", 12345, bytes(8)))])
    for _ in range(40):
        world.run(0.5)
        world.call(1, "receive", forged, account(3).address)
    assert world.sees(1, 2) is Liveness.DEAD


def test_a_ping_for_another_node_is_not_answered():
    world = settled(2)
    sent = world.core(1).statistics().packets_sent
    ping = codec.packet([codec.item(Ping(f"{2:016x}", 1, f"{77:016x}"))])
    world.call(1, "receive", ping, account(2).address)
    assert world.core(1).statistics().packets_sent == sent
    assert world.core(1).statistics().misplaced == 1


def test_load_reaches_every_member_and_grows_old():
    world = settled(5)
    world.call(2, "publish_load", LoadRecord("", models=(ModelLoad("tiny", queued_tokens=7),)))
    node = f"{2:016x}"

    def everywhere():
        return all(core.loads.get(world.instant(core.me.address), node) for core in world.running())

    published = world.now
    assert world.run(10, until=everywhere) < 3.0
    world.run(1)
    for core in world.running():
        record = core.loads.get(world.instant(core.me.address), node)
        assert record.models[0].queued_tokens == 7
        assert record.age_ms / 1000 == pytest.approx(world.now - published, abs=0.05)


def test_an_idle_mesh_is_quiet_and_cheap():
    world = settled(16)
    world.datagrams = world.bytes = 0
    world.run(20)
    packets_per_s = world.datagrams / 20 / 16
    assert packets_per_s == pytest.approx(2 / LOCAL.probe_period_s, rel=0.02)
    assert world.bytes / world.datagrams <= 66
    assert not world.log


def test_the_same_seed_gives_the_same_story():
    def story():
        world = World(5, seed=3, loss=0.1)
        world.run(5)
        world.crash(2)
        world.run(10)
        return world.log, world.datagrams, world.bytes

    assert story() == story()
