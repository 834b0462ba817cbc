"""The token bucket: what may be spent, and when."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.budget import Budget


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3000)), max_size=30))
def test_no_more_is_spent_than_was_earned_and_saved(steps):
    budget, now, spent = Budget(1000.0, 500.0), 10.0, 0.0
    for wait_s, wish in steps:
        now += wait_s
        if wish <= budget.left(now):
            budget.spend(now, wish)
            spent += wish
    assert spent <= 500.0 + 1000.0 * (now - 10.0) + 1e-6


def test_a_debt_is_paid_off_in_time_and_never_grows_beyond_the_burst():
    budget = Budget(1000.0, 500.0)
    budget.spend(0.0, 50_000)
    assert budget.left(0.0) == -500.0
    assert budget.left(0.75) == 250.0
    assert budget.left(60.0) == 500.0
