"""Packets of records: round trips, totality, growth, golden bytes, and the page that describes them."""

import contextlib
import pathlib

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec, records_wire, wire
from mesh.errors import DecodeError, LimitError
from mesh.hlc import Stamp
from mesh.records import BUCKETS, Fate, Record, Row
from mesh.records_wire import (
    Bucket,
    Claim,
    RecordDigest,
    RecordHashes,
    RecordNews,
    RecordRows,
    RecordSums,
)

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference" / "wire-records.md"
WALLS = st.integers(0, 2**48 - 1)
CLAIMS = st.builds(Claim, st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}"), WALLS, WALLS, WALLS)
HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=5).map(records_wire.joined)
BLOBS = st.lists(st.binary(max_size=40), max_size=5).map(tuple)
MESSAGES = st.one_of(
    st.builds(RecordDigest, CLAIMS, st.binary(min_size=8, max_size=8)),
    st.builds(RecordSums, CLAIMS, WALLS, st.binary(min_size=BUCKETS * 8, max_size=BUCKETS * 8)),
    st.builds(
        RecordHashes,
        CLAIMS,
        WALLS,
        st.lists(st.builds(Bucket, st.integers(0, BUCKETS - 1), HASHES), max_size=4).map(tuple),
    ),
    st.builds(RecordRows, CLAIMS, BLOBS, HASHES, st.booleans()),
    st.builds(RecordNews, CLAIMS, BLOBS),
)

CLAIM = Claim("00000000000000ab", 1_700_000_000_123, 1_699_394_400_000, 1_690_000_000_000)
STAMP = Stamp(1_700_000_000_000, 3, "00000000000000ab")
LIVE = Row.of(Record("keys", "k1", STAMP, b"v")).blob
REVOKED = Row.of(Record("keys", "k2", STAMP, b"", Fate.REVOKED, 1_800_000_000_000)).blob
EXAMPLES = {
    "record-digest": RecordDigest(CLAIM, bytes(range(8))),
    "record-hashes": RecordHashes(CLAIM, 1_699_394_400_000, (Bucket(7, bytes(range(16))), Bucket(200, b""))),
    "record-rows": RecordRows(CLAIM, (LIVE, REVOKED), bytes(8), True),
    "record-news": RecordNews(CLAIM, (LIVE,)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_of_an_example_stay_what_they_were(name, golden_bytes):
    golden_bytes(f"{name}.hex", records_wire.encode(EXAMPLES[name]))


@given(MESSAGES)
def test_a_message_survives_the_wire(message):
    data = records_wire.encode(message)
    assert records_wire.decode(data) == message
    assert records_wire.is_of_records(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data):
    for packet in (data, b"\x01\x00" + bytes((64 + len(data) % 5,)) + len(data).to_bytes(2, "big") + data):
        with contextlib.suppress(DecodeError):
            records_wire.decode(packet)


@given(MESSAGES, st.data())
def test_a_flipped_bit_is_another_message_or_refused(message, data):
    packet = bytearray(records_wire.encode(message))
    at = data.draw(st.integers(0, len(packet) * 8 - 1))
    packet[at // 8] ^= 1 << at % 8
    with contextlib.suppress(DecodeError):
        assert records_wire.decode(bytes(packet)) != message


@given(MESSAGES, st.data())
def test_a_packet_cut_short_is_refused(message, data):
    packet = records_wire.encode(message)
    with pytest.raises(DecodeError):
        records_wire.decode(packet[: data.draw(st.integers(0, len(packet) - 1))])


@given(MESSAGES)
def test_elements_of_a_later_version_are_ignored(message):
    packet = records_wire.encode(message)
    payload = msgpack.packb([*msgpack.unpackb(packet[5:]), "later", 7])
    grown = packet[:3] + len(payload).to_bytes(2, "big") + payload
    assert records_wire.decode(grown) == message


def test_no_type_is_one_of_memberships_and_the_two_never_mix():
    assert not set(records_wire.TYPES) & set(codec.ITEMS)
    with pytest.raises(DecodeError):
        codec.decode(records_wire.encode(EXAMPLES["record-digest"]))
    ping = codec.packet([codec.item(codec.Ping("00000000000000ab", 1, "00000000000000ac"))])
    assert not records_wire.is_of_records(ping)


def test_the_largest_messages_fit_their_payload():
    full = RecordRows(
        CLAIM, tuple(bytes(250) for _ in range(160)), bytes(8 * records_wire.WANTED_MAX), more=True
    )
    assert len(records_wire.encode(full)) <= records_wire.PAYLOAD_BYTES_MAX
    hashes = tuple(Bucket(index, bytes(160)) for index in range(BUCKETS))
    assert len(records_wire.encode(RecordHashes(CLAIM, 0, hashes))) <= records_wire.PAYLOAD_BYTES_MAX


def test_a_message_over_its_limit_is_not_made():
    with pytest.raises(LimitError, match="is over"):
        records_wire.encode(RecordNews(CLAIM, (bytes(17_000),) * 4))


@pytest.mark.parametrize(
    ("number", "array"),
    [
        (64, [["0" * 16, 0, 0, 0], bytes(8)]),
        (64, [["00000000000000ab", -1, 0, 0], bytes(8)]),
        (64, [["00000000000000ab", 0, 0, 0], bytes(7)]),
        (65, [["00000000000000ab", 0, 0, 0], 0, bytes(8)]),
        (66, [["00000000000000ab", 0, 0, 0], 0, [[256, b""]]]),
        (66, [["00000000000000ab", 0, 0, 0], 0, [[1, b"1234567"]]]),
        (67, [["00000000000000ab", 0, 0, 0], [bytes(17_409)]]),
        (67, [["00000000000000ab", 0, 0, 0], [], b"1"]),
        (68, [["00000000000000ab", 0, 0, 0], ["text"]]),
        (69, [["00000000000000ab", 0, 0, 0], []]),
    ],
)
def test_what_is_out_of_bounds_is_refused(number, array):
    payload = msgpack.packb(array)
    with pytest.raises(DecodeError):
        records_wire.decode(bytes((1, 0, number)) + len(payload).to_bytes(2, "big") + payload)


def test_hashes_survive_being_joined():
    assert records_wire.split(records_wire.joined([1, 2**64 - 1])) == [1, 2**64 - 1]


def test_the_reference_page_names_every_message_and_field():
    page = PAGE.read_text()
    kinds = {**records_wire.TYPES, "claim": Claim, "bucket": Bucket, "record": Record, "stamp": Stamp}
    for number, kind in kinds.items():
        name = kind.__name__
        heading = f"### {number} {name}" if isinstance(number, int) else f"### {name}"
        section = page.split(heading + "\n", 1)[1].split("\n#", 1)[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
        fields = attrs.fields(kind)
        assert [row[1].strip(" `") for row in rows] == [field.name for field in fields]
        optional = [field.default is not attrs.NOTHING for field in fields]
        assert [row[3].strip() != "refused" for row in rows] == optional
        if isinstance(number, int):
            assert kind.__doc__.split(".")[0] in section


def test_limits_are_stated_in_the_pages():
    page = PAGE.read_text()
    for limit in (records_wire.PAGE_BYTES_MAX, records_wire.WANTED_MAX, BUCKETS):
        assert f"{limit:,}" in page
    assert wire.unpack(Record, LIVE).value == b"v"
