"""Accounts: tenants take turns by tokens, nobody waits for ever, and little is remembered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.engine.accounts import ACCOUNTS_SPARE, Accounts
from tests.node.engine.test_scheduler import Bench

COST = 100


def test_a_newcomer_starts_at_the_clock_and_a_flood_behind_itself():
    accounts = Accounts()
    assert [accounts.enter("flood", COST) for _ in range(4)] == [0, 100, 200, 300]
    assert accounts.enter("other", COST) == 0


def test_an_idle_tenant_saves_nothing():
    accounts = Accounts()
    accounts.enter("busy", COST)
    accounts.served(50)
    assert accounts.enter("late", COST) == 50


def test_the_clock_is_shared_by_the_tenants_at_hand():
    accounts = Accounts()
    accounts.enter("a", COST)
    accounts.enter("b", COST)
    accounts.served(50)
    assert accounts.clock == 25


def test_an_account_is_put_right_when_the_cost_is_known():
    accounts = Accounts()
    for _ in range(2):
        accounts.enter("a", COST)
    accounts.leave("a", COST, actual=10)
    assert accounts.enter("a", COST) == 110


def test_a_tenants_own_order_is_kept_though_much_is_given_back():
    accounts = Accounts()
    starts = [accounts.enter("a", COST) for _ in range(3)]
    for _ in range(2):
        accounts.leave("a", COST, actual=0)
    assert accounts.enter("a", COST) >= starts[-1]


def test_when_nobody_is_left_all_debts_are_forgotten():
    accounts = Accounts()
    accounts.enter("a", COST)
    accounts.leave("a", COST, actual=10_000)
    assert len(accounts) == 0
    assert accounts.enter("a", COST) == accounts.clock


def test_tenants_that_came_once_are_forgotten():
    accounts = Accounts()
    accounts.enter("stays", COST)
    for number in range(1000):
        accounts.enter(f"t{number}", COST)
        accounts.served(2 * COST)
        accounts.leave(f"t{number}", COST, COST)
        assert len(accounts) <= ACCOUNTS_SPARE + 5


@given(st.integers(1, 8), st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_nobody_new_comes_before_a_start_that_the_clock_has_passed(crowd: int, steps: list[int]):
    accounts = Accounts()
    mine = accounts.enter("mine", COST)
    mine = accounts.enter("mine", COST)
    for number in range(crowd):
        accounts.enter(f"crowd {number}", COST)
    for number, tokens in enumerate(steps):
        accounts.served(tokens)
        start = accounts.enter(f"new {number}", COST)
        assert start >= accounts.clock
        accounts.leave(f"new {number}", COST, COST)
    if sum(steps) > (crowd + 2) * mine:
        assert accounts.clock >= mine


def test_one_request_is_not_made_to_wait_for_a_thousand_of_another_tenant():
    bench = Bench(blocks=256, running_max=4)
    flood = [bench.add(prompt=8, want=8, tenant="flood") for _ in range(100)]
    for _ in range(6):
        bench.step()
    one = bench.add(prompt=8, want=8, tenant="one")
    while one.remaining:
        bench.step()
    assert sum(s.remaining == 0 for s in flood) <= 12
    bench.run()
    bench.check_texts()


@settings(max_examples=12)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(4, 16), st.booleans())
def test_tenants_with_work_are_given_equal_shares(tenants: int, skew: int, want: int, reverse: bool):
    """However many requests each has sent, and in what order; skewed sizes count by their tokens."""
    bench = Bench(blocks=64, running_max=2, step_tokens=8)
    names = [f"t{n}" for n in range(tenants)]
    for index, name in enumerate(reversed(names) if reverse else names):
        for _ in range(30 // (index + 1)):
            bench.add(prompt=4, want=want * (1 + index * skew), tenant=name)
    given_to = dict.fromkeys(names, 0)
    while all(any(s.remaining and s.tenant == name for s in bench.sequences) for name in names):
        bench.step()
    for sequence in bench.sequences:
        given_to[sequence.tenant] += sequence.cost
    largest = 4 + want * (1 + (tenants - 1) * skew)
    spread = max(given_to.values()) - min(given_to.values())
    assert spread <= 3 * largest
    bench.run(20_000)


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_lone_stream_gets_its_token_though_another_tenant_has_many(budget: int):
    bench = Bench(blocks=256, step_tokens=budget, running_max=8)
    for _ in range(6):
        bench.add(prompt=1, want=200, tenant="many")
    lone = bench.add(prompt=1, want=100, tenant="lone")
    while any(not s.produced for s in bench.sequences):
        bench.step()
    before = len(lone.produced)
    for _ in range(12):
        bench.step()
    assert len(lone.produced) - before == (6 if budget == 1 else 12)


def test_nobody_starves_under_newcomers_without_end():
    bench = Bench(blocks=64, running_max=1)
    bench.add(prompt=4, want=4, tenant="mine")
    mine = [bench.add(prompt=4, want=4, tenant="mine") for _ in range(3)]
    newcomers = 0
    while mine[-1].remaining:
        bench.add(prompt=4, want=4, tenant=f"new {newcomers}")
        newcomers += 1
        for _ in range(4):
            bench.step()
        assert newcomers < 60, "the last of `mine` is overtaken without end"
    bench.run()
