"""Laws of the choice of a worker."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.route import Candidate, RouteOptions, Wanted, choose, expected_wait_s

candidates = st.lists(
    st.builds(
        Candidate,
        node=st.uuids().map(str),
        digest=st.sampled_from(["d", "e"]),
        policy=st.sampled_from(["p", "q"]),
        queued_tokens=st.integers(0, 10_000),
        tokens_per_s=st.floats(0, 1000),
        age_s=st.floats(0, 10),
        sent_tokens=st.integers(0, 1000),
    ),
    max_size=8,
).map(tuple)


@given(candidates, st.sampled_from(["", "d"]), st.integers(0, 99))
def test_whoever_is_chosen_qualifies_and_somebody_is_if_anybody_does(pool, digest, seed) -> None:
    declined = tuple(c.node for c in pool[::2])
    able = [c for c in pool if c.node not in declined and (not digest or c.digest == digest)]
    chosen = choose(pool, Wanted(digest, declined=declined), random.Random(seed))
    assert chosen in able if able else chosen is None


@given(candidates, st.integers(0, 99))
def test_an_equal_policy_is_preferred_to_any_wait(pool, seed) -> None:
    chosen = choose(pool, Wanted(policy="p"), random.Random(seed))
    if any(c.policy == "p" for c in pool):
        assert chosen.policy == "p"


def test_work_is_measured_in_seconds_not_requests() -> None:
    slow = Candidate("slow", queued_tokens=100, tokens_per_s=10)
    fast = Candidate("fast", queued_tokens=1000, tokens_per_s=1000)
    assert expected_wait_s(fast) < expected_wait_s(slow)
    assert {choose((slow, fast), Wanted(), random.Random(s)).node for s in range(20)} == {"fast"}


def test_nearly_equal_waits_are_decided_by_chance() -> None:
    pool = tuple(Candidate(n, queued_tokens=1000, tokens_per_s=100) for n in "ab")
    assert {choose(pool, Wanted(), random.Random(s)).node for s in range(20)} == {"a", "b"}


def test_stale_figures_are_not_believed() -> None:
    age = RouteOptions().fresh_s + 1
    pool = (Candidate("idle", age_s=age), Candidate("busy", queued_tokens=9999, tokens_per_s=1, age_s=age))
    assert {choose(pool, Wanted(), random.Random(s)).node for s in range(20)} == {"idle", "busy"}


def test_the_nearest_of_equals_is_this_node_itself() -> None:
    pool = (Candidate("far"), Candidate("here", local=True))
    assert {choose(pool, Wanted(), random.Random(s)).node for s in range(20)} == {"here"}
