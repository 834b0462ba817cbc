"""The wire: round trips, totality, growth, and golden bytes."""

import contextlib
import pathlib

import attrs
import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh import codec, kinds
from mesh.errors import DecodeError, LimitError
from mesh.identity import GENERATION_MAX, INCARNATION_MAX, Identity
from mesh.load import LoadHeld, LoadRecord, LoadStill, ModelLoad
from mesh.member import Liveness, Member
from mesh.messages import (
    Ack,
    Ages,
    Event,
    Gossip,
    Join,
    Leave,
    MeshMark,
    MetadataAnswer,
    MetadataAsk,
    MetadataPiece,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Reconcile,
    Seen,
    Snapshot,
    Span,
    SpanKind,
    Sync,
    Update,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference" / "wire-datagrams.md"

NODES = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
NONCES = st.integers(0, kinds.NONCE_MAX)
ADDRESSES = st.tuples(st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", "fe80::1"]), st.integers(1, 65535))
COUNTS = st.integers(0, 2**32 - 1)


def texts(size):
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=size)


DIGESTS = st.lists(st.binary(min_size=16, max_size=16), max_size=48).map(tuple)
MESSAGES = st.one_of(
    st.builds(Ping, NODES, NONCES, NODES, st.sampled_from([b"", bytes(44)])),
    st.builds(Ack, NODES, NONCES, st.binary(min_size=8, max_size=8), st.sampled_from([b"", bytes(44)])),
    st.builds(PingRequest, NODES, NONCES, NODES, ADDRESSES, COUNTS),
    st.builds(Nack, NODES, NONCES),
    st.builds(Sync, NODES, st.booleans()),
    st.builds(Seen, NODES, ADDRESSES),
    st.builds(MetadataAsk, NODES, DIGESTS),
    st.builds(MetadataAnswer, NODES, DIGESTS),
    st.builds(Reconcile, NODES, st.integers(0, 2**64 - 1), st.integers(0, 255)),
    *(st.builds(kind, NODES) for kind in (Join, Snapshot, Leave, Gossip)),
)
IDENTITIES = st.builds(Identity, NODES, st.integers(0, GENERATION_MAX), st.integers(0, INCARNATION_MAX))
MEMBERS = st.builds(
    Member,
    identity=IDENTITIES,
    name=texts(16),
    address=ADDRESSES,
    liveness=st.sampled_from(Liveness),
    http=texts(16),
    role=texts(8),
    protocol=st.integers(0, 255),
    version=texts(8),
    capabilities=st.lists(texts(8), max_size=3).map(tuple),
    models=st.lists(texts(12), max_size=3).map(tuple),
    draining=st.booleans(),
    zone=texts(8),
    metadata_digest=st.sampled_from([b"", bytes(range(16))]),
    metadata_bytes=st.integers(0, 65_536),
)
UPDATES = st.builds(Update, MEMBERS, st.lists(NODES, max_size=4).map(tuple))
BOUNDS = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
SPANS = st.builds(Span, BOUNDS, BOUNDS, st.sampled_from(SpanKind), st.binary(max_size=512))
SPEEDS = st.floats(0, 1e9, width=32)
MODEL_LOADS = st.builds(
    ModelLoad,
    name=texts(12),
    digest=texts(16),
    policy=texts(16),
    ready=st.booleans(),
    context_max=COUNTS,
    queued_tokens=COUNTS,
    running=COUNTS,
    kv_free_ratio=st.floats(0, 1, width=32),
    prefill_tokens_per_s=SPEEDS,
    decode_tokens_per_s=SPEEDS,
)
LOADS = st.builds(
    LoadRecord,
    node=NODES,
    generation=st.integers(0, GENERATION_MAX),
    sequence=st.integers(0, 2**48 - 1),
    age_ms=COUNTS,
    models=st.lists(MODEL_LOADS, max_size=3).map(tuple),
    draining=st.booleans(),
    zone=texts(8),
    lag_ms=COUNTS,
)

NODE = "00000000000000ab"
OTHER = "ffffffffffffffff"
MEMBER = Member(
    Identity(NODE, 3, 7),
    "ada",
    ("192.0.2.7", 7946),
    Liveness.SUSPECT,
    "192.0.2.7:8080",
    "worker",
    1,
    "0.1.0",
    ("zstd",),
    ("tiny",),
    True,
    "rack-1",
)
LOAD = LoadRecord(
    NODE,
    3,
    9,
    250,
    (ModelLoad("tiny", "d1", "p1", True, 2048, 17, 2, 0.75, 1500.0, 80.5),),
    False,
    "rack-1",
    4,
)
EXAMPLES = {
    "ping": Packet(Ping(NODE, 2**48 - 1, OTHER)),
    "ack": Packet(Ack(NODE, 1, bytes(range(8)))),
    "ping-request": Packet(PingRequest(NODE, 2, OTHER, ("2001:db8::1", 7946), 150)),
    "nack": Packet(Nack(NODE, 2)),
    "join": Packet(Join(NODE), (Update(MEMBER),)),
    "snapshot": Packet(Snapshot(NODE), (Update(MEMBER, (OTHER,)),), (LOAD,)),
    "sync": Packet(Sync(NODE, True), (Update(MEMBER),)),
    "leave": Packet(Leave(NODE)),
    "gossip": Packet(Gossip(NODE), (Update(MEMBER, (OTHER, NODE)),), (LOAD,)),
    "reconcile": Packet(
        Reconcile(NODE, 2**64 - 1, 3),
        (Update(MEMBER),),
        spans=(
            Span("0" * 16, NODE, SpanKind.COMPARE, bytes(range(8))),
            Span(OTHER, OTHER, SpanKind.WANTED, b"mark"),
        ),
    ),
    "seen": Packet(Seen(NODE, ("2001:db8::1", 7946))),
    "gossip-ages": Packet(Gossip(NODE), (Update(MEMBER),), ages=(Ages(b"\x00\xa0\xff"),)),
    "gossip-event": Packet(Gossip(NODE), events=(Event(NODE, 3, 7, 41, "deploy", b"v2\x00"),)),
    "gossip-metadata": Packet(
        Gossip(NODE),
        (Update(attrs.evolve(MEMBER, metadata_digest=bytes(range(16)), metadata_bytes=5)),),
        pieces=(MetadataPiece(bytes(range(16)), 5, 0, b"a = 1"),),
    ),
    "metadata-ask": Packet(MetadataAsk(NODE, (bytes(range(16)), bytes(16)))),
    "metadata-answer": Packet(
        MetadataAnswer(NODE, (bytes(16),)), pieces=(MetadataPiece(bytes(range(16)), 65_536, 900, b"body"),)
    ),
    "join-mark": Packet(Join(NODE), (Update(MEMBER),), marks=(MeshMark(b"\x01\x02\x03\x04"),)),
    "ping-coordinate": Packet(Ping(NODE, 7, OTHER, bytes(range(44)))),
    "ack-coordinate": Packet(Ack(NODE, 7, bytes(range(8)), bytes(range(44)))),
    "ping-load-held": Packet(Ping(NODE, 7, OTHER), held=(LoadHeld(3, 2**32 - 1),)),
    "ack-load-still": Packet(Ack(NODE, 7, bytes(range(8))), still=(LoadStill(3, 8, 1500),)),
}


def encode(packet, limit=codec.RELIABLE_BYTES_MAX):
    values = (
        packet.message,
        *packet.updates,
        *packet.loads,
        *packet.held,
        *packet.still,
        *packet.spans,
        *packet.ages,
        *packet.marks,
        *packet.events,
        *packet.pieces,
    )
    return codec.packet(map(codec.item, values), limit)


def raw(number, payload):
    return bytes([number]) + len(payload).to_bytes(2, "big") + payload


# Round trips.


@given(MESSAGES, st.lists(UPDATES, max_size=3), st.lists(LOADS, max_size=2), st.lists(SPANS, max_size=3))
def test_what_is_sent_is_what_arrives(message, updates, loads, spans):
    packet = Packet(message, tuple(updates), tuple(loads), spans=tuple(spans))
    assert codec.decode(encode(packet), codec.RELIABLE_BYTES_MAX) == packet


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_are_the_golden_ones(name):
    """A change here breaks a mixed mesh. New fields go at the end of a layout, with a new golden file."""
    golden = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    assert encode(EXAMPLES[name]) == golden
    assert codec.decode(golden) == EXAMPLES[name]


def test_an_idle_ping_and_its_ack_are_small():
    """28 bytes of IP and UDP are added on the wire; the bar is 66 in all."""
    assert len(encode(EXAMPLES["ping"])) + 28 <= 66
    assert len(encode(EXAMPLES["ack"])) + 28 <= 66


# Totality.


@settings(max_examples=500)
@given(st.binary(max_size=200))
@example(b"")
@example(bytes((1, 0)))
@example(bytes((2, 0)))
@example(bytes((1, 1)))
def test_any_bytes_decode_or_raise_decode_error(data):
    with contextlib.suppress(DecodeError):
        codec.decode(data)


@settings(max_examples=500)
@given(st.sampled_from(sorted(codec.ITEMS)), st.binary(max_size=80))
@example(1, b"\x93\xc1\xc1\xc1")
@example(1, b"\xd6\xff\x00\x00\x00\x00")
@example(1, b"\x81\x90\x90")
@example(32, b"\xdd\xff\xff\xff\xff")
@example(32, b"\x91" * 70)
@example(5, b"\x91\xdb\xff\xff\xff\xff")
def test_any_payload_decodes_or_raises_decode_error(number, payload):
    with contextlib.suppress(DecodeError):
        codec.decode(bytes((1, 0)) + raw(number, payload))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts(20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(texts(4), inner, max_size=3),
    max_leaves=30,
)


@settings(max_examples=500)
@given(st.sampled_from(sorted(codec.ITEMS)), st.lists(PLAIN, max_size=14))
def test_any_array_decodes_or_raises_decode_error(number, array):
    payload = msgpack.packb(array)
    if len(payload) > 60_000:
        return
    with contextlib.suppress(DecodeError):
        codec.decode(bytes((1, 0)) + raw(number, payload), codec.RELIABLE_BYTES_MAX)


@settings(max_examples=300)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_damaged_packet_decodes_or_raises_decode_error(name, data):
    damaged = bytearray(encode(EXAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(DecodeError):
        codec.decode(bytes(damaged[:cut]))


# Growth.


def arrays_of(packet):
    data = encode(packet)
    items, at = [], 2
    while at < len(data):
        number, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        items.append((number, msgpack.unpackb(data[at + 3 : at + 3 + length])))
        at += 3 + length
    return items


@pytest.mark.parametrize("name", EXAMPLES)
def test_elements_of_a_later_version_are_ignored(name):
    grown = []
    for number, array in arrays_of(EXAMPLES[name]):
        spared = [field.default for field in codec.ITEMS[number].fields[len(array) :]]
        grown.append(raw(number, msgpack.packb([*array, *spared, "new", {"k": [1]}], use_single_float=True)))
    assert codec.decode(bytes((1, 0)) + b"".join(grown)) == EXAMPLES[name]


def test_elements_that_an_earlier_version_lacked_take_their_defaults():
    member = [[0xAB, 3, 7], 0, "ada", ["192.0.2.7", 7946]]
    data = bytes((1, 0)) + raw(9, msgpack.packb([0xAB])) + raw(32, msgpack.packb([member]))
    update = codec.decode(data).updates[0]
    assert update == Update(Member(Identity(NODE, 3, 7), "ada", ("192.0.2.7", 7946), protocol=1))


def test_items_of_an_unknown_type_are_skipped_and_counted():
    data = encode(EXAMPLES["ack"]) + raw(200, b"whatever") + raw(31, b"") + codec.item(LOAD)
    packet = codec.decode(data)
    assert packet.unknown == 2
    assert packet.message == EXAMPLES["ack"].message
    assert packet.loads == (LOAD,)


# Limits.


def test_a_packet_has_exactly_one_message():
    ping = codec.item(EXAMPLES["ping"].message)
    for items in ([], [ping, ping], [codec.item(Update(MEMBER))]):
        with pytest.raises(DecodeError):
            codec.decode(codec.packet(items))


def test_a_packet_over_its_limit_is_neither_made_nor_read():
    filler = [codec.item(EXAMPLES["ping"].message), raw(200, bytes(codec.DATAGRAM_BYTES_MAX))]
    with pytest.raises(LimitError, match="over the limit"):
        codec.packet(filler)
    data = codec.packet(filler, codec.RELIABLE_BYTES_MAX)
    with pytest.raises(DecodeError):
        codec.decode(data)
    assert codec.decode(data, codec.RELIABLE_BYTES_MAX).unknown == 1


def test_more_items_than_the_limit_are_refused():
    data = encode(EXAMPLES["ping"]) + raw(200, b"") * codec.ITEMS_MAX
    with pytest.raises(DecodeError):
        codec.decode(data, codec.RELIABLE_BYTES_MAX)


@pytest.mark.parametrize(("version", "key"), [(0, 0), (2, 0), (1, 1), (1, 255)])
def test_another_version_or_a_sealed_packet_is_refused(version, key):
    with pytest.raises(DecodeError):
        codec.decode(bytes((version, key)) + encode(EXAMPLES["ping"])[2:])


@pytest.mark.parametrize("host", ["example.org", "", "1.2.3", "127.0.0.1 ", "localhost", "2001:db8::1::2"])
def test_an_address_that_must_be_resolved_is_refused(host):
    array = [0xAB, 2, 0xCD, [host, 7946], 100]
    with pytest.raises(DecodeError):
        codec.decode(bytes((1, 0)) + raw(3, msgpack.packb(array)))


@pytest.mark.parametrize("value", [True, -1, 2**48, 1.0, "1", None])
def test_a_nonce_is_an_integer_within_its_bound(value):
    with pytest.raises(DecodeError):
        codec.decode(bytes((1, 0)) + raw(4, msgpack.packb([0xAB, value])))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_ratio_is_finite_and_within_its_bound(value):
    model = ["tiny", "", "", True, 0, 0, 0, value]
    payload = msgpack.packb([0xAB, 0, 0, 0, [model]])
    with pytest.raises(DecodeError):
        codec.decode(encode(EXAMPLES["ack"]) + raw(33, payload))


# The page.


def test_the_reference_page_names_every_item_and_field():
    page = PAGE.read_text()
    layouts = {**codec.ITEMS, "member": codec.MEMBER, "identity": codec.IDENTITY, "model": codec.MODEL_LOAD}
    for number, layout in layouts.items():
        name = layout.build.__name__
        heading = f"### {number} {name}" if isinstance(number, int) else f"### {name}"
        assert heading in page
        section = page.split(heading + "\n", 1)[1].split("\n#", 1)[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [field.name for field in layout.fields]
        for row, field in zip(rows, layout.fields, strict=True):
            assert f"| {field.kind.label} |" in row


# Load records, which are many.


@given(LOADS, COUNTS)
def test_a_record_encoded_once_is_the_same_at_every_age(record, age_ms):
    assert codec.load_item(record).at(age_ms) == codec.item(attrs.evolve(record, age_ms=age_ms))


@given(st.lists(LOADS, max_size=4), st.sets(st.integers(0, 3)))
def test_of_records_that_are_held_only_the_mark_is_read(records, held):
    known = [(record.node, record.version) for index, record in enumerate(records) if index in held]
    data = encode(Packet(EXAMPLES["leave"].message, loads=tuple(records)))
    packet = codec.decode(data, codec.RELIABLE_BYTES_MAX, lambda mark: (mark.node, mark.version) in known)
    fresh = [record for record in records if (record.node, record.version) not in known]
    stale = [record for record in records if (record.node, record.version) in known]
    assert list(packet.loads) == fresh
    assert [(mark.node, mark.version, mark.age_ms) for mark in packet.repeats] == [
        (record.node, record.version, record.age_ms) for record in stale
    ]
