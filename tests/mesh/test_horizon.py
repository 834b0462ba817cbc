"""Who may claim: never two sides of a cut, never a newcomer, never with a bad clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.hlc import DRIFT_MS_MAX
from mesh.horizon import Horizon, HorizonOptions

HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
LATER_S = 2 * 86_400.0
NODES = [f"{number:016x}" for number in range(1, 9)]
OPTIONS = HorizonOptions(horizon_s=86_400.0, epoch_s=3600.0)


def horizon(me=0, present=(), gone=(), founded_ms=1):
    made = Horizon(NODES[me], OPTIONS)
    made.saw(founded_ms)
    made.claim_ms(0, 0, 0.0)
    for index in present:
        made.came(NODES[index], 0.0)
    for index in gone:
        made.went(NODES[index], 0.0, for_good=False)
    return made


@given(st.integers(2, 8), st.data())
def test_of_all_sides_of_a_cut_at_most_one_has_the_majority(count, data):
    sides = [data.draw(st.integers(0, 2)) for _ in range(count)]
    winners = set()
    for me in range(count):
        here = [other for other in range(count) if other != me and sides[other] == sides[me]]
        gone = [other for other in range(count) if sides[other] != sides[me]]
        if horizon(me, here, gone).has_majority:
            winners.add(sides[me])
    assert len(winners) <= 1


@given(st.integers(2, 8), st.data())
def test_of_two_sides_exactly_one_has_the_majority(count, data):
    sides = [data.draw(st.booleans()) for _ in range(count)]
    has = {
        sides[me]: horizon(
            me,
            [other for other in range(count) if other != me and sides[other] == sides[me]],
            [other for other in range(count) if sides[other] != sides[me]],
        ).has_majority
        for me in range(count)
    }
    assert list(has.values()).count(True) == 1


def test_the_gone_are_forgotten_after_the_horizon_by_the_majority_only():
    many, few = horizon(0, (1, 2), (3, 4)), horizon(3, (4,), (0, 1, 2))
    for each in (many, few):
        each.expire(2 * 86_400.0)
    assert many.has_majority
    many.went(NODES[2], 2 * 86_400.0, for_good=False)
    assert many.has_majority
    assert not few.has_majority
    few.expire(1e9)
    assert not few.has_majority


def test_who_left_for_good_is_not_waited_for():
    made = horizon(0, (), (1, 2, 3))
    assert not made.has_majority
    for index in (1, 2, 3):
        made.went(NODES[index], 5.0, for_good=True)
    assert made.has_majority
    assert made.is_alone


@given(st.integers(-3 * DRIFT_MS_MAX, 3 * DRIFT_MS_MAX))
def test_a_claim_lies_a_horizon_before_both_clocks_or_is_none(skew_ms):
    claim = horizon().claim_ms(NOW_MS, NOW_MS + skew_ms, LATER_S)
    if abs(skew_ms) > DRIFT_MS_MAX:
        assert claim == 0
    else:
        oldest = min(NOW_MS, NOW_MS + skew_ms) - 24 * HOUR_MS
        assert oldest - HOUR_MS < claim <= oldest
        assert claim % HOUR_MS == 0


def test_nothing_is_claimed_before_there_was_anything_or_without_a_majority():
    assert horizon(founded_ms=0).claim_ms(NOW_MS, NOW_MS, LATER_S) == 0
    assert horizon(founded_ms=NOW_MS - HOUR_MS).claim_ms(NOW_MS, NOW_MS, LATER_S) == 0
    assert horizon(3, (), (0, 1)).claim_ms(NOW_MS, NOW_MS, LATER_S) == 0
    assert horizon().claim_ms(NOW_MS, NOW_MS, LATER_S) > 0


def test_a_majority_claims_only_after_it_has_lasted_for_a_horizon():
    made = horizon(0, (1, 2))
    assert made.claim_ms(NOW_MS, NOW_MS, 86_399.0) == 0
    assert made.claim_ms(NOW_MS, NOW_MS, 86_400.0) > 0
    for index in (1, 2):
        made.went(NODES[index], 90_000.0, for_good=False)
    made.came(NODES[1], 100_000.0)
    assert made.claim_ms(NOW_MS, NOW_MS, 100_001.0) == 0
    assert made.claim_ms(NOW_MS, NOW_MS, 100_000.0 + 86_400.0) > 0


@given(st.integers(0, 2 * NOW_MS))
def test_a_floor_is_sane_a_horizon_ago_give_or_take_a_clock(floor_ms):
    sane = horizon().is_sane(floor_ms, NOW_MS)
    assert sane == (floor_ms <= NOW_MS - 24 * HOUR_MS + DRIFT_MS_MAX)


def test_the_beginning_is_the_least_stamp_until_a_floor_is_taken():
    made = horizon(founded_ms=50)
    made.saw(70)
    made.met(0, 0, 30)
    assert made.founded_ms == 30
    made.met(0, 500, 40)
    assert made.founded_ms == 40
    made.met(500, 600, 10)
    assert made.founded_ms == 40


def test_tables_are_foreign_only_if_both_have_floors_and_began_apart():
    made = horizon(founded_ms=50)
    assert made.is_foreign(100, 200, 60)
    assert not made.is_foreign(100, 200, 50)
    assert not made.is_foreign(0, 200, 60)
    assert not made.is_foreign(100, 0, 60)


def test_a_horizon_shorter_than_clocks_differ_is_refused():
    with pytest.raises(ValueError, match="horizon_s"):
        HorizonOptions(horizon_s=60.0)
