"""The table of records: a maximum per key, whatever the order, and nothing returns from below the floor."""

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import wire
from mesh.errors import DecodeError, LimitError
from mesh.hlc import COUNTER_MAX, Stamp
from mesh.records import (
    FOREVER_MS,
    VALUE_BYTES_MAX,
    Fate,
    Merge,
    Record,
    Row,
    Table,
    epitaph,
)

NODES = tuple(f"{number:016x}" for number in range(1, 4))
KEYS = st.sampled_from([("keys", "a"), ("keys", "b"), ("models", "a")])
STAMPS = st.builds(Stamp, st.integers(1, 12), st.integers(0, 2), st.sampled_from(NODES))


@st.composite
def records(draw, floor_ms=0):
    fate = draw(st.sampled_from(Fate))
    value = draw(st.binary(max_size=3)) if fate is Fate.LIVE else b""
    keep = draw(st.sampled_from((0, 5, 20))) if fate is Fate.REVOKED else 0
    return Record(*draw(KEYS), draw(STAMPS), value, fate, keep)


ROWS = st.lists(records().map(Row.of), max_size=12)
TABLE_ROWS = st.lists(records().map(Row.of), max_size=12)


def table(rows, floor_ms=0):
    made = Table()
    for row in rows:
        made.merge(row)
    made.raise_floor(floor_ms)
    return made


def content(made):
    return sorted(row.blob for row in made.rows())


def write(key, wall, fate=Fate.LIVE, value=b"", keep=0, node=NODES[0]):
    return Row.of(Record("keys", key, Stamp(wall, 0, node), value, fate, keep))


# Merging is a maximum.


