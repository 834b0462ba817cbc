"""Laws of the lattice: whatever order rumours arrive in, all end with the same account."""

import itertools

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity
from mesh.member import Liveness, Member, merge, supersedes

NODE = "00000000000000ab"
ACCOUNTS = st.builds(
    Member,
    identity=st.builds(Identity, st.just(NODE), st.integers(0, 2), st.integers(0, 2)),
    name=st.just("n"),
    address=st.just(("127.0.0.1", 7946)),
    liveness=st.sampled_from(Liveness),
    http=st.sampled_from(["", "a", "b"]),
    draining=st.booleans(),
    models=st.sampled_from([(), ("m",)]),
)


def at(incarnation, liveness, generation=0):
    return Member(Identity(NODE, generation, incarnation), "n", ("127.0.0.1", 7946), liveness)


@given(ACCOUNTS)
def test_merging_is_idempotent(account):
    assert merge(account, account) == account
    assert not supersedes(account, account)


@given(ACCOUNTS, ACCOUNTS)
def test_merging_is_commutative(one, other):
    assert merge(one, other) == merge(other, one)


@given(ACCOUNTS, ACCOUNTS, ACCOUNTS)
def test_merging_is_associative(one, other, third):
    assert merge(merge(one, other), third) == merge(one, merge(other, third))


@given(ACCOUNTS, ACCOUNTS)
def test_merging_never_goes_down(one, other):
    merged = merge(one, other)
    assert merged in (one, other)
    assert not supersedes(one, merged)
    assert not supersedes(other, merged)


@given(st.lists(ACCOUNTS, min_size=1, max_size=4))
def test_any_order_of_arrival_ends_alike(accounts):
    ends = []
    for order in itertools.permutations(accounts):
        held = order[0]
        for account in order[1:]:
            held = merge(held, account)
        ends.append(held)
    assert all(end == ends[0] for end in ends)


def test_precedence_is_swims_table():
    """SWIM (DSN 2002), section 4.2, with the dead revived by a higher incarnation."""
    for i, j in itertools.product(range(3), repeat=2):
        for liveness in Liveness:
            assert supersedes(at(i, Liveness.ALIVE), at(j, liveness)) == (i > j)
        assert supersedes(at(i, Liveness.SUSPECT), at(j, Liveness.ALIVE)) == (i >= j)
        assert supersedes(at(i, Liveness.SUSPECT), at(j, Liveness.SUSPECT)) == (i > j)
        for doubted in (Liveness.ALIVE, Liveness.SUSPECT):
            assert supersedes(at(i, Liveness.DEAD), at(j, doubted)) == (i >= j)
            assert supersedes(at(i, Liveness.LEFT), at(j, doubted)) == (i >= j)
        assert supersedes(at(i, Liveness.SUSPECT), at(j, Liveness.DEAD)) == (i > j)


@given(ACCOUNTS, ACCOUNTS)
def test_a_new_life_always_wins(one, other):
    newer = attrs.evolve(one, identity=attrs.evolve(one.identity, generation=other.identity.generation + 1))
    assert supersedes(newer, other)
