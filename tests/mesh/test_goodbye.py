"""Goodbyes: true ones are seen by all, told by whomever; false ones by nobody."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.effects import Report
from mesh.facts import MemberChanged
from mesh.identity import INCARNATION_MAX, Identity
from mesh.member import Liveness
from mesh.messages import Gossip, Leave, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.rule import Rule

LEFT = Liveness.LEFT


def formed(count, seed=1, preset=SwimOptions.local):
    crowd = Crowd(seed, CrowdOptions(swim=preset()))
    crowd.form(count)
    crowd.run_for(3.0)
    assert crowd.converged()
    crowd.log.clear()
    return crowd


def forged(crowd, about, ahead=0, lives=0):
    """The goodbye of a node that has said none."""
    identity = crowd.core(about).me.identity
    incarnation = min(INCARNATION_MAX, identity.incarnation + ahead)
    age = Identity(identity.node, identity.generation + lives, incarnation)
    return attrs.evolve(crowd.core(about).me, identity=age, liveness=LEFT)


def told(crowd, to, member, source, message=Gossip):
    """Deliver a packet of `source`, which bears its own id unless another is given, from its own address."""
    data = codec.packet([codec.item(message(crowd.node(source))), codec.item(Update(member))])
    crowd.call(to, "receive", data, crowd[source].address)


def departures(crowd):
    """Who took whom for departed, ever."""
    changes = [(who, fact.after) for _, who, fact in crowd.log if isinstance(fact, MemberChanged)]
    return [(who, after.name) for who, after in changes if after.liveness is LEFT]


def reports(crowd, event):
    return [who for _, who, said in crowd.log if isinstance(said, Report) and said.event == event]


def refuted(crowd):
    return sum(peer.core.statistics().goodbyes_refuted for peer in crowd.running)


lies = st.tuples(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from((0, 1, 7, INCARNATION_MAX)),
    st.sampled_from((0, 0, 1, 3)),
    st.floats(0.0, 0.7),
)
"""To whom, about whom, by whom, incarnations and lives ahead of the truth, and the seconds until the next."""


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.lists(lies, min_size=1, max_size=12))
def test_whatever_others_tell_nobody_who_answers_is_taken_for_departed(seed, told_of):
    crowd = formed(6, seed)
    for to, about, by, ahead, lives, wait_s in told_of:
        if len({to, about, by}) == 3:
            told(crowd, to, forged(crowd, about, ahead, lives), by)
        crowd.run_for(wait_s)
    crowd.run_for(3.0)
    assert departures(crowd) == []
    assert crowd.converged()
    assert {peer.generation for peer in crowd.running} == {1}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(2, 5), st.floats(0.0, 0.02))
def test_a_goodbye_that_reached_one_node_before_its_process_ended_is_seen_by_all_as_left(
    seed, heard_by, loss
):
    crowd = formed(6, seed)
    others = [index for index in range(1, 7) if index not in (1, heard_by)]
    goodbye = attrs.evolve(crowd.core(1).me, liveness=LEFT)
    data = codec.packet([codec.item(Leave(crowd.node(1))), codec.item(Update(goodbye))])
    address = crowd[1].address
    crowd.lay("loss", Rule(loss=loss))
    crowd.crash(1)
    crowd.call(heard_by, "receive", data, address)
    assert crowd.sees(heard_by, 1) is LEFT, "it was told by the subject itself"
    assert all(crowd.sees(other, 1) is Liveness.ALIVE for other in others)
    assert crowd.run_until(lambda: crowd.everybody_sees(1, LEFT), 3.0) is not None


@pytest.mark.parametrize("count", [2, 3, 33, 100])
def test_a_true_goodbye_is_seen_by_all_as_left_within_a_second(count):
    crowd = formed(count)
    crowd.leave(2)
    took_s = crowd.run_until(lambda: crowd.everybody_sees(2, LEFT), 5.0)
    assert took_s is not None
    assert took_s <= 1.0
    crowd.crash(2)
    crowd.run_for(5.0)
    assert {name for _, name in departures(crowd)} == {crowd.name(2)}
    assert not reports(crowd, "member_dead")


def test_what_is_told_of_a_goodbye_is_passed_on_only_once_it_is_believed():
    crowd = formed(6)
    told(crowd, 1, forged(crowd, 2), 3)
    assert not crowd.core(1).statistics().rumours
    crowd.run_for(1.0)
    assert refuted(crowd) == 1


def test_a_goodbye_in_the_name_of_its_subject_from_elsewhere_is_hearsay():
    crowd = formed(6)
    goodbye = codec.packet([codec.item(Leave(crowd.node(2))), codec.item(Update(forged(crowd, 2)))])
    crowd.call(1, "receive", goodbye, crowd[3].address)
    crowd.run_for(1.0)
    assert departures(crowd) == []
    assert refuted(crowd) == 1


def test_who_is_deaf_believes_no_goodbye_until_it_hears():
    crowd = formed(6)
    crowd.cut([1], range(2, 7))
    crowd.run_for(2.0)
    told(crowd, 1, forged(crowd, 2), 3)
    crowd.run_for(1.0)
    assert crowd.sees(1, 2) is not LEFT
    crowd.heal()
    crowd.run_for(3.0)
    assert departures(crowd) == []
    assert crowd.converged()


def test_who_left_and_came_back_at_once_is_not_lost_by_late_news_of_its_goodbye():
    crowd = formed(6)
    goodbye = forged(crowd, 2)
    crowd.leave(2)
    crowd.run_for(0.05)
    crowd.crash(2)
    crowd.start(2, seeds=[1])
    for to in (1, 3, 4, 5):
        told(crowd, to, goodbye, 6)
    assert crowd.run_until(crowd.converged, 3.0) is not None


# An operator's word.


@pytest.mark.parametrize("by", [1, 3])
def test_who_answers_cannot_be_forgotten_and_the_operator_is_told(by):
    crowd = formed(5)
    crowd.call(by, "forget", crowd.node(2))
    crowd.run_for(2.0)
    assert departures(crowd) == []
    assert reports(crowd, "not_forgotten") == [by]
    assert not reports(crowd, "forgotten")
    assert crowd.core(2).me.identity == Identity(crowd.node(2), 1, crowd.core(2).me.identity.incarnation)


def test_who_is_cut_off_can_be_forgotten_and_comes_back_in_its_next_life():
    crowd = formed(5)
    crowd.cut([2], [1, 3, 4, 5])
    crowd.call(1, "forget", crowd.node(2))
    seen = (1, 3, 4, 5)
    assert crowd.run_until(lambda: all(crowd.sees(index, 2) is LEFT for index in seen), 3.0) is not None
    assert reports(crowd, "forgotten") == [1]
    crowd.heal()
    assert crowd.run_until(crowd.converged, 10.0) is not None
    assert crowd.core(1).member(crowd.node(2)).identity.generation == 2


def test_a_lying_operator_can_cost_a_life_its_number_and_nobody_its_place():
    crowd = formed(6)
    told(crowd, 2, forged(crowd, 2, INCARNATION_MAX), 3)
    crowd.run_for(2.0)
    assert crowd.core(2).me.identity.generation == 2, "it cannot top the last incarnation, so it begins anew"
    assert departures(crowd) == []
    assert crowd.converged()


def test_a_true_goodbye_is_believed_although_its_subject_still_sends_while_it_ends():
    crowd = formed(6)
    goodbye = attrs.evolve(crowd.core(1).me, liveness=LEFT)
    crowd.crash(1)
    for other in (2, 3, 4):
        told(crowd, other, goodbye, 5)
    for _ in range(20):
        crowd.run_for(0.05)
        for other in (2, 3, 4):
            crowd.call(other, "heard", crowd.node(1))
    assert not departures(crowd), "a member that sends and does not answer is no proof"
    assert crowd.run_until(lambda: all(crowd.sees(other, 1) is LEFT for other in (2, 3, 4)), 3.0) is not None
    assert not refuted(crowd)
