import itertools
import random

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.members import Change, Members

ME = 0xFFFF


def account(index, liveness=Liveness.ALIVE, incarnation=0, generation=0):
    identity = Identity(f"{index:016x}", generation, incarnation)
    return Member(identity, f"n{index}", ("127.0.0.1", 7000), liveness)


def table(members_max=1024, seed=1):
    return Members(account(ME), random.Random(seed), members_max)


ACCOUNTS = st.builds(
    account, st.integers(1, 6), st.sampled_from(Liveness), st.integers(0, 2), st.integers(0, 1)
)


@given(st.lists(ACCOUNTS, max_size=30), st.randoms(use_true_random=False))
def test_tables_that_heard_the_same_in_any_order_are_equal(accounts, shuffler):
    one, other = table(seed=1), table(seed=2)
    shuffled = accounts[:]
    shuffler.shuffle(shuffled)
    for row in accounts:
        one.apply(row, 0.0)
    for row in shuffled:
        other.apply(row, 0.0)
    assert {row.node: row for row in one.all()} == {row.node: row for row in other.all()}
    assert one.digest() == other.digest()
    assert one.live == other.live == sum(row.is_live for row in one.all())


@given(st.lists(ACCOUNTS, max_size=30), st.lists(ACCOUNTS, max_size=30))
def test_equal_digests_mean_equal_live_views(some, others):
    one, other = table(), table()
    for row in some:
        one.apply(row, 0.0)
    for row in others:
        other.apply(row, 0.0)
    views = [{(row.identity, row.liveness) for row in held.all() if row.is_live} for held in (one, other)]
    assert (one.digest() == other.digest()) == (views[0] == views[1])


@given(st.lists(ACCOUNTS, max_size=40))
def test_a_change_is_reported_exactly_when_the_table_changes(accounts):
    held = table()
    for row in accounts:
        before = held.get(row.node)
        change = held.apply(row, 0.0)
        after = held.get(row.node)
        assert change == (Change(before, row) if after != before else None)


@given(st.lists(ACCOUNTS, max_size=40))
def test_the_probe_order_holds_each_live_peer_once(accounts):
    held = table()
    for row in accounts:
        held.apply(row, 0.0)
        held.next_probe()
    live = sorted(row.node for row in held.all() if row.is_live and row.node != account(ME).node)
    if not live:
        assert held.next_probe() is None
        return
    held._cursor = len(held._probe_order())
    assert sorted(held.next_probe().node for _ in live) == live


def test_two_probes_of_one_member_are_at_most_2n_minus_1_apart():
    """SWIM (DSN 2002), section 4.3: time-bounded completeness."""
    held = table()
    for index in range(1, 11):
        held.apply(account(index), 0.0)
    order = [held.next_probe().node for _ in range(1000)]
    for node in set(order):
        at = [index for index, probed in enumerate(order) if probed == node]
        assert max(b - a for a, b in itertools.pairwise(at)) <= 2 * 10 - 1


@given(st.integers(0, 8), st.integers(1, 5), st.integers(0, 5))
def test_comings_and_goings_neither_skip_nor_repeat_a_member_within_a_pass(probed, newcomers, leavers):
    held = table()
    for index in range(1, 9):
        held.apply(account(index), 0.0)
    held._probe_order()
    seen = [held.next_probe().node for _ in range(probed)]
    for index in range(1, leavers + 1):
        held.apply(account(index, Liveness.LEFT), 0.0)
    for index in range(20, 20 + newcomers):
        held.apply(account(index), 0.0)
    while held._cursor < len(held._order):
        seen.append(held.next_probe().node)
    assert len(seen) == len(set(seen))
    assert {f"{index:016x}" for index in range(leavers + 1, 9)} <= set(seen)


def test_facts_and_the_dead_leave_the_digest_alone():
    held = table()
    before = held.digest()
    held.apply(account(1, Liveness.DEAD), 0.0)
    held.apply(account(2, Liveness.LEFT), 0.0)
    assert held.digest() == before
    one, other = table(), table()
    one.apply(account(3), 0.0)
    other.apply(attrs.evolve(account(3), http="x"), 0.0)
    assert one.digest() == other.digest()


def test_a_sample_holds_distinct_living_peers_only():
    held = table()
    for index in range(1, 9):
        held.apply(account(index, Liveness(index % 4)), 0.0)
    living = {f"{4:016x}", f"{8:016x}"}
    for _ in range(20):
        assert {row.node for row in held.sample(5)} == living
        assert {row.node for row in held.sample(5, (f"{4:016x}",))} == {f"{8:016x}"}
    assert len(held.sample(1)) == 1


def test_the_longest_dead_makes_room_and_then_newcomers_are_refused():
    held = table(members_max=4)
    held.apply(account(1), 1.0)
    held.apply(account(2, Liveness.DEAD), 2.0)
    held.apply(account(3, Liveness.LEFT), 1.0)
    held.apply(account(4), 3.0)
    assert held.get(f"{2:016x}") is None, "first gone, first forgotten"
    held.apply(account(5), 4.0)
    assert held.get(f"{3:016x}") is None
    assert held.apply(account(6), 5.0) is None
    assert held.refused == 1
    assert len(held) == 4
    assert held.apply(account(5, incarnation=1), 6.0), "a member that is known may always speak"


def test_the_dead_are_remembered_until_their_time():
    held = table()
    held.apply(account(1), 0.0)
    held.apply(account(1, Liveness.DEAD), 10.0)
    held.apply(account(2, Liveness.LEFT), 20.0)
    assert [row.node for row in held.dead()] == [f"{1:016x}"]
    assert held.forget(10.0) == ()
    assert [row.node for row in held.forget(15.0)] == [f"{1:016x}"]
    assert held.dead() == ()
    assert held.get(f"{2:016x}") is not None
