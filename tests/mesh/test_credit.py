"""Accusations cost tokens of those who accuse."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.credit import ACCUSERS_MAX, Credit

times = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=80).map(sorted)


@given(times=times, most=st.integers(1, 9), window_s=st.floats(1.0, 60.0))
def test_one_accuser_is_never_believed_more_often_than_the_windows_allow(times, most, window_s):
    credit = Credit(most, window_s)
    taken = sum(credit.accepts(at, ["a"]) for at in times)
    assert taken <= most + most * (times[-1] - times[0]) / window_s + 1e-6


def test_who_was_right_is_paid_back_and_never_more_than_that():
    credit = Credit(2, 1e6)
    for _ in range(5):
        assert credit.accepts(0.0, ["a"])
        credit.repay(0.0, ["a", "never charged"])
    credit.repay(0.0, ["a"])
    assert [credit.accepts(0.0, ["a"]) for _ in range(3)] == [True, True, False]


@given(times=times)
def test_without_a_bound_everything_is_taken(times):
    credit = Credit(0, 10.0)
    assert all(credit.accepts(at, ["a"]) for at in times)


def test_another_accuser_pays_for_one_that_has_nothing_left():
    credit = Credit(1, 10.0)
    assert credit.accepts(0.0, ["broken"])
    assert not credit.accepts(0.0, ["broken"])
    assert credit.accepts(0.0, ["broken", "sound"])
    assert not credit.accepts(0.0, ["sound"]), "the one who could has paid"
    assert credit.accepts(10.0, ["sound"]), "a window refills it"


def test_who_accuses_without_a_name_is_not_charged():
    credit = Credit(1, 10.0)
    assert all(credit.accepts(0.0, []) for _ in range(5))


def test_a_flood_of_names_takes_no_more_memory():
    credit = Credit(1, 10.0)
    for number in range(ACCUSERS_MAX + 50):
        credit.accepts(0.0, [f"{number}"])
    assert len(credit._left) == ACCUSERS_MAX
