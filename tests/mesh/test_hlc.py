"""Stamps: monotone, causal, bounded, totally ordered, whatever the clocks do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import wire
from mesh.errors import ClockError, DecodeError
from mesh.hlc import COUNTER_MAX, DRIFT_MS_MAX, LEASH_MS, VOICES_MAX, HybridClock, MeshTime, Stamp
from mesh.now import Now

NODES = tuple(f"{number:016x}" for number in range(1, 5))
WALLS = st.integers(0, 2**41)
STAMPS = st.builds(Stamp, WALLS, st.integers(0, COUNTER_MAX), st.sampled_from(NODES))
STEPS = st.lists(
    st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from((0, 1, 2)), st.integers(-40, 60)), max_size=60
)


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=50))
def test_each_stamp_is_greater_than_the_last_whatever_the_wall_clock_does(walls):
    clock = HybridClock(NODES[0])
    stamps = [clock.issue(wall) for wall in walls]
    assert stamps == sorted(set(stamps))


@given(STAMPS, st.integers(-DRIFT_MS_MAX, DRIFT_MS_MAX))
def test_what_is_written_after_a_stamp_was_seen_is_greater(stamp, skew):
    clock = HybridClock(NODES[0])
    physical = max(0, stamp.wall_ms + skew)
    assert clock.observe(stamp, physical)
    if stamp.wall_ms < physical + DRIFT_MS_MAX:
        assert clock.issue(physical) > Stamp(stamp.wall_ms, stamp.counter, NODES[0])


@given(STEPS)
def test_happened_before_implies_less_among_nodes_that_talk(steps):
    clocks = [HybridClock(node) for node in NODES[:3]]
    skews = (0, 20_000, -20_000)
    time = 100_000
    for source, target, passed in steps:
        time += passed
        sent = clocks[source].issue(time + skews[source])
        assert clocks[target].observe(sent, time + skews[target])
        assert clocks[target].issue(time + skews[target]) > sent or source == target


@given(st.lists(st.tuples(STAMPS, WALLS), max_size=30), WALLS)
def test_no_stamp_is_issued_further_ahead_than_the_drift(seen, physical):
    clock = HybridClock(NODES[0])
    for stamp, wall in seen:
        assert clock.observe(stamp, wall) == (stamp.wall_ms <= wall + DRIFT_MS_MAX)
    try:
        assert clock.issue(physical).wall_ms <= physical + DRIFT_MS_MAX
    except ClockError as error:
        assert "hint:" in str(error)


def test_a_refused_stamp_leaves_no_trace():
    clock = HybridClock(NODES[0])
    assert not clock.observe(Stamp(10_001 + DRIFT_MS_MAX, 0, NODES[1]), 10_000)
    assert clock.issue(10_000) == Stamp(10_000, 0, NODES[0])


def test_a_full_counter_borrows_the_next_millisecond():
    clock = HybridClock(NODES[0])
    clock.observe(Stamp(500, COUNTER_MAX, NODES[1]), 500)
    assert clock.issue(500) == Stamp(501, 0, NODES[0])


def test_a_clock_that_went_back_too_far_may_not_stamp():
    clock = HybridClock(NODES[0])
    clock.issue(10_000_000)
    with pytest.raises(ClockError, match="gone back by 9000 s"):
        clock.issue(1_000_000)
    assert clock.issue(10_000_000 - DRIFT_MS_MAX) == Stamp(10_000_000, 1, NODES[0])


@given(STAMPS, STAMPS, STAMPS)
def test_stamps_are_totally_ordered(a, b, c):
    assert (a < b) + (b < a) + (a == b) == 1
    assert not (a < b and b < c) or a < c


@given(STAMPS)
def test_a_stamp_survives_the_wire(stamp):
    assert wire.unpack(Stamp, wire.pack(stamp)) == stamp


@pytest.mark.parametrize(
    "array",
    [
        [-1, 0, NODES[0]],
        [2**48, 0, NODES[0]],
        [1, 2**16, NODES[0]],
        [1, 1, "0" * 16],
        [1, 1],
        [True, 0, NODES[0]],
    ],
)
def test_what_is_no_stamp_is_refused(array):
    with pytest.raises(DecodeError):
        wire.from_array(Stamp, array)


# Whose clock is believed.


def heard(now, *aheads_ms):
    time = MeshTime()
    for index, ahead_ms in enumerate(aheads_ms):
        time.heard(now, f"{index:016x}", int(now.wall * 1000) + ahead_ms)
    return time


@given(st.integers(-(10**8), 10**8), st.lists(st.integers(-LEASH_MS, LEASH_MS), min_size=2, max_size=9))
def test_a_clock_that_two_others_contradict_is_put_on_the_leash(skew_ms, others):
    true = Now(50.0, 1.7e9)
    mine = Now(50.0, 1.7e9 + skew_ms / 1000)
    time = heard(true, *others)
    assert abs(time.physical_ms(mine) - 1_700_000_000_000) <= 2 * LEASH_MS + 1


@given(st.lists(st.integers(-1000, 1000), max_size=9))
def test_a_good_clock_is_its_own(others):
    now = Now(50.0, 1.7e9)
    assert heard(now, *others).physical_ms(now) == 1_700_000_000_000


def test_one_peer_alone_does_not_move_a_clock_but_shows_that_it_is_ahead():
    now = Now(50.0, 1.7e9)
    time = heard(now, -3_600_000)
    assert time.physical_ms(now) == 1_700_000_000_000
    assert time.ahead_ms(now) == 3_600_000


def test_a_jump_of_our_own_clock_shows_without_a_further_word():
    time = heard(Now(50.0, 1.7e9), 0, 0, 0)
    assert time.ahead_ms(Now(51.0, 1.7e9 + 86_401)) == 86_400_000


def test_few_voices_are_remembered():
    now = Now(50.0, 1.7e9)
    time = heard(now, *range(VOICES_MAX + 10))
    assert len(time._voices) == VOICES_MAX
