"""Joining and detecting: conversations between membership cores in memory."""

import attrs
import pytest

from mesh.facts import MemberChanged, Quarantined, QuarantineLifted
from mesh.member import Liveness
from tests.mesh.small_world import LOCAL, World, settled


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_all_members_meet_through_one_seed(count):
    world = World(count)
    assert world.run(3, until=world.converged) < 1.0
    world.run(3)
    assert len({core.statistics().digest for core in world.running()}) == 1


def test_a_joiner_asks_until_a_late_seed_appears():
    world = World(0)
    world.start(2, seeds=[1])
    world.run(20)
    assert len(world.reports("joining")) == 1
    assert 4 <= len(world.reports("no_seed_answers")) <= 12
    world.start(1)
    world.run(LOCAL.join_retry_max_s * 1.6, until=world.converged)
    assert world.converged()
    assert [who for _, who, _ in world.reports("joined")] == ["n2"]
    world.run(5)
    assert len(world.reports("joined")) == 1


def test_our_own_address_among_the_seeds_is_ignored():
    world = World(0)
    core = world.start(1, seeds=[1])
    world.run(10)
    assert not world.reports("joining")
    assert core.statistics().packets_sent == 0


def test_a_seed_that_was_down_at_first_is_joined_later():
    world = World(0)
    world.start(1)
    world.start(2, seeds=[1, 3])
    world.run(2)
    world.start(3)
    assert world.run(10, until=world.converged) < 5
    assert world.converged()


# Failure, seen and unseen.


@pytest.mark.parametrize("seed", range(8))
def test_an_idle_crash_is_dead_everywhere_within_the_bound(seed):
    world = settled(5, seed=seed)
    world.crash(2)
    detection_s = world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    first_probe_s = 2 * 5 * LOCAL.probe_period_s
    assert detection_s <= first_probe_s + 1.5
    changed = {fact.after.name for _, _, fact in world.facts(MemberChanged)}
    assert changed == {"n2"}, "nobody else was doubted"
    assert {fact.node for _, _, fact in world.facts(Quarantined)} == {f"{2:016x}"}


def test_quarantine_comes_before_suspicion_and_suspicion_before_death():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    for name in ("n1", "n3", "n4", "n5"):
        story = [
            fact
            for _, who, fact in world.log
            if who == name and isinstance(fact, Quarantined | MemberChanged)
        ]
        kinds = [fact.after.liveness if isinstance(fact, MemberChanged) else "quarantine" for fact in story]
        assert kinds[-1] is Liveness.DEAD
        assert set(kinds[:-1]) == {"quarantine", Liveness.SUSPECT}
    first = world.facts(Quarantined | MemberChanged)[0][2]
    assert isinstance(first, Quarantined)


def test_evidence_of_a_lost_link_quarantines_at_once_and_one_answer_lifts_it():
    world = settled(5)
    world.call(1, "evidence", f"{2:016x}", "reset by peer")
    assert world.core(1).is_quarantined(f"{2:016x}")
    assert world.facts(Quarantined)[0][2] == Quarantined(f"{2:016x}", "reset by peer")
    assert world.run(1, until=lambda: not world.core(1).is_quarantined(f"{2:016x}")) < 0.02
    assert world.facts(QuarantineLifted)[0][2] == QuarantineLifted(f"{2:016x}")
    world.run(5)
    assert not world.facts(MemberChanged)


def test_a_crash_that_every_link_saw_is_dead_within_a_second():
    world = settled(5)
    world.crash(2)
    for observer in (1, 3, 4, 5):
        world.call(observer, "evidence", f"{2:016x}")
    assert world.run(10, until=lambda: world.everybody_sees(2, Liveness.DEAD)) < 1.0


def test_traffic_makes_us_ask_whether_the_quarantined_hears_us_too():
    world = settled(3)
    node = f"{2:016x}"
    world.sever([1], [2])
    world.run(20, until=lambda: world.core(1).is_quarantined(node))
    world.run(2)
    world.call(1, "heard", node)
    assert world.core(1).is_quarantined(node), "its packets prove one direction only"
    world.heal()
    world.call(1, "heard", node)
    assert world.run(1, until=lambda: not world.core(1).is_quarantined(node)) < 0.3


