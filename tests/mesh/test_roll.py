"""A table on a shared roll is the same table as one of its own, whatever comes and goes."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity
from mesh.member import Liveness, Member, supersedes
from mesh.members import Members
from mesh.roll import NOBODY, Roll, fingerprint

ME = 5


def account(index, liveness=Liveness.ALIVE, incarnation=0):
    return Member(Identity(f"{index:016x}", 1, incarnation), f"n{index}", ("127.0.0.1", 7000), liveness)


ACCOUNTS = st.builds(account, st.integers(1, 12), st.sampled_from(Liveness), st.integers(0, 3))
STEPS = st.lists(st.one_of(ACCOUNTS, st.integers(0, 60)), max_size=40)


class Plain:
    """The table as a plain dictionary, which is easy to believe."""

    def __init__(self, me, known):
        self.rows = {row.node: row for row in known}
        self.rows[me.node] = me
        self.gone_at = {row.node: 0.0 for row in known if not row.is_live and row.node != me.node}

    def apply(self, row, now_s):
        before = self.rows.get(row.node)
        if before is not None and not supersedes(row, before):
            return
        if row.is_live:
            self.gone_at.pop(row.node, None)
        elif before is None or before.is_live:
            self.gone_at[row.node] = now_s
        self.rows[row.node] = row

    def forget(self, before_s):
        for node, at in [*self.gone_at.items()]:
            if at < before_s and node != account(ME).node:
                del self.rows[node], self.gone_at[node]

    def live(self):
        return sorted(node for node, row in self.rows.items() if row.is_live)


def agree(held, plain):
    live = plain.live()
    assert {row.node: row for row in held.all()} == plain.rows
    assert len(held) == len(plain.rows) == len(held.all())
    assert held.live == len(live)
    assert [held.ranked(rank).node for rank in range(held.live)] == live
    if account(ME).node in live:
        assert live[held.rank] == account(ME).node
    assert held.digest() == Roll.of(plain.rows.values()).digest.to_bytes(8, "big")
    for low, high in ((0, 20), (3, 7), (6, 6)):
        ends = f"{low:016x}", f"{high:016x}"
        within = [node for node in live if ends[0] <= node <= ends[1]]
        assert held.between(*ends) == (within, [fingerprint(plain.rows[node]) for node in within])
    assert {row.node for row in held.dead()} == {
        node for node in plain.gone_at if plain.rows[node].liveness is Liveness.DEAD
    }


@given(st.lists(ACCOUNTS, max_size=12), STEPS, st.integers(0, 12))
def test_a_table_on_a_roll_is_the_plain_table(known, steps, differences):
    """`differences` is how many the table bears before it makes a roll of its own."""
    known = [*{row.node: row for row in known}.values()]
    me = account(ME, incarnation=4)
    held = Members(me, random.Random(1), known=Roll.of(known), differences_max=differences)
    plain = Plain(me, known)
    agree(held, plain)
    for at, step in enumerate(steps):
        if isinstance(step, Member):
            held.apply(step, float(at))
            plain.apply(step, float(at))
        else:
            held.forget(float(step))
            plain.forget(float(step))
        agree(held, plain)


@given(STEPS)
def test_what_one_table_does_changes_no_other_on_the_same_roll(steps):
    roll = Roll.of([account(index) for index in range(1, 9)])
    one, other = (
        Members(account(1), random.Random(1), known=roll),
        Members(account(2), random.Random(2), known=roll),
    )
    before = other.all(), other.digest(), other.between("0" * 16, "f" * 16)
    for step in steps:
        if isinstance(step, Member):
            one.apply(step, 1.0)
        else:
            one.forget(2.0)
    assert (other.all(), other.digest(), other.between("0" * 16, "f" * 16)) == before


def test_the_first_heard_come_first():
    held = Members(account(9), random.Random(1), known=Roll.of([account(3), account(1)]))
    held.apply(account(7), 0.0)
    held.apply(account(3, Liveness.SUSPECT), 0.0)
    assert [row.name for row in held.all()] == ["n3", "n1", "n9", "n7"]


def test_nobody_is_on_the_empty_roll():
    assert len(NOBODY) == 0
    assert NOBODY.digest == 0


@given(st.integers(0, 2**32))
def test_a_sample_of_a_large_table_is_even(seed):
    roll = Roll.of(
        [account(index, Liveness.SUSPECT if index % 10 == 0 else Liveness.ALIVE) for index in range(1, 101)]
    )
    held = Members(account(1), random.Random(seed), known=roll)
    banned = tuple(f"{index:016x}" for index in range(50, 80))
    drawn = [row for _ in range(30) for row in held.sample(3, banned)]
    assert all(row.liveness is Liveness.ALIVE and row.node not in (account(1).node, *banned) for row in drawn)
    assert len(drawn) == 90
    assert len({row.node for row in drawn}) > 30


def test_a_sample_finds_the_few_that_may_be_drawn_in_a_large_table():
    roll = Roll.of(
        [account(index, Liveness.SUSPECT if index > 3 else Liveness.ALIVE) for index in range(1, 201)]
    )
    held = Members(account(1), random.Random(1), known=roll)
    assert {row.name for row in held.sample(5)} == {"n2", "n3"}
