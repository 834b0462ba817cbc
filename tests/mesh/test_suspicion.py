import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity
from mesh.suspicion import Suspicion, suspicion_min_s, suspicion_timeout_s

SUSPECT = Identity("00000000000000ab", 1, 2)


@given(st.floats(0.1, 100), st.floats(1, 10), st.integers(0, 10), st.integers(1, 10))
def test_each_confirmation_shortens_the_wait_within_its_bounds(min_s, factor, confirmations, expected):
    max_s = min_s * factor
    waits = [suspicion_timeout_s(min_s, max_s, count, expected) for count in range(confirmations + 1)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] == pytest.approx(max_s)
    assert all(min_s <= wait <= max_s * (1 + 1e-12) for wait in waits)


def test_the_curve_is_lifeguards():
    """arXiv 1707.00788, section IV-B, K = 3: memberlist's own table for 2 s to 30 s."""
    waits = [suspicion_timeout_s(2, 30, count, 3) for count in range(5)]
    assert waits == pytest.approx([30, 16, 7.8105, 2, 2], abs=1e-3)


def test_where_nobody_could_confirm_the_longest_wait_stands():
    assert suspicion_timeout_s(1, 6, 0, 0) == 6


def test_the_least_wait_grows_with_the_logarithm_of_the_mesh():
    assert suspicion_min_s(2, 0.5, 4) == suspicion_min_s(10, 0.5, 4) == 2.0
    assert suspicion_min_s(100, 0.5, 4) == 4.0
    assert suspicion_min_s(1000, 0.5, 4) == pytest.approx(6.0)


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), max_size=8), st.integers(0, 4))
def test_accusers_merge_as_a_bounded_union(groups, expected):
    case = Suspicion(SUSPECT, 10.0, 1.0, 6.0, expected)
    for group in groups:
        grown = case.confirmed_by(group)
        assert set(case.accusers) <= set(grown.accusers)
        assert grown.deadline_at <= case.deadline_at
        assert grown.confirmed_by(group) == grown
        case = grown
    named = {accuser for group in groups for accuser in group}
    assert len(case.accusers) == len(set(case.accusers)) == min(len(named), expected + 1)


def test_a_pause_of_ours_costs_the_suspect_no_time():
    case = Suspicion(SUSPECT, 10.0, 1.0, 6.0, 3, ("a",))
    assert case.shifted(5.0).deadline_at == case.deadline_at + 5.0