def test_what_comes_over_a_one_way_cut_lifts_no_quarantine():
    world = settled(4)
    world.sever([1, 3, 4], [2], both_ways=False)
    world.run(20, until=lambda: world.core(1).is_quarantined(f"{2:016x}"))
    world.log.clear()
    world.run(20)
    assert not world.facts(QuarantineLifted)


def test_an_indirect_probe_saves_a_member_whose_direct_path_is_cut():
    world = settled(5)
    world.sever([1], [2])
    world.run(30)
    assert not world.facts(MemberChanged)
    assert world.core(1).statistics().rounds_failed == 0
    pairs = {(who, fact.node[-1]) for _, who, fact in world.facts(Quarantined)}
    assert pairs == {("n1", "2"), ("n2", "1")}, "alive, and of no use to each other"
    assert not world.facts(QuarantineLifted)


def test_without_the_helpers_that_member_would_be_suspected():
    world = settled(5, options=attrs.evolve(LOCAL, helpers=0))
    world.sever([1], [2])
    world.run(30)
    assert world.facts(Quarantined)


def test_a_probe_over_tcp_saves_a_member_whose_datagrams_are_lost():
    world = settled(2)
    world.loss = 1.0
    world.run(20)
    assert not world.facts(MemberChanged)
    assert not world.facts(Quarantined)


def test_thirty_per_cent_loss_kills_nobody():
    world = settled(5)
    world.loss = 0.3
    world.run(120)
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]
    world.loss = 0.0
    world.run(5)
    assert world.converged()


def test_a_mesh_of_two_decides_after_the_longest_timeout():
    world = settled(2)
    world.crash(2)
    world.run(20, until=lambda: world.sees(1, 2) is Liveness.SUSPECT)
    waited_s = world.run(20, until=lambda: world.sees(1, 2) is Liveness.DEAD)
    longest_s = LOCAL.suspicion_factor * LOCAL.probe_period_s * LOCAL.suspicion_max_factor
    assert longest_s <= waited_s <= longest_s + 1.0, "the last look is as patient as our own health is poor"


def lonely(world, others):
    return {world.sees(1, other) for other in others}


def test_who_hears_nobody_declares_nobody_dead_until_it_must_take_itself_for_the_last():
    world = settled(5)
    others = (2, 3, 4, 5)
    for other in others:
        world.crash(other)
    world.run(LOCAL.alone_s)
    assert lonely(world, others) <= {Liveness.SUSPECT, Liveness.ALIVE}, "who hears nobody accuses nobody"
    assert all(world.core(1).is_quarantined(f"{other:016x}") for other in others)
    assert world.run(LOCAL.alone_s, until=lambda: lonely(world, others) == {Liveness.DEAD}) < LOCAL.alone_s
    evidence = {dict(report.fields)["evidence"] for _, _, report in world.reports("member_dead")}
    assert evidence == {"alone"}


def test_who_was_cut_off_for_long_buries_nobody_in_the_others_eyes():
    world = settled(5)
    world.sever([1], [2, 3, 4, 5])
    world.run(3 * LOCAL.alone_s)
    assert lonely(world, (2, 3, 4, 5)) == {Liveness.DEAD}
    world.log.clear()
    world.heal()
    assert world.run(30, until=world.converged) < 6.0
    dead = [fact for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]
    assert not dead, "what it held for itself alone is no rumour"


def test_a_refusal_proves_the_path_and_the_death():
    world = settled(4)
    for other in (2, 3, 4):
        world.crash(other)
    world.run(6)
    assert Liveness.DEAD not in lonely(world, (2, 3, 4))
    for _ in range(60):
        for other in (2, 3, 4):
            if world.sees(1, other) is not Liveness.DEAD:
                world.call(1, "evidence", f"{other:016x}", "refused")
        world.run(0.1)
    assert lonely(world, (2, 3, 4)) == {Liveness.DEAD}


def test_who_hears_its_helpers_say_nack_does_not_blame_itself():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    assert [core.statistics().health for core in world.running()] == [0, 0, 0, 0]


def test_who_is_cut_off_from_its_helpers_too_blames_itself():
    world = settled(5)
    world.sever([1], [2, 3, 4, 5])
    world.run(5)
    assert world.core(1).statistics().health >= 2
    assert all(world.core(index).statistics().health == 0 for index in (2, 3, 4, 5))


# Refutation.
