"""Membership messages as bytes, and back. Total: any bytes give a Packet or DecodeError.

    packet  = version (1 byte) | key id (1 byte) | item...
    item    = type (1 byte) | length (2 bytes, big-endian) | payload
    payload = one msgpack array: the fields of the item's layout, in order

How it grows without breaking a mixed mesh: an item of unknown type is skipped and counted;
a layout gains fields only at its end, each with a default, so an older decoder ignores what
it does not know and a newer one fills in what is missing. Golden files in
`tests/mesh/golden` hold the bytes still; `docs/reference/wire-datagrams.md` is compared
with the tables below by a test.

Key id 0 means unsealed: what loopback meshes send, what travels inside TLS, and what comes out of
`mesh.seal`, which owns the layout of packets with any other key id.
"""

import functools
import struct
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgpack

from mesh import pulse
from mesh.errors import DecodeError, LimitError
from mesh.identity import GENERATION_MAX, INCARNATION_MAX, Identity
from mesh.kinds import (
    ADDRESS,
    ANY_DIGEST,
    BOUND,
    COUNT,
    DIGEST,
    FLAG,
    LAMPORT_MAX,
    LIVENESS,
    NODE,
    NONCE,
    SPAN_KIND,
    SPEED,
    VALUE_DIGEST,
    Field,
    Layout,
    blob,
    from_array,
    many,
    need,
    nested,
    ratio,
    text,
    to_array,
    uint,
)
from mesh.load import AGE_MS_MAX, LoadHeld, LoadMark, LoadRecord, LoadStill, ModelLoad
from mesh.member import Member
from mesh.messages import (
    Ack,
    Ages,
    Event,
    Gossip,
    Join,
    Leave,
    MeshMark,
    Message,
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
    Sync,
    Update,
)

VERSION = 1
UNSEALED = 0
"""Key id of packets that are not sealed."""
HEADER_BYTES = 2
DATAGRAM_BYTES_MAX = 1400
"""Fits an Ethernet frame through most tunnels (memberlist's UDP buffer size)."""
SEAL_BYTES_MAX = 42
"""Most that sealing adds to a packet (`mesh.envelope`: 30, and 12 of a cookie at first)."""
PACKET_BYTES_MAX = DATAGRAM_BYTES_MAX - SEAL_BYTES_MAX
"""What a sender fills, sealed or not."""
RELIABLE_BYTES_MAX = 2**20
"""Body of one gossip frame on a link: a snapshot of 1,024 members of 1,000 bytes."""
ACCOUNT_BYTES_MAX = 1000
"""One update or load record, so that each fits a datagram beside any message."""
UPDATES_KEPT = 2**14
"""Accounts remembered as they were decoded, each of at most UPDATE_BYTES_KEPT: some 20 MB at the very worst."""
UPDATE_BYTES_KEPT = 300
ITEMS_MAX = 8192
"""Items in one packet, known or not: a full snapshot has about 2,050."""
SPAN_BYTES_MAX = 512
"""Marks of one span: 128 of 4 bytes."""
EVENT_NAME_MAX = 64
"""Characters of the name of an event."""
EVENT_NAME_BYTES_MAX = 249
"""The same in UTF-8: with the longest payload and the greatest numbers an event fits EVENT_ITEM_BYTES_MAX."""
EVENT_BYTES_MAX = 1024
"""Payload of an event."""
EVENT_BYTES_OLD = 900
"""The same until protocol 3."""
EVENT_ITEM_BYTES_MAX = PACKET_BYTES_MAX - 43
"""An event with all that describes it: a packet of its own has room for it beside header, message and mark."""
COORDINATE_FIELD_BYTES_MAX = 64
"""Room for a coordinate; what is none, or of another size, is refused by itself and not with its packet."""
METADATA_BYTES_MAX = 65_536
"""Metadata of one member."""
PIECE_BYTES_MAX = 900
"""Most of a value in one piece, so that a small value, whole, fits a datagram beside its subject's account."""
DIGESTS_MAX = 48
"""Values asked for at once: their digests fit an item."""
MARK_BYTES = 4
"""Of the hash of a mesh's name, in clear packets."""
MARKS_BYTES_MAX = 48
"""What follows the message of an idle packet: two marks."""
MARKS_MAX = 1024
"""Such endings whose meaning is remembered, and marks whose bytes are."""

