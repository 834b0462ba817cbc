"""Laws of the home of a prefix, and of a mesh that goes by it."""

import collections
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.affinity import home_of
from mesh.attempt import Attempt, Parameters, Segment
from mesh.forward import Forwarder
from mesh.now import Now
from mesh.route import Candidate, RouteOptions, Wanted
from mesh.router import Router
from sim.prefixes import Trace, run

names = st.lists(st.uuids().map(str), min_size=1, max_size=12, unique=True)
keys = st.binary(min_size=8, max_size=8)


def pool_of(nodes, **figures) -> list[Candidate]:
    return [Candidate(node, **figures) for node in nodes]


@given(names, keys, st.randoms())
def test_every_entry_finds_the_same_home_whatever_the_order_of_its_list(nodes, key, rng) -> None:
    shuffled = rng.sample(nodes, len(nodes))
    assert home_of(key, 100, pool_of(nodes)).node == home_of(key, 100, pool_of(shuffled)).node


@given(names, st.lists(keys, max_size=20))
def test_when_a_worker_goes_only_its_own_keys_move(nodes, some) -> None:
    gone, left = nodes[0], nodes[1:]
    for key in some:
        before = home_of(key, 100, pool_of(nodes)).node
        if before != gone:
            assert home_of(key, 100, pool_of(left)).node == before


def test_keys_spread_evenly_over_equal_workers() -> None:
    rng, pool = random.Random(1), pool_of("abcdefgh")
    counts = collections.Counter(home_of(rng.randbytes(8), 100, pool).node for _ in range(4000))
    assert len(counts) == 8 and all(400 < count < 600 for count in counts.values())


def test_a_prefix_that_everybody_asks_for_overflows_to_its_next_workers_in_order() -> None:
    sent: collections.Counter[str] = collections.Counter()
    first_seen = []
    for _ in range(400):
        pool = [Candidate(n, sent_tokens=100 * sent[n], tokens_per_s=100) for n in "abcdefgh"]
        node = home_of(b"hot", 100, pool).node
        first_seen += [node] if node not in sent else []
        sent[node] += 1
    assert sent[first_seen[0]] <= 1.25 * 400 / 8 + 6
    assert first_seen[0] == home_of(b"hot", 100, pool_of("abcdefgh")).node


@given(keys)
def test_a_worker_sixty_times_slower_is_no_home(key) -> None:
    pool = [Candidate("slow", tokens_per_s=10), *pool_of("abc", tokens_per_s=600)]
    assert home_of(key, 500, pool).node != "slow"


@given(keys, st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(0, 1000))
def test_among_workers_of_one_speed_somebody_always_has_room(key, queues, cost) -> None:
    pool = [Candidate(str(n), queued_tokens=q, tokens_per_s=100) for n, q in enumerate(queues)]
    assert home_of(key, cost, pool) is not None


def test_nobody_is_home_in_an_empty_mesh() -> None:
    assert home_of(b"key", 1, []) is None


def test_the_router_asks_the_home_first_says_so_and_passes_over_who_declined() -> None:
    router = Router(RouteOptions(), random.Random(1))
    pool = tuple(pool_of("abcd"))
    home = home_of(b"key", 100, list(pool))
    choice = router.choose(0.0, pool, Wanted(prefix=b"key", cost_tokens=100))
    assert (choice.chosen.candidate, choice.why) == (home, "home of the prompt's prefix")
    assert sorted(one.candidate.node for one in choice.best) == list("abcd")
    declined = Wanted(declined=(home.node,), prefix=b"key", cost_tokens=100)
    assert router.choose(0.0, pool, declined).chosen.candidate is not home


def test_flights_of_one_conversation_go_to_one_worker_and_after_its_loss_to_the_next_in_order() -> None:
    pool = tuple(pool_of("abcdefgh", tokens_per_s=100))
    forwarder = Forwarder(lambda now, model: pool, random.Random(1))
    history, asked = "".join(random.Random(5).choices("abc ", k=900)), []
    for turn in range(6):
        request = Attempt("m", (Segment("text", history + "more " * 40 * turn),), Parameters(max_tokens=9), 7)
        flight, _ = forwarder.submit(Now(turn, turn), request, None)
        asked.append(forwarder.flights[flight].target)
        forwarder.release(Now(turn, turn), flight)
    assert len(set(asked)) == 1
    flight, _ = forwarder.submit(Now(9.0, 9.0), request, None)
    forwarder.node_lost(Now(9.0, 9.0), asked[0], "gone")
    others = [c for c in pool if c.node != asked[0]]
    prefix = forwarder.flights[flight].prefix
    assert forwarder.flights[flight].target == home_of(prefix, 100, others).node


@pytest.mark.slow
def test_conversations_over_eight_entries_find_their_caches_as_over_one() -> None:
    eight, one = run(Trace()), run(Trace(entries=1))
    assert eight.cached_share >= 0.90
    assert one.cached_share - eight.cached_share <= 0.02
    assert eight.busiest_share < 1.6
    assert run(Trace(replaced=4)).cached_share >= 0.85


def test_fewer_conversations_find_more_of_their_prompts_than_without_homes() -> None:
    trace = Trace(sessions=200, entries=2, systems=1)
    blind = run(trace, RouteOptions(prefix_affinity=False))
    assert run(trace).cached_share > blind.cached_share + 0.15
