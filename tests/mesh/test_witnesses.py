"""A suspicion needs witnesses: until enough have seen somebody fail it is a doubt, and one answer ends it."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.ages import ages_of, to_byte
from mesh.cases import witnesses_needed
from mesh.facts import MemberChanged
from mesh.member import Liveness
from mesh.messages import Ages, Gossip, Update
from mesh.myself import patience_s
from mesh.swim_options import SwimOptions
from tests.mesh.small_world import LOCAL, account, doubt, is_doubted, settled

ALONE = attrs.evolve(LOCAL, helpers=0)
"""Nobody helps, so that a cut between two makes a round of theirs fail."""


def incarnation(world, index):
    return world.core(index).me.identity.incarnation


def accuse(world, observer, subject, accusers, age_s=0.0):
    """Tell `observer` that so many accuse `subject`, and since when."""
    row = attrs.evolve(world.core(observer).member(f"{subject:016x}"), liveness=Liveness.SUSPECT)
    update = Update(row, tuple(f"{index:016x}" for index in accusers))
    ages = Ages(bytes([to_byte(age_s)]))
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(update), codec.item(ages)])
    world.call(observer, "receive", data, account(3).address)


@given(live=st.integers(1, 200), witnesses=st.integers(0, 8), confirmations=st.integers(0, 7))
def test_no_more_witnesses_are_needed_than_there_can_be(live, witnesses, confirmations):
    options = attrs.evolve(LOCAL, witnesses=witnesses, confirmations=confirmations)
    needed = witnesses_needed(options, live)
    assert needed <= max(1, live - 1)
    assert needed <= confirmations + 1, "a case keeps no more names"
    assert (needed == 0) == (witnesses == 0)


def test_the_papers_modes_and_observers_need_none():
    modes = (SwimOptions.plain_swim(), SwimOptions.lifeguard(), attrs.evolve(LOCAL, observer=True))
    assert {witnesses_needed(options, 128) for options in modes} == {0}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 3, 4, 5]), st.sampled_from([4, 5, 6, 7])), max_size=12))
def test_whatever_is_said_of_one_who_answers_all_moves_nobody(rumours):
    world = settled(7)
    for observer, accuser in rumours:
        doubt(world, observer, 2, Liveness.SUSPECT, accuser)  # a liar may even name the observer
        world.run(0.02)
    world.run(1)
    assert not world.facts(MemberChanged)
    assert incarnation(world, 2) == 0
    assert not any(core.doubted or core.statistics().rumours for core in world.running())


def test_a_doubt_ends_with_the_answer_to_our_own_ping():
    world = settled(5)
    doubt(world, 1, 2, Liveness.SUSPECT, accuser=4)
    assert is_doubted(world, 1, 2)
    assert world.run(1, until=lambda: not is_doubted(world, 1, 2)) < 0.02
    assert not world.core(1).is_quarantined(f"{2:016x}")


def test_whom_one_alone_cannot_reach_is_no_suspect_and_is_not_told():
    world = settled(8, options=ALONE)
    world.sever([1], [2])
    assert world.run(20, until=lambda: is_doubted(world, 1, 2)) < 10
    world.run(1)
    assert world.everybody_sees(2, Liveness.ALIVE)
    assert incarnation(world, 2) == 0
    world.heal()
    assert world.run(5, until=lambda: not is_doubted(world, 1, 2)) < 5


def test_who_hears_of_a_doubt_passes_it_on_when_its_own_ping_is_late():
    patient = attrs.evolve(LOCAL, verdict_min_s=5.0, shared_probing=False)
    world = settled(16, options=patient)
    world.crash(2)
    world.run(0.01)
    doubt(world, 1, 2, Liveness.SUSPECT, accuser=4)
    heard_s = world.run(3, until=lambda: sum(is_doubted(world, index, 2) for index in range(3, 17)) >= 12)
    assert heard_s < 1.0, "long before any round could fail"
    assert world.everybody_sees(2, Liveness.ALIVE)


def test_a_suspect_is_who_has_failed_us_and_enough_others():
    slow = attrs.evolve(LOCAL, suspicion_factor=100.0)
    world = settled(8, options=slow)
    world.crash(2)
    node = f"{2:016x}"
    assert world.run(10, until=lambda: world.everybody_sees(2, Liveness.SUSPECT)) < 3
    for core in world.running():
        assert core.is_quarantined(node)
        assert len(core.explain(node)[-1].accusers) >= 1


def test_an_accusation_older_than_the_last_word_of_its_subject_is_settled():
    world = settled(5)
    world.call(1, "probe", f"{2:016x}")
    world.run(0.1)
    rounds = world.core(1).statistics().rounds_started
    accuse(world, 1, 2, [4], age_s=0.3)
    assert not is_doubted(world, 1, 2)
    assert world.core(1).statistics().accusations_settled == 1
    assert world.core(1).statistics().rounds_started == rounds
    accuse(world, 1, 2, [4], age_s=0.001)
    assert is_doubted(world, 1, 2), "since then it has said nothing"


def test_a_weak_accusation_is_answered_aloud_only_when_it_lasts():
    world = settled(5)
    wait_s = patience_s(5)
    for _ in range(10):
        accuse(world, 2, 2, [4])
        world.run(wait_s / 12)
    assert incarnation(world, 2) == 0
    world.run(wait_s / 3)
    accuse(world, 2, 2, [4])
    assert incarnation(world, 2) == 1


def test_an_accusation_with_enough_witnesses_is_answered_at_once():
    world = settled(5)
    accuse(world, 2, 2, [1, 3, 4])
    assert incarnation(world, 2) == 1
    assert world.run(2, until=lambda: world.everybody_sees(2, Liveness.ALIVE)) < 1


def test_an_accusation_of_a_stranger_for_whom_there_is_no_room_opens_no_case():
    world = settled(5, options=attrs.evolve(LOCAL, members_max=5))
    stranger = attrs.evolve(account(77), liveness=Liveness.SUSPECT)
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(Update(stranger, (f"{4:016x}",)))])
    world.call(1, "receive", data, account(3).address)
    assert world.core(1).doubted == ()
    world.run(5)
    assert world.converged()


def test_a_doubt_that_is_passed_on_is_as_old_as_where_it_was_first_said():
    world = settled(5, options=attrs.evolve(LOCAL, verdict_min_s=5.0))
    world.crash(2)
    world.run(0.4)
    world.posted.clear()
    accuse(world, 1, 2, [4], age_s=0.3)
    world.run(0.2)
    told = []
    for _, peer, output in world.posted:
        packet = codec.decode(output.data, codec.RELIABLE_BYTES_MAX)
        for update, age_s in zip(packet.updates, ages_of(packet), strict=True):
            if peer.index == 1 and update.member.liveness is Liveness.SUSPECT:
                told.append(age_s)
    assert told
    assert min(told) >= 0.29
