"""Who we are to others: clones, old lives, new addresses, and being forgotten."""

import attrs
import pytest

from mesh import codec
from mesh.effects import KeepGeneration, Report, Stop
from mesh.identity import GENERATION_MAX, GENERATION_STEP_MAX, INCARNATION_MAX
from mesh.member import Liveness
from mesh.messages import Gossip, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of

LOCAL = SwimOptions.local()


def formed(count, seed=1, **options):
    crowd = Crowd(seed, CrowdOptions(swim=LOCAL, **options))
    crowd.form(count)
    crowd.run_for(3.0)
    assert crowd.converged()
    crowd.log.clear()
    return crowd


def rumour(crowd, to, member, source=3):
    data = codec.packet([codec.item(Gossip(crowd.node(source))), codec.item(Update(member))])
    crowd.call(to, "receive", data, crowd[source].address)


def reports(crowd, event):
    return [who for _, who, said in crowd.log if isinstance(said, Report) and said.event == event]


def stops(crowd):
    return [(at, who) for at, who, said in crowd.log if isinstance(said, Stop)]


def cloned(crowd, of, index):
    """Start a second process with the id of another, at its own address."""
    plain = crowd.options.account

    def account(seed, number, generation, address):
        mine = plain(seed, of if number == index else number, generation, address)
        return attrs.evolve(mine, name=f"node-{number}")

    crowd.options = attrs.evolve(crowd.options, account=account)
    crowd.start(index, seeds=[1], generation=crowd[of].generation + 1)


def obey(crowd):
    """End processes that are told to stop."""

    def tap(peer, outputs):
        if any(isinstance(output, Stop) for output in outputs):
            crowd.at(crowd.time, lambda: crowd.crash(peer.index))

    crowd.taps.append(tap)


@pytest.mark.parametrize("seed", range(3))
def test_a_cloned_newcomer_ends_and_the_old_process_goes_on(seed):
    crowd = formed(6, seed)
    crowd.run_for(60.0)
    obey(crowd)
    cloned(crowd, of=2, index=9)
    assert crowd.run_until(lambda: bool(stops(crowd)), 10.0) is not None
    assert [who for _, who in stops(crowd)] == [9]
    crowd.run_for(30.0)
    assert len(stops(crowd)) == 1
    assert crowd.converged()
    assert crowd.core(1).member(crowd.node(2)).address == crowd[2].address


@pytest.mark.parametrize("seed", range(3))
def test_of_two_young_clones_exactly_one_ends(seed):
    crowd = formed(6, seed)
    obey(crowd)
    cloned(crowd, of=2, index=9)
    crowd.run_for(30.0)
    assert len(stops(crowd)) == 1
    assert crowd.converged()


def alone_together(seed, settled_s):
    """Two processes with one id that know nobody else, as one that was started with the other as its only seed."""
    crowd = Crowd(seed, CrowdOptions(swim=LOCAL))
    crowd.start(2)
    crowd.run_for(settled_s)
    obey(crowd)
    cloned(crowd, of=2, index=9)
    return crowd


def meet(crowd):
    """Each greets the other on a link."""
    for one, other in ((2, 9), (9, 2)):
        if crowd[one].running:
            crowd.call(one, "met_twin", crowd[other].address)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("settled_s", "ends"), [(61.0, {9}), (0.5, {2, 9})])
def test_of_two_twins_that_greet_each_other_exactly_one_ends(seed, settled_s, ends):
    crowd = alone_together(seed, settled_s)
    for _ in range(4):
        meet(crowd)
        crowd.run_for(4.0)
    assert len(stops(crowd)) == 1
    assert {who for _, who in stops(crowd)} <= ends


def test_who_greets_in_our_name_but_does_not_answer_our_question_ends_nobody():
    crowd = formed(3)
    crowd.call(2, "met_twin", ("10.9.9.9", 7946))
    crowd.run_for(30.0)
    assert reports(crowd, "identity_clash") and not stops(crowd)


def test_a_second_name_of_our_own_address_ends_nobody():
    crowd = formed(3)
    crowd.call(2, "met_twin", crowd[2].address)
    crowd.run_for(30.0)
    assert not stops(crowd)


