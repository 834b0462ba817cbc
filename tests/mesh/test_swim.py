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


def test_traffic_on_a_link_lifts_the_quarantine():
    world = settled(3)
    world.sever([1], [2])
    world.run(20, until=lambda: world.core(1).is_quarantined(f"{2:016x}") or world.now > 1e9)
    world.call(1, "evidence", f"{2:016x}")
    world.call(1, "heard", f"{2:016x}")
    assert not world.core(1).is_quarantined(f"{2:016x}")


def test_an_indirect_probe_saves_a_member_whose_direct_path_is_cut():
    world = settled(5)
    world.sever([1], [2])
    world.run(30)
    assert not world.facts(MemberChanged)
    assert not world.facts(Quarantined)
    assert world.core(1).statistics().rounds_failed == 0


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
    assert waited_s == pytest.approx(longest_s, abs=0.01)


def test_who_hears_nobody_declares_nobody_dead():
    world = settled(5)
    for other in (2, 3, 4, 5):
        world.crash(other)
    world.run(120)
    assert {world.sees(1, other) for other in (2, 3, 4, 5)} == {Liveness.SUSPECT}
    assert all(world.core(1).is_quarantined(f"{other:016x}") for other in (2, 3, 4, 5))


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
