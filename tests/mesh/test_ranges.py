"""Comparing tables by ranges: any two tables agree in the end, at a price that follows what differs."""

import random

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec, ranges
from mesh.member import Liveness, merge
from mesh.members import Members
from mesh.messages import Span, SpanKind
from tests.mesh.small_world import account

SPREAD = 2**64 // 4099


def row(index, incarnation=0, liveness=Liveness.ALIVE):
    """An account whose id lies anywhere in the space of ids."""
    plain = account(1)
    node = f"{1 + index * SPREAD % 2**64:016x}"
    return attrs.evolve(
        plain,
        identity=attrs.evolve(plain.identity, node=node, incarnation=incarnation),
        liveness=liveness,
    )


def table(rows):
    members = Members(row(0), random.Random(1), 16_384)
    for one in rows:
        members.apply(one, 0.0)
    return members


def exchange(one, other, salt=0x1234567):
    """Talk until neither has anything to say; returns (spans sent, accounts sent)."""
    spans, sides, sent_spans, sent_rows = (ranges.opening(one),), (other, one), 1, 0
    for depth in range(ranges.DEPTH_MAX + 1):
        here = sides[depth % 2]
        found = ranges.answer(here, spans, salt)
        for account_ in found.rows:
            sides[(depth + 1) % 2].apply(account_, 0.0)
        sent_spans += len(found.spans)
        sent_rows += len(found.rows)
        spans = found.spans
        if not spans:
            return sent_spans, sent_rows
    raise AssertionError("an exchange ends within DEPTH_MAX steps")


def live(members):
    return {one.node: one for one in members.all() if one.is_live}


ROWS = st.lists(st.builds(row, st.integers(1, 300), st.integers(0, 2)), max_size=400)


@settings(max_examples=200)
@given(ROWS, ROWS, st.integers(0, 2**64 - 1))
def test_after_an_exchange_both_tables_are_the_merge_of_both(some, others, salt):
    one, other = table(some), table(others)
    expected = live(one)
    for node, theirs in live(other).items():
        expected[node] = merge(expected[node], theirs) if node in expected else theirs
    exchange(one, other, salt)
    assert live(one) == live(other) == expected
    assert one.digest() == other.digest()


@given(ROWS, st.integers(0, 2**64 - 1))
def test_equal_tables_are_told_apart_by_one_digest(rows, salt):
    assert exchange(table(rows), table(reversed(rows)), salt) == (1, 0)


def test_one_row_of_ten_thousand_costs_a_few_hundred_bytes_of_spans():
    rows = [row(index) for index in range(1, 4000)]
    one, other = table(rows), table([*rows, row(77, incarnation=1)])
    spans, accounts = exchange(one, other)
    assert accounts <= 2
    assert spans <= 1 + 3 * ranges.FANOUT + 3


def test_a_newcomer_is_sent_the_whole_table_once():
    rows = [row(index) for index in range(1, 2000)]
    one, other = table([row(5000)]), table(rows)
    _, accounts = exchange(one, other)
    assert len(live(one)) == len(live(other)) == 2001
    assert accounts == 2000


def test_the_dead_are_not_compared():
    one = table([row(1), row(2, liveness=Liveness.DEAD)])
    other = table([row(1), row(3, liveness=Liveness.LEFT)])
    assert exchange(one, other) == (1, 0)


BOUNDS = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
SPANS = st.builds(Span, BOUNDS, BOUNDS, st.sampled_from(SpanKind), st.binary(max_size=codec.SPAN_BYTES_MAX))


@given(ROWS, st.lists(SPANS, max_size=20), st.integers(0, 2**64 - 1))
def test_any_spans_are_answered_within_what_we_hold(rows, spans, salt):
    members = table(rows)
    found = ranges.answer(members, spans, salt)
    assert len(found.rows) <= members.live, "no range is answered twice"
    assert len(found.spans) <= len(spans) * ranges.FANOUT
    for span in found.spans:
        assert span.low <= span.high
        assert len(codec.item(span)) <= codec.ACCOUNT_BYTES_MAX


def test_overlapping_or_reversed_spans_are_ignored():
    members = table([row(index) for index in range(1, 100)])
    whole = Span(ranges.LOWEST, ranges.HIGHEST, SpanKind.HELD, b"")
    back = Span(ranges.HIGHEST, ranges.LOWEST, SpanKind.HELD, b"")
    assert len(ranges.answer(members, [whole, whole, back], 1).rows) == members.live