def test_a_liar_that_claims_later_lives_of_us_elsewhere_ends_nobody():
    crowd = formed(6)
    for generation in range(5, 60):
        later = account_of(1, 2, generation, ("10.9.9.9", 7946))
        rumour(crowd, 2, later)
        crowd.run_for(0.5)
    assert not stops(crowd)
    assert reports(crowd, "identity_clash")
    crowd.run_for(5.0)
    assert crowd.converged()


def test_a_restart_with_a_lost_generation_at_its_old_address_is_no_clash():
    crowd = formed(5)
    crowd.crash(2)
    crowd.run_for(1.0)
    crowd.start(2, seeds=[1], generation=0)
    assert crowd.run_until(crowd.converged, 5.0) is not None
    assert reports(crowd, "generation_raised") == [2]
    kept = [(who, said.generation) for _, who, said in crowd.log if isinstance(said, KeepGeneration)]
    assert kept == [(2, crowd.core(2).me.identity.generation)], "the next life begins above it"
    assert not reports(crowd, "identity_clash")


def test_a_generation_that_cannot_be_topped_is_not_believed():
    crowd = formed(5)
    for generation in (GENERATION_MAX, 2 + GENERATION_STEP_MAX):
        for to in (1, 2):
            rumour(
                crowd,
                to,
                attrs.evolve(account_of(1, 2, generation, crowd[2].address), liveness=Liveness.DEAD),
            )
    crowd.run_for(5.0)
    assert crowd.converged()
    assert crowd.core(2).me.identity.generation == 1
    assert crowd.core(1).statistics().implausible == 2


def test_a_restart_at_another_address_is_used_by_all_within_two_seconds():
    crowd = formed(32)
    crowd.crash(2)
    crowd.move(2, ("10.7.7.7", 7946))
    crowd.start(2, seeds=[5])
    node = crowd.node(2)

    def used():
        return all(peer.core.member(node).address == ("10.7.7.7", 7946) for peer in crowd.running)

    assert crowd.run_until(used, 2.0) is not None


@pytest.mark.parametrize("seed", range(3))
def test_a_nat_that_rebinds_a_running_node_costs_it_six_seconds_at_most_and_not_its_life(seed):
    crowd = formed(16, seed)
    crowd.move(2, ("10.7.7.7", 4000))
    node = crowd.node(2)

    def used():
        return all(peer.core.member(node).address == ("10.7.7.7", 4000) for peer in crowd.running)

    assert crowd.run_until(used, 6.0) is not None
    crowd.run_for(5.0)
    assert crowd.converged()
    assert crowd.core(2).me.identity.generation == 1


def test_one_liar_cannot_give_a_doubted_node_another_address():
    crowd = formed(8)
    suspect = attrs.evolve(crowd.core(2).me, liveness=Liveness.SUSPECT)
    rumour(crowd, 2, suspect)
    lie = codec.packet([codec.item(codec.Seen(crowd.node(3), ("10.6.6.6", 1)))])
    for _ in range(20):
        crowd.call(2, "receive", lie, crowd[3].address)
        crowd.run_for(0.1)
    assert crowd.core(2).me.address == crowd[2].address


def test_who_is_forgotten_stays_so_whatever_is_said_and_may_begin_anew():
    crowd = formed(8)
    old = crowd.core(2).me
    crowd.crash(2)
    crowd.run_for(10.0)
    crowd.call(1, "forget", crowd.node(2))
    assert crowd.run_until(lambda: crowd.everybody_sees(2, Liveness.LEFT), 1.0) is not None
    for incarnation in (0, 5, INCARNATION_MAX):
        again = attrs.evolve(old, identity=attrs.evolve(old.identity, incarnation=incarnation))
        rumour(crowd, 4, again)
    crowd.run_for(5.0)
    assert crowd.everybody_sees(2, Liveness.LEFT)
    crowd.start(2, seeds=[3])
    assert crowd.run_until(crowd.converged, 3.0) is not None


def test_a_stranger_and_ourselves_cannot_be_forgotten():
    crowd = formed(3)
    for node in (crowd.node(1), "0123456789abcdef", "nonsense"):
        crowd.call(1, "forget", node)
    crowd.run_for(2.0)
    assert crowd.converged()
    assert not reports(crowd, "forgotten")
