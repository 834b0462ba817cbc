"""Loss, one-way cuts and pauses in a crowd: nobody who lives is declared dead, nobody flaps in routing."""

import attrs
import pytest

from mesh import codec
from mesh.facts import MemberChanged, Quarantined, QuarantineLifted
from mesh.member import Liveness
from mesh.messages import Gossip, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.network import Rule


def formed(count, seed=1, swim=None):
    crowd = Crowd(seed, CrowdOptions(swim or SwimOptions.local()))
    crowd.form(count)
    crowd.run_for(12.0)
    crowd.log.clear()
    return crowd


def deaths(crowd):
    return [
        (at, observer, fact.after.name)
        for at, observer, fact in crowd.log
        if isinstance(fact, MemberChanged) and fact.after.liveness is Liveness.DEAD
    ]


@pytest.mark.parametrize("loss", [0.3, 0.5])
def test_a_minute_of_loss_on_every_packet_kills_nobody(loss):
    crowd = formed(12)
    crowd.lay("loss", Rule(loss=loss))
    crowd.run_for(60.0)
    assert deaths(crowd) == []
    crowd.heal()
    assert crowd.run_until(crowd.converged, within_s=10.0) is not None


def test_a_crash_is_noticed_under_loss_too():
    crowd = formed(12)
    crowd.lay("loss", Rule(loss=0.3))
    crowd.run_for(20.0)
    crowd.crash(3)
    assert crowd.run_until(lambda: crowd.everybody_sees(3, Liveness.DEAD), within_s=15.0) is not None
    assert {name for _, _, name in deaths(crowd)} == {crowd.name(3)}


def test_one_that_is_cut_off_one_way_every_twenty_seconds_flaps_once_in_routing():
    crowd = formed(12)
    victim = crowd.node(1)
    for _ in range(6):
        crowd.cut(range(2, 13), [1], both_ways=False)
        crowd.run_for(20.0)
        crowd.heal()
        crowd.run_for(20.0)
    lifted = [at for at, who, fact in crowd.log if who == 5 and isinstance(fact, QuarantineLifted)]
    lost = [
        at
        for at, who, fact in crowd.log
        if who == 5 and isinstance(fact, Quarantined) and fact.node == victim
    ]
    assert lost
    assert len(lifted) <= 2
    assert {name for _, _, name in deaths(crowd)} <= {crowd.name(1)}


def test_a_quarter_that_stops_again_and_again_is_soon_trusted_and_buries_nobody():
    crowd = formed(12)
    sleepers = (1, 2, 3)
    for _ in range(4):
        for index in sleepers:
            crowd.pause(index)
        crowd.run_for(16.4)
        for index in sleepers:
            crowd.resume(index)
        crowd.run_for(0.064)
    assert {name for _, _, name in deaths(crowd)} <= {crowd.name(index) for index in sleepers}

    def trusted():
        others = [crowd.core(index) for index in range(4, 13)]
        return not any(core.is_quarantined(crowd.node(index)) for core in others for index in sleepers)

    assert crowd.run_until(trusted, within_s=5.0, every_s=0.05) <= 1.5


def test_a_blocked_node_accuses_few_and_buries_nobody():
    crowd = formed(16)
    crowd.block(1)
    crowd.run_for(40.0)
    assert [death for death in deaths(crowd) if death[1] == 1] == []
    crowd.unblock(1)
    assert crowd.run_until(crowd.converged, within_s=10.0) is not None
    assert {name for _, _, name in deaths(crowd)} <= {crowd.name(1)}


def lone_doubt(crowd, age_s):
    """Block a node until it has doubted somebody, alone, for as long; return whom."""
    crowd.block(1)
    core = crowd.core(1)

    assert crowd.run_until(lambda: core.doubted, within_s=10.0) is not None
    suspect = core.member(core.doubted[0])
    crowd.run_for(age_s)
    assert suspect.node in core.doubted, "the case is open still"
    return attrs.evolve(suspect, liveness=Liveness.SUSPECT)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_confirmations_that_use_up_a_suspects_time_at_once_are_no_pause_of_ours(seed):
    crowd = formed(24, seed, SwimOptions.lan())
    suspect = lone_doubt(crowd, 2.4)
    accusers = tuple(crowd.node(index) for index in range(10, 14) if crowd.node(index) != suspect.node)
    items = [codec.item(Gossip(crowd.node(9))), codec.item(Update(suspect, accusers))]
    for _ in range(2):
        crowd.call(1, "receive", codec.packet(items), crowd[9].address)
    assert crowd[1].deadline_at >= crowd.time, "nothing is due in the past"
    assert crowd.core(1).statistics().pauses == 0


@pytest.mark.parametrize("seed", [21, 22])
def test_a_node_that_is_let_through_for_a_moment_between_long_blocks_buries_nobody(seed):
    crowd = formed(32, seed, SwimOptions.lan())
    sick = (1, 2, 3, 4, 5, 6)
    for _ in range(3):
        for index in sick:
            crowd.block(index)
        crowd.run_for(16.384)
        for index in sick:
            crowd.unblock(index)
        crowd.run_for(0.001)
    assert {name for _, _, name in deaths(crowd)} <= {crowd.name(index) for index in sick}
    assert all(crowd.core(index).statistics().pauses == 0 for index in sick)
