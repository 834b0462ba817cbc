"""Rumours grow old on their way, whatever the clocks say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.ages import BUCKETS_S, LONGEST, UNKNOWN, Histogram, ages_of, from_byte, to_byte
from mesh.messages import Ages, Gossip, Packet, Update
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from tests.mesh.small_world import account


@given(st.floats(0, 55))
def test_a_byte_tells_an_age_within_five_per_cent_and_a_millisecond(age_s):
    told = from_byte(to_byte(age_s))
    assert told == pytest.approx(age_s, rel=0.045, abs=0.001)


@given(st.integers(0, LONGEST))
def test_a_byte_that_is_passed_on_at_once_does_not_change(code):
    assert to_byte(from_byte(code)) == code


def test_an_age_beyond_the_longest_is_the_longest_and_an_unknown_one_is_none():
    assert to_byte(1e6) == LONGEST
    assert to_byte(-1.0) == 0
    assert from_byte(UNKNOWN) is None


def test_the_ages_are_those_of_the_last_accounts():
    updates = tuple(Update(account(index)) for index in (1, 2))
    packet = Packet(Gossip("0" * 15 + "1"), updates, ages=(Ages(bytes([160])),))
    assert ages_of(packet) == [None, pytest.approx(1.023)]
    greedy = Packet(Gossip("0" * 15 + "1"), updates, ages=(Ages(bytes(9)),))
    assert ages_of(greedy) == [0.0, 0.0]


@given(st.lists(st.floats(0, 100)))
def test_the_histogram_is_cumulative_and_complete(ages):
    histogram = Histogram()
    for age_s in ages:
        histogram.count(age_s)
    found = histogram.cumulative()
    assert found["+Inf"] == len(ages)
    for end in BUCKETS_S:
        assert found[str(end)] == sum(age_s <= end for age_s in ages)


def test_all_hear_one_change_once_and_at_about_its_true_age():
    crowd = Crowd(3, CrowdOptions())
    crowd.form(64)
    for peer in crowd.running:
        peer.skew_s = 1000.0 * peer.index
    crowd.run_for(3.0)
    said_at, heard = crowd.time, {}

    def tap(peer, _outputs):
        found = peer.core.statistics().rumour_age
        if found["+Inf"] and peer.index not in heard:
            heard[peer.index] = (crowd.time - said_at, found)

    crowd.taps.append(tap)
    crowd.call(1, "update_me", zone="a")
    crowd.run_for(1.0)
    assert len(heard) == 63, "who said it does not count"
    for true_s, found in heard.values():
        assert found["+Inf"] == 1
        least = next(end for end in BUCKETS_S if found[str(end)])
        assert least >= true_s * 0.9 - 0.01 or least == BUCKETS_S[0]
        assert true_s <= least * 1.1 + 0.01