_HEADER = bytes((VERSION, UNSEALED))
_ITEM = struct.Struct(">BH")

_SOURCE = Field("source", NODE)

IDENTITY = Layout(
    Identity,
    (
        Field("node", NODE),
        Field("generation", uint(GENERATION_MAX)),
        Field("incarnation", uint(INCARNATION_MAX)),
    ),
)
MEMBER = Layout(
    Member,
    (
        Field("identity", nested(IDENTITY)),
        Field("liveness", LIVENESS),
        Field("name", text(64)),
        Field("address", ADDRESS),
        Field("http", text(128), ""),
        Field("role", text(16), "worker"),
        Field("protocol", uint(255), 1),
        Field("version", text(32), ""),
        Field("capabilities", many(text(32), 32), ()),
        Field("models", many(text(96), 32), ()),
        Field("draining", FLAG, False),
        Field("zone", text(32), ""),
        Field("metadata_digest", ANY_DIGEST, b"", spared=True),
        Field("metadata_bytes", uint(METADATA_BYTES_MAX), 0, spared=True),
    ),
)
UPDATE = Layout(Update, (Field("member", nested(MEMBER)), Field("accusers", many(NODE, 8), ())))
MODEL_LOAD = Layout(
    ModelLoad,
    (
        Field("name", text(96)),
        Field("digest", text(64), ""),
        Field("policy", text(64), ""),
        Field("ready", FLAG, False),
        Field("context_max", COUNT, 0),
        Field("queued_tokens", COUNT, 0),
        Field("running", COUNT, 0),
        Field("kv_free_ratio", ratio(1.0), 0.0),
        Field("prefill_tokens_per_s", SPEED, 0.0),
        Field("decode_tokens_per_s", SPEED, 0.0),
    ),
)
LOAD_RECORD = Layout(
    LoadRecord,
    (
        Field("node", NODE),
        Field("generation", uint(GENERATION_MAX)),
        Field("sequence", uint(2**48 - 1)),
        Field("age_ms", uint(AGE_MS_MAX)),
        Field("models", many(nested(MODEL_LOAD), 16), ()),
        Field("draining", FLAG, False),
        Field("zone", text(32), ""),
        Field("lag_ms", COUNT, 0),
    ),
)

LOAD_MARK = Layout(LoadMark, LOAD_RECORD.fields[:4])
"""The beginning of a load record, which is all that is read of one that is held already."""

_HELD = Layout(LoadHeld, LOAD_RECORD.fields[1:3])
_STILL = Layout(LoadStill, LOAD_RECORD.fields[1:4])

_COORDINATE = Field("coordinate", blob(COORDINATE_FIELD_BYTES_MAX), b"", spared=True)

ITEMS: dict[int, Layout] = {
    1: Layout(Ping, (_SOURCE, Field("nonce", NONCE), Field("target", NODE), _COORDINATE)),
    2: Layout(Ack, (_SOURCE, Field("nonce", NONCE), Field("digest", DIGEST), _COORDINATE)),
    3: Layout(
        PingRequest,
        (
            _SOURCE,
            Field("nonce", NONCE),
            Field("target", NODE),
            Field("address", ADDRESS),
            Field("timeout_ms", COUNT),
        ),
    ),
    4: Layout(Nack, (_SOURCE, Field("nonce", NONCE))),
    5: Layout(Join, (_SOURCE,)),
    6: Layout(Snapshot, (_SOURCE,)),
    7: Layout(Sync, (_SOURCE, Field("answer_wanted", FLAG))),
    8: Layout(Leave, (_SOURCE,)),
    9: Layout(Gossip, (_SOURCE,)),
    10: Layout(Reconcile, (_SOURCE, Field("salt", uint(2**64 - 1)), Field("depth", uint(255)))),
    11: Layout(Seen, (_SOURCE, Field("address", ADDRESS))),
    12: Layout(MetadataAsk, (_SOURCE, Field("digests", many(VALUE_DIGEST, DIGESTS_MAX)))),
    13: Layout(MetadataAnswer, (_SOURCE, Field("lacking", many(VALUE_DIGEST, DIGESTS_MAX), ()))),
    32: UPDATE,
    33: LOAD_RECORD,
    34: _HELD,
    35: _STILL,
    36: Layout(
        Span,
        (
            Field("low", BOUND),
            Field("high", BOUND),
            Field("kind", SPAN_KIND),
            Field("body", blob(SPAN_BYTES_MAX)),
        ),
    ),
    37: Layout(Ages, (Field("codes", blob(SPAN_BYTES_MAX)),)),
    38: Layout(MeshMark, (Field("hash", blob(MARK_BYTES)),)),
    39: Layout(
        Event,
        (
            Field("node", NODE),
            Field("generation", uint(GENERATION_MAX)),
            Field("sequence", uint(LAMPORT_MAX)),
            Field("lamport", uint(LAMPORT_MAX)),
            Field("name", text(EVENT_NAME_MAX)),
            Field("payload", blob(EVENT_BYTES_MAX)),
        ),
    ),
    40: Layout(
        MetadataPiece,
        (
            Field("digest", VALUE_DIGEST),
            Field("size", uint(METADATA_BYTES_MAX)),
            Field("offset", uint(METADATA_BYTES_MAX)),
            Field("body", blob(PIECE_BYTES_MAX)),
        ),
    ),
}
"""Item types. A number is never used again for anything else."""

