from hypothesis import given
from hypothesis import strategies as st

from mesh.gossip import Broadcasts, Rank, sends_max


def test_the_limit_grows_with_the_logarithm_of_the_mesh():
    assert [sends_max(count, 3) for count in (0, 1, 5, 32, 128, 1000)] == [1, 3, 6, 11, 15, 21]


def test_a_rumour_is_sent_so_often_and_then_forgotten():
    queue = Broadcasts()
    queue.offer("a", b"rumour")
    assert [queue.fill(100, 3) for _ in range(5)] == [[b"rumour"]] * 3 + [[]] * 2
    assert len(queue) == 0


@given(often=st.integers(1, 9), most=st.integers(1, 9), hurried=st.one_of(st.none(), st.integers(1, 9)))
def test_a_rumour_with_a_bound_of_its_own_is_sent_no_more_often(often, most, hurried):
    queue = Broadcasts()
    queue.offer("a", b"rumour", Rank.DOUBT, most=most)
    sent = sum(len(queue.fill(100, often, hurried)) for _ in range(20))
    assert sent == min(often, most)


def test_a_newer_rumour_about_a_member_replaces_the_older_and_starts_anew():
    queue = Broadcasts()
    queue.offer("a", b"old")
    queue.fill(100, 3)
    queue.offer("a", b"new")
    assert [queue.fill(100, 3) for _ in range(4)] == [[b"new"]] * 3 + [[]]


def test_those_sent_least_go_first_and_of_those_the_newest():
    queue = Broadcasts()
    queue.offer("a", b"aa")
    queue.offer("b", b"bb")
    assert queue.fill(2, 9) == [b"bb"]
    assert queue.fill(2, 9) == [b"aa"]
    queue.offer("c", b"cc")
    assert queue.fill(4, 9) == [b"cc", b"bb"]


def test_a_thousand_joins_do_not_hold_back_a_doubt_nor_its_refutation():
    queue = Broadcasts()
    queue.offer("suspect", b"doubt", Rank.DOUBT)
    queue.offer("accused", b"alive", Rank.LIFE)
    for index in range(1000):
        queue.offer(str(index), b"join!", Rank.NEWS)
    for _ in range(3):
        assert queue.fill(15, 3)[:2] == [b"alive", b"doubt"]
    assert queue.fill(15, 3) == [b"join!"] * 3


def test_in_a_hurry_life_is_told_more_briefly_than_doubt():
    queue = Broadcasts()
    queue.offer("a", b"doubt", Rank.DOUBT)
    queue.offer("b", b"news", Rank.NEWS)
    assert [queue.fill(100, 3, 1) for _ in range(4)] == [[b"doubt", b"news"], [b"doubt"], [b"doubt"], []]


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 300), st.integers(1, 6))
def test_no_packet_is_overfilled_and_no_rumour_sent_too_often(sizes, budget, limit):
    queue = Broadcasts()
    for index, size in enumerate(sizes):
        queue.offer(str(index), bytes([index]) * size)
    sent = []
    for _ in range(200):
        items = queue.fill(budget, limit)
        assert sum(map(len, items)) <= budget
        sent += items
    fitting = [bytes([index]) * size for index, size in enumerate(sizes) if size <= budget]
    assert sorted(sent) == sorted(fitting * limit)
    assert len(queue) == len(sizes) - len(fitting)
