import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.load import AGE_MS_MAX, LoadRecord, LoadTable, ModelLoad
from mesh.now import Now

NODE = "00000000000000ab"


def at(mono):
    return Now(mono, 0.0)


RECORDS = st.builds(LoadRecord, st.just(NODE), st.integers(0, 2), st.integers(0, 4), zone=st.text(max_size=2))


@given(st.lists(RECORDS, min_size=1, max_size=12))
def test_the_newest_version_is_kept_whatever_the_order(records):
    table = LoadTable()
    for record in records:
        before = table.get(at(0), NODE)
        news = table.observe(at(0), record)
        assert news == (before is None or record.version > before.version)
    assert table.get(at(0), NODE).version == max(record.version for record in records)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_age_grows_at_every_hop_and_is_never_less_than_the_truth(holds):
    """Each hop has its own clock, holds the record for a while and passes it on."""
    record, truth_ms = LoadRecord(NODE, 1, 1), 0.0
    for index, hold_s in enumerate(holds):
        table, clock = LoadTable(), 1000.0 * index
        table.observe(at(clock), record)
        record = table.get(at(clock + hold_s), NODE)
        truth_ms += hold_s * 1000
        assert truth_ms - 1e-3 <= record.age_ms <= truth_ms + index + 1.001


def test_age_stops_at_what_the_wire_can_say():
    table = LoadTable()
    table.observe(at(0), LoadRecord(NODE, age_ms=AGE_MS_MAX))
    assert table.get(at(5), NODE).age_ms == AGE_MS_MAX


def test_the_owner_numbers_its_records_within_each_life():
    table = LoadTable()
    assert [table.publish(at(0), LoadRecord(NODE, 1)).sequence for _ in range(3)] == [1, 2, 3]
    assert table.publish(at(0), LoadRecord(NODE, 2)).version == (2, 1)
    assert table.publish(at(9), LoadRecord(NODE, 2, age_ms=77)).age_ms == 0


def test_a_packet_takes_records_within_its_budget_those_sent_least_first():
    table = LoadTable()
    for index in range(1, 6):
        table.observe(at(index), LoadRecord(f"{index:016x}", models=(ModelLoad("tiny"),)))
    size = len(codec.item(table.get(at(9), f"{1:016x}")))
    first = table.fill(at(9), 1000, 2 * size, 3, codec.item)
    second = table.fill(at(9), 1000, 2 * size, 3, codec.item)
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)
    assert sum(map(len, first)) <= 2 * size


def test_a_record_is_sent_so_often_and_a_newer_one_anew():
    table = LoadTable()
    table.observe(at(0), LoadRecord(NODE, 1, 1))
    assert [len(table.fill(at(0), 500, 500, 2, codec.item)) for _ in range(4)] == [1, 1, 0, 0]
    table.observe(at(0), LoadRecord(NODE, 1, 2))
    assert len(table.fill(at(0), 500, 500, 2, codec.item)) == 1


def test_a_record_over_the_budget_still_goes_where_there_is_room():
    table = LoadTable()
    table.observe(at(0), LoadRecord(NODE, 1, 1, models=(ModelLoad("tiny"),) * 5))
    table.observe(at(1), LoadRecord("00000000000000cd", 1, 1, models=(ModelLoad("tiny"),) * 5))
    assert table.fill(at(2), 20, 10, 2, codec.item) == []
    assert len(table.fill(at(2), 1000, 10, 2, codec.item)) == 1


def test_what_rides_on_a_packet_carries_its_age():
    table = LoadTable()
    table.observe(at(0), LoadRecord(NODE, 1, 1, age_ms=100))
    (item,) = table.fill(at(0.5), 500, 500, 2, lambda record: str(record.age_ms).encode())
    assert item == b"600"


def test_the_gone_are_forgotten():
    table = LoadTable()
    table.observe(at(0), LoadRecord(NODE))
    table.forget(NODE)
    table.forget(NODE)
    assert table.get(at(0), NODE) is None
    assert len(table) == 0


def test_records_are_values():
    record = LoadRecord(NODE)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.sequence = 2