_TYPES: dict[type, int] = {layout.build: number for number, layout in ITEMS.items()}
EVENT_NUMBER = _TYPES[Event]
_RIDERS = (Update, LoadRecord, LoadMark, LoadHeld, LoadStill, Span, Ages, MeshMark, Event, MetadataPiece)


def _nothing_held(_mark: LoadMark) -> bool:
    return False


def item(
    value: Message
    | Update
    | LoadRecord
    | LoadHeld
    | LoadStill
    | Span
    | Ages
    | MeshMark
    | Event
    | MetadataPiece,
) -> bytes:
    """Encode one item. Raises LimitError when an account exceeds ACCOUNT_BYTES_MAX, an event its own limit."""
    return pulse.item(value) or _item(value)


def _item(value: Any) -> bytes:
    """Encode one item by its layout."""
    number = _TYPES[type(value)]
    payload = msgpack.packb(to_array(ITEMS[number], value), use_single_float=True)
    limit = EVENT_ITEM_BYTES_MAX if number == EVENT_NUMBER else ACCOUNT_BYTES_MAX
    if len(payload) > limit:
        raise LimitError(
            f"{type(value).__name__} of {len(payload)} bytes is over the limit of {limit}\n"
            "hint: name fewer models or capabilities, or shorten their names"
        )
    return _ITEM.pack(number, len(payload)) + payload


@functools.lru_cache(maxsize=MARKS_MAX)
def held_item(held: LoadHeld) -> bytes:
    """Encode one mark, which is the same on one ping after another."""
    return item(held)


@functools.lru_cache(maxsize=UPDATES_KEPT)
def update_item(update: Update) -> bytes:
    """Encode an account, which is said again and again: to each who joins, and while it is in doubt."""
    return item(update)


@attrs.frozen
class LoadItem:
    """A load record, encoded once for all ages: `at(age)` is the same as `item` of the aged record."""

    head: bytes
    """What precedes the age in the payload."""
    tail: bytes
    """What follows it."""

    def at(self, age_ms: int) -> bytes:
        """The item with this age."""
        payload = self.head + msgpack.packb(age_ms) + self.tail
        return _ITEM.pack(_TYPES[LoadRecord], len(payload)) + payload


def load_item(record: LoadRecord) -> LoadItem:
    """Encode a load record, but for its age."""
    parts = [msgpack.packb(part, use_single_float=True) for part in to_array(LOAD_RECORD, record)]
    age_at = len(LOAD_MARK.fields) - 1
    head = msgpack.Packer().pack_array_header(len(parts)) + b"".join(parts[:age_at])
    return LoadItem(head, b"".join(parts[age_at + 1 :]))


def packet(items: Iterable[bytes], limit: int = DATAGRAM_BYTES_MAX) -> bytes:
    """Join encoded items, the message first, into one packet of at most `limit` bytes."""
    data = b"".join((_HEADER, *items))
    if len(data) > limit:
        raise LimitError(f"packet of {len(data)} bytes is over the limit of {limit}")
    return data


