"""Measured loss, and the patience that follows from it."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.loss import LOOK_ASKS_MAX, ROUND_ASKS_MAX, STRETCH_MAX, LossMeter, asks


@given(st.floats(0.011, 0.95), st.sampled_from([1e-2, 1e-6]))
def test_so_many_asks_are_lost_together_no_more_often_than_stated(share, doubt):
    count = asks(share, doubt, 10_000)
    assert share**count <= doubt * (1 + 1e-9)
    assert count == 1 or share ** (count - 1) > doubt * (1 - 1e-9)


@given(st.lists(st.booleans(), max_size=300))
def test_the_share_stays_a_share_and_patience_within_its_bounds(samples):
    meter = LossMeter()
    for lost in samples:
        meter.sample(lost)
        assert 0.0 <= meter.share <= 1.0
        assert 1 <= meter.round_asks <= ROUND_ASKS_MAX
        assert 3 <= meter.look_asks <= LOOK_ASKS_MAX
        assert 1.0 <= meter.stretch <= STRETCH_MAX


def test_half_of_all_packets_lost_is_three_quarters_of_all_pings_and_soon_known():
    meter = LossMeter()
    for turn in range(40):
        meter.sample(turn % 4 != 0)
    assert 0.65 < meter.share < 0.85
    assert meter.round_asks >= 11
    assert meter.look_asks == LOOK_ASKS_MAX or meter.look_asks > 30


def test_where_nothing_is_lost_nothing_is_stretched():
    meter = LossMeter()
    for _ in range(50):
        meter.sample(False)
    assert (meter.round_asks, meter.look_asks, meter.stretch) == (1, 3, 1.0)


def test_who_is_deaf_is_told_from_who_loses_much():
    meter = LossMeter()
    for _ in range(2):
        meter.sample(True)
    assert not meter.is_deaf
    meter.sample(True)
    assert meter.is_deaf, "nothing was lost before"
    meter.echoed()
    assert not meter.is_deaf
    lossy = LossMeter()
    for turn in range(40):
        lossy.sample(turn % 4 != 0)
    for _ in range(6):
        lossy.sample(True)
    assert not lossy.is_deaf, "three of four were lost all the time"
    for _ in range(12):
        lossy.sample(True)
    assert lossy.is_deaf