@given(ROWS, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_table(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert content(table(rows)) == content(table(shuffled))


@given(ROWS)
def test_what_comes_twice_changes_nothing(rows):
    once = table(rows)
    assert content(table([*rows, *rows])) == content(once)
    assert all(once.merge(row) in (Merge.KNOWN, Merge.OLD) for row in rows)


@given(ROWS, ROWS, ROWS)
def test_merging_tables_is_associative_and_commutative(a, b, c):
    ab = list(table([*a, *b]).rows())
    bc = list(table([*c, *b]).rows())
    assert content(table([*ab, *c])) == content(table([*a, *bc])) == content(table([*c, *b, *a]))


@given(ROWS)
def test_the_rank_of_a_key_never_falls(rows):
    made, ranks = Table(), {}
    for row in rows:
        made.merge(row)
        for held in made.rows():
            assert held.rank >= ranks.get(held.record.key, held.rank)
            ranks[held.record.key] = held.rank


@given(ROWS)
def test_the_last_writer_wins_unless_the_key_is_revoked_for_longer(rows):
    made = table(rows)
    for held in made.rows():
        rivals = [row for row in rows if row.record.key == held.record.key]
        longest_ms = max(row.record.keep_until_ms for row in rivals)
        newest = max(row.record.stamp for row in rivals)
        if held.record.stamp != newest:
            assert held.record.fate is Fate.REVOKED
            assert held.record.keep_until_ms == longest_ms >= newest.wall_ms


# Digests.


@given(ROWS, ROWS)
def test_digests_are_equal_exactly_when_tables_are(a, b):
    one, other = table(a), table(b)
    assert (one.digest() == other.digest()) == (content(one) == content(other))


@given(ROWS, st.integers(0, 15))
def test_the_digest_kept_up_by_changes_is_the_digest_from_scratch(rows, floor_ms):
    kept = table(rows, floor_ms)
    fresh = table(list(kept.rows()))
    assert kept.sums() == fresh.sums()
    assert kept.bytes == fresh.bytes == sum(len(row.blob) for row in kept.rows())
    assert len(kept) == len(fresh) == len(content(kept))


@given(ROWS, st.integers(0, 25))
def test_a_digest_at_a_higher_floor_is_that_of_a_table_which_has_it(rows, floor_ms):
    low = table(rows)
    assert low.digest(floor_ms) == table(rows, floor_ms).digest()
    assert low.sums(floor_ms) == table(rows, floor_ms).sums()


@given(ROWS, st.integers(0, 25))
def test_the_hashes_of_all_buckets_are_the_rows(rows, floor_ms):
    made = table(rows)
    hashes = [hash_ for found in made.hashes(frozenset(range(256)), floor_ms).values() for hash_ in found]
    kept = table(rows, floor_ms)
    assert sorted(hashes) == sorted(row.hash for row in kept.rows())
    assert all(made.by_hash(hash_).hash == hash_ for hash_ in hashes)


# The floor.


@given(ROWS, st.integers(1, 25))
def test_no_tombstone_is_held_below_the_floor_unless_it_must_be_kept(rows, floor_ms):
    kept = table(rows, floor_ms)
    for row in kept.rows():
        assert row.record.is_live or row.effective_ms >= floor_ms
    assert kept.tombstones == sum(not row.record.is_live for row in kept.rows())


@given(ROWS, st.integers(0, 15), ROWS)
def test_what_was_deleted_does_not_return_collected_or_not(before, floor_ms, after):
    made = table(before, floor_ms)
    deleted = {row.record.key: row.record.stamp for row in table(before).rows() if not row.record.is_live}
    for row in after:
        made.merge(row)
        for key, stamp in deleted.items():
            held = made.get(key)
            assert held is None or held.stamp > stamp


@given(st.integers(2, 100), st.integers(1, 100))
def test_a_value_from_below_the_floor_is_refused_and_its_epitaph_ends_it(floor_ms, wall):
    made, stale = table([], floor_ms), table([write("a", wall)])
    offered = next(stale.rows())
    if wall >= floor_ms:
        assert made.merge(offered) is Merge.TAKEN
        return
    assert made.merge(offered) is Merge.BELOW
    assert stale.merge(Row.of(epitaph(("keys", "a"), floor_ms))) is Merge.TAKEN
    assert stale.get(("keys", "a")) is None
    assert stale.digest(floor_ms) == made.digest()


def test_a_value_that_is_held_outlives_any_floor():
    made = table([write("a", 5, value=b"v")], 1000)
    assert made.get(("keys", "a")).value == b"v"
    assert made.merge(write("a", 6, value=b"w")) is Merge.TAKEN


def test_an_epitaph_does_not_touch_what_was_written_above_the_floor():
    made = table([write("a", 1000)])
    assert made.merge(Row.of(epitaph(("keys", "a"), 1000))) is Merge.OLD


def test_a_floor_never_falls():
    made = table([], 100)
    made.raise_floor(50)
    assert made.floor_ms == 100


# Revocations.


def test_a_revoked_key_cannot_be_written_again_while_the_revocation_is_kept():
    made = table([write("a", 5, Fate.REVOKED, keep=500)])
    assert made.merge(write("a", 400)) is Merge.OLD
    made.raise_floor(450)
    assert made.tombstones == 1
    assert made.merge(write("a", 460)) is Merge.OLD
    made.raise_floor(501)
    assert made.tombstones == 0
    assert made.merge(write("a", 460)) is Merge.BELOW


def test_what_is_written_after_a_revocation_has_expired_is_taken():
    made = table([write("a", 5, Fate.REVOKED, keep=500)])
    assert made.merge(write("a", 501)) is Merge.TAKEN


def test_a_revocation_that_has_expired_does_not_hide_a_later_deletion():
    made = table([write("a", 90), write("a", 100, Fate.DELETED), write("a", 50, Fate.REVOKED, keep=70)], 80)
    assert made.merge(write("a", 90)) is Merge.OLD


def test_the_revocation_that_is_kept_longest_wins():
    long, short = write("a", 5, Fate.REVOKED, keep=FOREVER_MS), write("a", 9, Fate.REVOKED, keep=10)
    for order in ([long, short], [short, long]):
        assert table(order).row(("keys", "a")) is long


# Limits.


def test_a_full_table_refuses_newcomers_but_not_news_of_deletions():
    made = Table(rows_max=10)
    for index in range(9):
        made.check_room(write(f"{index}", 5))
        made.merge(write(f"{index}", 5))
    with pytest.raises(LimitError, match="hint:"):
        made.check_room(write("x", 5))
    assert made.merge(write("x", 5)) is Merge.TAKEN
    assert made.merge(write("y", 5)) is Merge.FULL
    made.check_room(write("3", 6, Fate.DELETED))
    assert made.merge(write("3", 6, Fate.DELETED)) is Merge.TAKEN
    assert len(made) == 10


def test_bytes_are_bounded_too():
    made = Table(bytes_max=2000)
    assert made.merge(write("a", 5, value=bytes(1500))) is Merge.TAKEN
    assert made.merge(write("b", 5, value=bytes(1500))) is Merge.FULL
    assert made.merge(write("a", 6, value=bytes(1900))) is Merge.TAKEN
    assert made.bytes <= 2000


@pytest.mark.parametrize(
    "bad",
    [
        {"namespace": "n" * 33},
        {"id": "i" * 129},
        {"value": bytes(VALUE_BYTES_MAX + 1)},
        {"namespace": ""},
        {"id": ""},
        {"value": b"v", "fate": Fate.DELETED},
        {"signature": bytes(129)},
    ],
)
def test_what_is_over_a_limit_cannot_be_written(bad):
    with pytest.raises(LimitError):
        Row.of(attrs.evolve(Record("keys", "a", Stamp(1, 0, NODES[0])), **bad))


# Reading.


def test_scanning_goes_by_id_within_a_namespace_and_passes_over_tombstones():
    rows = [write("b1", 1), write("a", 1), write("b0", 1), write("b2", 1, Fate.DELETED)]
    made = table([*rows, Row.of(Record("models", "b9", Stamp(1, 0, NODES[0])))])
    assert [record.id for record in made.scan("keys")] == ["a", "b0", "b1"]
    assert [record.id for record in made.scan("keys", "b")] == ["b0", "b1"]
    assert made.namespaces() == ("keys", "models")
    assert made.get(("keys", "b2")) is None


# The wire.


@given(records())
def test_a_record_survives_the_wire(record):
    row = Row.of(record)
    assert Row.read(row.blob).record == record
    assert Row.read(row.blob).rank == row.rank


@given(records(), st.binary(max_size=5))
def test_fields_of_a_later_version_are_kept_in_the_bytes(record, later):
    blob = wire.pack([*wire.to_array(record), later])
    row = Row.read(blob)
    assert row.record == record
    assert row.blob == blob


@given(st.binary(max_size=60))
def test_any_bytes_are_a_row_or_refused(data):
    with contextlib.suppress(DecodeError):
        Row.read(data)


@given(st.data(), records())
def test_a_row_with_a_flipped_bit_is_another_row_or_refused(data, record):
    row = Row.of(record)
    at = data.draw(st.integers(0, len(row.blob) * 8 - 1))
    flipped = bytearray(row.blob)
    flipped[at // 8] ^= 1 << at % 8
    try:
        other = Row.read(bytes(flipped))
    except DecodeError:
        return
    assert other.hash != row.hash


def test_the_author_is_who_stamped_it_and_an_epitaph_has_none():
    assert write("a", 5).record.author == NODES[0]
    assert not write("a", 5).record.is_epitaph
    last = epitaph(("keys", "a"), 10)
    assert last.is_epitaph
    assert last.stamp == Stamp(9, COUNTER_MAX, "f" * 16)
