"""A node whose own machine drops what is sent to it: slower to judge others, and not for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.member import Liveness
from mesh.probe import HELD_MAX
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions

LOCAL = SwimOptions.local()


def formed(count, seed=1):
    crowd = Crowd(seed, CrowdOptions(swim=LOCAL))
    crowd.form(count)
    crowd.run_for(3.0)
    assert crowd.converged()
    return crowd


def tell_losses(crowd, index, for_s, every_s=0.1):
    """Tell a node now and then that its machine has dropped a datagram."""
    for turn in range(int(for_s / every_s)):
        crowd.at(crowd.time + turn * every_s, lambda: crowd.call(index, "lost_input", 1))


def quarantined(crowd, index):
    return [node for node in map(crowd.node, range(1, len(crowd.peers) + 1)) if is_out(crowd, index, node)]


def is_out(crowd, index, node):
    return node != crowd.node(index) and crowd.core(index).is_quarantined(node)


def hole(told):
    """How many a node quarantines that hears nothing from three of its peers for a little more than a verdict."""
    crowd = formed(6)
    crowd.cut([2, 3, 4], [1], both_ways=False)
    for node in (2, 3, 4):
        crowd.call(1, "probe", crowd.node(node))
    if told:
        tell_losses(crowd, 1, 0.3)
    crowd.run_for(1.3 * LOCAL.verdict_min_s)
    out = len(quarantined(crowd, 1))
    crowd.heal()
    return out


def test_who_lost_its_input_judges_nobody_until_it_has_asked_again():
    assert hole(told=False) == 3
    assert hole(told=True) == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 0.4))
def test_losses_for_ever_put_a_judgement_off_and_do_not_prevent_it(seed, every_s):
    crowd = formed(4, seed)
    crowd.crash(2)
    for index in (1, 3, 4):
        tell_losses(crowd, index, 40.0, every_s)
    slowest = LOCAL.health_max + 1
    verdict_s = LOCAL.verdict_min_s * slowest
    turns_s = 4 * LOCAL.probe_period_s * slowest
    suspicion_s = LOCAL.suspicion_factor * LOCAL.suspicion_max_factor * LOCAL.probe_period_s
    bound_s = turns_s + 3 * (1 + HELD_MAX) * verdict_s + suspicion_s
    assert crowd.run_until(lambda: crowd.everybody_sees(2, Liveness.DEAD), bound_s) is not None
    assert crowd.sees(1, 3) is crowd.sees(3, 4) is Liveness.ALIVE


@pytest.mark.parametrize("told", [1, 50])
def test_losses_cost_a_point_of_health_a_period_and_are_made_good(told):
    crowd = formed(4)
    for _ in range(told):
        crowd.call(1, "lost_input", 3)
    assert crowd.core(1).statistics().health == 1
    assert crowd.core(1).statistics().input_lost == 3 * told
    tell_losses(crowd, 1, 30.0)
    crowd.run_for(29.0)
    assert 1 <= crowd.core(1).statistics().health <= LOCAL.health_max
    crowd.run_for(60.0)
    assert crowd.core(1).statistics().health == 0


def test_who_refuses_is_not_spared_by_our_losses():
    crowd = formed(4)
    crowd.crash(2)
    crowd.call(1, "probe", crowd.node(2))
    crowd.call(1, "evidence", crowd.node(2), "refused: nobody listens")
    tell_losses(crowd, 1, 5.0)
    crowd.run_for(1.5 * LOCAL.verdict_min_s)
    assert crowd.node(2) in crowd.core(1).doubted