def decode(
    data: bytes, limit: int = DATAGRAM_BYTES_MAX, is_held: Callable[[LoadMark], bool] = _nothing_held
) -> Packet:
    """Decode one packet. Raises DecodeError for anything that is not one; total.

    Exactly one message is expected among the items. Of a load record that `is_held` only the
    mark is read.
    """
    if not HEADER_BYTES <= len(data) <= limit:
        raise DecodeError(f"`{len(data)}` bytes are not a packet of {HEADER_BYTES} to {limit} bytes")
    if data[0] != VERSION or data[1] != UNSEALED:
        raise DecodeError(f"version `{data[0]}` or key id `{data[1]}` is not known here")
    quick = pulse.read(data, HEADER_BYTES)
    if quick is None:
        return _decode(data, HEADER_BYTES, [], is_held)
    message, at = quick
    if at == len(data):
        return Packet(message)
    marks = _marks(data[at:]) if len(data) - at <= MARKS_BYTES_MAX else None
    if marks is not None:
        return Packet(message, held=marks[0], still=marks[1])
    return _decode(data, at, [message], is_held)


@functools.lru_cache(maxsize=MARKS_MAX)
def _marks(tail: bytes) -> tuple[tuple[LoadHeld, ...], tuple[LoadStill, ...]] | None:
    """What follows the message of an idle packet: marks of load records alone; None if it is something else."""
    items = _split(tail, 0)
    if any(ITEMS.get(number) not in (_HELD, _STILL) for number, _ in items):
        return None
    marks = [from_array(ITEMS[number], _unpack(payload)) for number, payload in items]
    held = tuple(mark for mark in marks if isinstance(mark, LoadHeld))
    return held, tuple(mark for mark in marks if isinstance(mark, LoadStill))


def _decode(data: bytes, at: int, messages: list[Any], is_held: Callable[[LoadMark], bool]) -> Packet:
    """Decode the items from `at` on by their layouts; `messages` are those before."""
    found: dict[type, list[Any]] = {rider: [] for rider in _RIDERS}
    unknown = 0
    for number, payload in _split(data, at):
        layout = ITEMS.get(number)
        if layout is None:
            unknown += 1
            continue
        if layout is UPDATE and len(payload) <= UPDATE_BYTES_KEPT:
            value = _update(payload)
        else:
            value = _read(layout, _unpack(payload), is_held)
        found.get(type(value), messages).append(value)
    need(len(messages) == 1, "one message", len(messages))
    riders = [tuple(found[rider]) for rider in _RIDERS]
    return Packet(messages[0], *riders, unknown=unknown)


@functools.lru_cache(maxsize=UPDATES_KEPT)
def _update(payload: bytes) -> Update:
    """An account, which comes again and again from one member after another while it spreads."""
    update: Update = from_array(UPDATE, _unpack(payload))
    return update


def _read(layout: Layout, array: Any, is_held: Callable[[LoadMark], bool]) -> Any:
    if layout is LOAD_RECORD:
        mark = from_array(LOAD_MARK, array)
        if is_held(mark):
            return mark
    return from_array(layout, array)


def _split(data: bytes, at: int) -> list[tuple[int, bytes]]:
    items: list[tuple[int, bytes]] = []
    while at < len(data):
        if at + _ITEM.size > len(data):
            raise DecodeError("an item header is cut short")
        number, length = _ITEM.unpack_from(data, at)
        at += _ITEM.size + length
        if at > len(data) or len(items) == ITEMS_MAX:
            raise DecodeError(f"an item is cut short, or there are more than {ITEMS_MAX}")
        items.append((number, data[at - length : at]))
    return items


def _unpack(payload: bytes) -> Any:
    """One msgpack value. Sizes are bounded before anything is built; maps are for later versions."""
    try:
        return msgpack.unpackb(
            payload,
            use_list=False,
            strict_map_key=True,
            max_str_len=4096,
            max_bin_len=4096,
            max_array_len=1024,
            max_map_len=64,
            max_ext_len=64,
        )
    except (ValueError, OverflowError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"not msgpack: {error!r:.80}") from None
