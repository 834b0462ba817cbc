"""Laws of the choice of a worker."""

import collections
import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.route import Candidate, Policy, RouteOptions, Wanted, expected_wait_s
from mesh.router import SHOWN_MAX, WORKERS_MAX, Router

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


policies = st.sampled_from(list(Policy))


def choose(pool, wanted: Wanted, rng: random.Random, **options) -> Candidate | None:
    """Choose once, by a router that remembers nothing."""
    chosen = Router(RouteOptions(**options), rng).choose(0.0, tuple(pool), wanted).chosen
    return chosen and chosen.candidate


def asked(router: Router, pool, times: int) -> collections.Counter[str]:
    """Count who is asked of a pool that never changes."""
    return collections.Counter(
        router.choose(0.0, tuple(pool), Wanted()).chosen.candidate.node for _ in range(times)
    )


@given(candidates, st.sampled_from(["", "d"]), st.integers(0, 99), policies)
def test_whoever_is_chosen_qualifies_and_somebody_is_if_anybody_does(pool, digest, seed, policy) -> None:
    declined = tuple(c.node for c in pool[::2])
    able = [c for c in pool if c.node not in declined and (not digest or c.digest == digest)]
    chosen = choose(pool, Wanted(digest, declined=declined), random.Random(seed), policy=policy)
    assert chosen in able if able else chosen is None


@given(candidates, st.integers(0, 99), policies)
def test_an_equal_numerical_policy_is_preferred_to_any_score(pool, seed, policy) -> None:
    chosen = choose(pool, Wanted(policy="p"), random.Random(seed), policy=policy)
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


@given(candidates, st.integers(0, 99), policies)
def test_a_choice_lists_its_candidates_in_order_and_the_chosen_one_first(pool, seed, policy) -> None:
    choice = Router(RouteOptions(policy=policy), random.Random(seed)).choose(0.0, pool, Wanted())
    scores = [one.score for one in choice.best]
    assert scores == sorted(scores)
    assert choice.known == len(pool) and len(choice.best) <= min(SHOWN_MAX, choice.able)
    assert choice.chosen is (choice.best[0] if choice.best else None)


def test_turns_go_round_exactly() -> None:
    router = Router(RouteOptions(policy=Policy.ROUND_ROBIN), random.Random(1))
    assert set(
        asked(router, [Candidate(n, queued_tokens=900 * (n == "a")) for n in "abc"], 300).values()
    ) == {100}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 99))
def test_weighted_turns_are_in_proportion_to_speed_within_one_at_any_time(speeds, seed) -> None:
    pool = [Candidate(str(n), tokens_per_s=speed) for n, speed in enumerate(speeds)]
    router = Router(RouteOptions(policy=Policy.WEIGHTED), random.Random(seed))
    times = 50
    counts = asked(router, pool, times)
    for n, speed in enumerate(speeds):
        assert abs(counts[str(n)] - times * speed / sum(speeds)) <= len(speeds)


def test_fewest_flights_are_counted_here_and_there() -> None:
    told = Candidate("told", running=5)
    mine = Candidate("mine", running=1, sent_flights=6)
    old = Candidate("old", running=50, age_s=99)
    options = {"policy": Policy.LEAST_CONNECTIONS}
    assert choose((told, mine), Wanted(), random.Random(1), **options) is told
    assert choose((told, mine, old), Wanted(), random.Random(1), **options) is old


def test_two_choices_never_ask_the_worst_of_three_and_do_not_always_ask_the_best() -> None:
    pool = [Candidate(n, queued_tokens=q, tokens_per_s=10) for n, q in (("a", 0), ("b", 500), ("c", 9000))]
    counts = asked(Router(RouteOptions(policy=Policy.TWO_CHOICES), random.Random(2)), pool, 300)
    assert counts["c"] == 0 and 70 < counts["b"] < 130


def test_a_slow_first_token_costs_a_worker_its_share_until_it_is_forgotten() -> None:
    router = Router(RouteOptions(policy=Policy.LATENCY), random.Random(1))
    pool = (Candidate("slow"), Candidate("quick"))
    router.first_token(0.0, "slow", 1.0)
    router.first_token(0.0, "quick", 0.1)
    assert asked(router, pool, 20) == {"quick": 20}
    router.first_token(60.0, "quick", 0.1)
    assert router.choose(60.0, pool, Wanted()).chosen.candidate.node == "slow"


def test_the_own_zone_comes_first_while_it_has_room() -> None:
    options = {"policy": Policy.ZONE_FIRST, "zone": "z"}
    near, full = (Candidate("near", zone="z", queued_tokens=q, tokens_per_s=100) for q in (50, 5000))
    far = Candidate("far", zone="y")
    assert choose((near, far), Wanted(), random.Random(1), **options) is near
    assert choose((full, far), Wanted(), random.Random(1), **options) is far


def test_what_is_remembered_of_workers_is_bounded() -> None:
    router = Router(RouteOptions(), random.Random(1))
    for number in range(WORKERS_MAX + 10):
        router.first_token(0.0, str(number), 1.0)
    assert len(router._latencies_s) == WORKERS_MAX
