"""Refuting, leaving, restarting, changing: what a member says of itself."""

import attrs
import pytest

from mesh.errors import LimitError
from mesh.facts import MemberChanged
from mesh.member import Liveness
from tests.mesh.small_world import LOCAL, doubt, is_doubted, settled


def test_a_suspect_refutes_with_a_higher_incarnation():
    world = settled(5, options=attrs.evolve(LOCAL, witnesses=0))
    before = world.core(2).me.identity
    doubt(world, 1, 2, Liveness.SUSPECT, accuser=4)
    assert world.sees(1, 2) is Liveness.SUSPECT
    assert world.run(2, until=lambda: world.sees(1, 2) is Liveness.ALIVE) < 0.1
    assert world.core(2).me.identity == before.above()
    world.run(5)
    assert world.converged()
    assert [who for _, who, _ in world.reports("refuted")] == ["n2"]


def test_a_ping_tells_its_target_what_is_believed_of_it():
    world = settled(2)
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.run(0.01)
    assert world.sees(1, 2) is Liveness.ALIVE, "the buddy's ping asked, its ack refuted"


@pytest.mark.parametrize("liveness", [Liveness.DEAD, Liveness.SUSPECT])
def test_a_lie_about_a_living_member_is_checked_not_believed(liveness):
    world = settled(5)
    doubt(world, 1, 2, liveness)
    world.run(10)
    assert world.converged()
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]


def test_a_rumour_of_death_is_believed_after_a_failed_round_of_our_own():
    world = settled(5)
    world.crash(2)
    doubt(world, 1, 2, Liveness.DEAD)
    assert is_doubted(world, 1, 2)
    assert world.sees(1, 2) is Liveness.ALIVE
    assert world.run(5, until=lambda: world.sees(1, 2) is Liveness.DEAD) <= LOCAL.verdict_min_s + 0.3


# Leaving, and coming back.


def test_leaving_is_seen_as_left_by_all_within_a_second():
    world = settled(16)
    world.call(2, "leave")
    assert world.run(5, until=lambda: world.everybody_sees(2, Liveness.LEFT)) < 0.5
    world.run(1)
    world.crash(2)
    world.run(10)
    assert world.everybody_sees(2, Liveness.LEFT)
    assert {fact.after.liveness for _, _, fact in world.facts(MemberChanged)} == {Liveness.LEFT}


def test_a_restart_with_the_same_id_is_a_new_life():
    world = settled(5)
    world.crash(2)
    world.run(0.1)
    world.start(2, seeds=[1], generation=2)
    assert world.run(5, until=world.converged) < 1.5
    world.run(5)
    assert world.converged()
    assert {core.member(f"{2:016x}").identity.generation for core in world.running()} == {2}


def test_a_restart_after_its_death_is_taken_back():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    world.start(2, seeds=[3], generation=2)
    assert world.run(5, until=world.converged) < 1.0


def test_the_death_of_a_life_that_we_have_not_met_is_no_hearsay_to_believe_for_what_the_last_one_did():
    """It has just restarted, its old links are closed here, and one who lies says that the new life is dead too."""
    world = settled(5)
    node = f"{2:016x}"
    world.crash(2)
    world.start(2, generation=2)
    world.call(1, "evidence", node, "closed")
    assert world.core(1).is_quarantined(node)
    doubt(world, 1, 2, Liveness.DEAD, accuser=3, lives=1)
    row = world.core(1).member(node)
    assert (row.is_live, row.identity.generation, is_doubted(world, 1, 2)) == (True, 2, True)
    world.run(5)
    assert world.sees(1, 2) is Liveness.ALIVE


def test_a_restart_that_lost_its_generation_jumps_above_the_old_one_once():
    world = settled(3)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    world.start(2, seeds=[1], generation=0)
    world.run(5, until=world.converged)
    assert world.converged()
    assert world.core(2).me.identity.generation == 2
    assert len(world.reports("generation_raised")) == 1
    assert not world.reports("identity_clash")


def test_new_facts_about_a_member_reach_everybody():
    world = settled(5)
    world.call(2, "update_me", http="127.0.0.1:8080", draining=True)
    node = f"{2:016x}"
    done = world.run(
        3, until=lambda: all(core.member(node).http == "127.0.0.1:8080" for core in world.running())
    )
    assert done < 1.0
    assert world.core(1).member(node).draining


def test_facts_too_large_for_a_datagram_are_refused_unchanged():
    world = settled(2)
    before = world.core(1).me
    with pytest.raises(LimitError, match="hint:"):
        world.call(1, "update_me", models=tuple(f"{index:096d}" for index in range(32)))
    assert world.core(1).me == before


# Pauses and partitions.
