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

import ipaddress
import struct
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgpack

from mesh.effects import Address
from mesh.errors import DecodeError, LimitError
from mesh.identity import GENERATION_MAX, INCARNATION_MAX, NODE_DIGITS, Identity
from mesh.load import AGE_MS_MAX, LoadHeld, LoadMark, LoadRecord, LoadStill, ModelLoad
from mesh.member import Liveness, Member
from mesh.messages import (
    Ack,
    Gossip,
    Join,
    Leave,
    Message,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Reconcile,
    Snapshot,
    Span,
    SpanKind,
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
ITEMS_MAX = 8192
"""Items in one packet, known or not: a full snapshot has about 2,050."""
SPAN_BYTES_MAX = 512
"""Marks of one span: 128 of 4 bytes."""
NONCE_MAX = 2**48 - 1
DIGEST_BYTES = 8

_ITEM = struct.Struct(">BH")
_REQUIRED = object()


@attrs.frozen
class Kind:
    """How one sort of field is written, and how it is read from anything at all."""

    label: str
    """What the reference page calls it."""
    write: Callable[[Any], Any]
    """From the value of a field to what msgpack packs."""
    read: Callable[[Any], Any]
    """From anything msgpack unpacks to the value; raises DecodeError."""


@attrs.frozen
class Field:
    """One element of a layout."""

    name: str
    kind: Kind
    default: Any = _REQUIRED
    """Stands in when an older sender leaves the element out."""


@attrs.frozen
class Layout:
    """The array that one class of values becomes."""

    build: type
    fields: tuple[Field, ...]


def _same(value: Any) -> Any:
    return value


def _need(holds: bool, what: str, value: Any) -> None:
    if not holds:
        raise DecodeError(f"`{value!r:.60}` is not {what}")


def uint(value_max: int) -> Kind:
    """An integer from 0 to `value_max`; booleans are not integers here."""
    label = f"uint <= {value_max}"

    def read(value: Any) -> int:
        _need(type(value) is int and 0 <= value <= value_max, label, value)
        return value

    return Kind(label, _same, read)


def text(chars_max: int) -> Kind:
    """A string of at most `chars_max` characters."""
    label = f"string, {chars_max} characters at most"

    def read(value: Any) -> str:
        _need(type(value) is str and len(value) <= chars_max, label, value)
        return value

    return Kind(label, _same, read)


def ratio(value_max: float) -> Kind:
    """A finite number from 0 to `value_max`, single precision."""
    label = f"number from 0 to {value_max:g}"

    def read(value: Any) -> float:
        _need(type(value) in (int, float) and 0 <= value <= value_max, label, value)
        return float(value)

    return Kind(label, _same, read)


def blob(bytes_max: int) -> Kind:
    """A byte string of at most `bytes_max` bytes."""
    label = f"{bytes_max} bytes at most"

    def read(value: Any) -> bytes:
        _need(type(value) is bytes and len(value) <= bytes_max, label, value)
        return value

    return Kind(label, _same, read)


def many(kind: Kind, items_max: int) -> Kind:
    """An array of at most `items_max` values of one kind."""
    label = f"array of {items_max} at most: {kind.label}"

    def read(value: Any) -> tuple[Any, ...]:
        _need(type(value) is tuple and len(value) <= items_max, label, value)
        return tuple(map(kind.read, value))

    return Kind(label, lambda values: [kind.write(value) for value in values], read)


def nested(layout: Layout) -> Kind:
    """A value with a layout of its own."""

    def read(value: Any) -> Any:
        return _from_array(layout, value)

    return Kind(f"array: {layout.build.__name__}", lambda value: _to_array(layout, value), read)


def _read_flag(value: Any) -> bool:
    _need(type(value) is bool, "a boolean", value)
    return value


def _read_digest(value: Any) -> bytes:
    _need(type(value) is bytes and len(value) == DIGEST_BYTES, f"{DIGEST_BYTES} bytes", value)
    return value


def _read_node(value: Any) -> str:
    _need(type(value) is int and 0 < value < 2**64, "a node id", value)
    return f"{value:0{NODE_DIGITS}x}"


def _read_liveness(value: Any) -> Liveness:
    _need(type(value) is int and Liveness.ALIVE <= value <= Liveness.LEFT, "a liveness", value)
    return Liveness(value)


def _read_bound(value: Any) -> str:
    _need(type(value) is int and 0 <= value < 2**64, "an end of a range of ids", value)
    return f"{value:0{NODE_DIGITS}x}"


def _read_span_kind(value: Any) -> SpanKind:
    _need(type(value) is int and SpanKind.COMPARE <= value <= SpanKind.WANTED, "a kind of span", value)
    return SpanKind(value)


def _read_address(value: Any) -> Address:
    """Numeric only: a name would make the sender's socket resolve it, for anybody who asks."""
    _need(type(value) is tuple and len(value) >= 2, "an address", value)
    host, port = value[:2]
    _need(type(port) is int and 0 < port < 2**16, "a port", port)
    _need(type(host) is str and _is_numeric(host), "a numeric host", host)
    return (host, port)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


NODE = Kind("node id as uint64", lambda node: int(node, 16), _read_node)
FLAG = Kind("boolean", _same, _read_flag)
DIGEST = Kind(f"{DIGEST_BYTES} bytes", _same, _read_digest)
ADDRESS = Kind("array: numeric host, port", list, _read_address)
LIVENESS = Kind("0 alive, 1 suspect, 2 dead, 3 left", int, _read_liveness)
BOUND = Kind("uint64", lambda bound: int(bound, 16), _read_bound)
SPAN_KIND = Kind("0 compare, 1 held, 2 wanted", int, _read_span_kind)
NONCE = uint(NONCE_MAX)
COUNT = uint(2**32 - 1)
SPEED = ratio(1e12)

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

ITEMS: dict[int, Layout] = {
    1: Layout(Ping, (_SOURCE, Field("nonce", NONCE), Field("target", NODE))),
    2: Layout(Ack, (_SOURCE, Field("nonce", NONCE), Field("digest", DIGEST))),
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
    32: UPDATE,
    33: LOAD_RECORD,
    34: Layout(LoadHeld, LOAD_RECORD.fields[1:3]),
    35: Layout(LoadStill, LOAD_RECORD.fields[1:4]),
    36: Layout(
        Span,
        (
            Field("low", BOUND),
            Field("high", BOUND),
            Field("kind", SPAN_KIND),
            Field("body", blob(SPAN_BYTES_MAX)),
        ),
    ),
}
"""Item types. A number is never used again for anything else."""

_TYPES: dict[type, int] = {layout.build: number for number, layout in ITEMS.items()}
_RIDERS = (Update, LoadRecord, LoadMark, LoadHeld, LoadStill, Span)


def _nothing_held(_mark: LoadMark) -> bool:
    return False


def item(value: Message | Update | LoadRecord | LoadHeld | LoadStill | Span) -> bytes:
    """Encode one item. Raises LimitError when an account exceeds ACCOUNT_BYTES_MAX."""
    number = _TYPES[type(value)]
    payload = msgpack.packb(_to_array(ITEMS[number], value), use_single_float=True)
    if len(payload) > ACCOUNT_BYTES_MAX:
        raise LimitError(
            f"{type(value).__name__} of {len(payload)} bytes is over the limit of {ACCOUNT_BYTES_MAX}\n"
            "hint: name fewer models or capabilities, or shorten their names"
        )
    return _ITEM.pack(number, len(payload)) + payload


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
    parts = [msgpack.packb(part, use_single_float=True) for part in _to_array(LOAD_RECORD, record)]
    age_at = len(LOAD_MARK.fields) - 1
    head = msgpack.Packer().pack_array_header(len(parts)) + b"".join(parts[:age_at])
    return LoadItem(head, b"".join(parts[age_at + 1 :]))


def packet(items: Iterable[bytes], limit: int = DATAGRAM_BYTES_MAX) -> bytes:
    """Join encoded items, the message first, into one packet of at most `limit` bytes."""
    data = bytes((VERSION, UNSEALED)) + b"".join(items)
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
    _need(HEADER_BYTES <= len(data) <= limit, f"a packet of {HEADER_BYTES} to {limit} bytes", len(data))
    _need(data[0] == VERSION, f"version {VERSION}", data[0])
    _need(data[1] == UNSEALED, "a key that this node has", data[1])
    found: dict[type, list[Any]] = {rider: [] for rider in _RIDERS}
    messages: list[Any] = []
    unknown = 0
    for number, payload in _split(data):
        layout = ITEMS.get(number)
        if layout is None:
            unknown += 1
            continue
        value = _read(layout, _unpack(payload), is_held)
        found.get(type(value), messages).append(value)
    _need(len(messages) == 1, "one message", len(messages))
    riders = [tuple(found[rider]) for rider in _RIDERS]
    return Packet(messages[0], *riders, unknown=unknown)


def _read(layout: Layout, array: Any, is_held: Callable[[LoadMark], bool]) -> Any:
    if layout is LOAD_RECORD:
        mark = _from_array(LOAD_MARK, array)
        if is_held(mark):
            return mark
    return _from_array(layout, array)


def _split(data: bytes) -> list[tuple[int, bytes]]:
    items: list[tuple[int, bytes]] = []
    at = HEADER_BYTES
    while at < len(data):
        _need(at + _ITEM.size <= len(data), "a whole item header", data[at:])
        number, length = _ITEM.unpack_from(data, at)
        at += _ITEM.size + length
        _need(at <= len(data), "a whole item", number)
        items.append((number, data[at - length : at]))
        _need(len(items) <= ITEMS_MAX, f"{ITEMS_MAX} items at most", len(items))
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


def _to_array(layout: Layout, value: Any) -> list[Any]:
    return [field.kind.write(getattr(value, field.name)) for field in layout.fields]


def _from_array(layout: Layout, array: Any) -> Any:
    _need(type(array) is tuple, f"an array: {layout.build.__name__}", array)
    values = {}
    for index, field in enumerate(layout.fields):
        if index < len(array):
            values[field.name] = field.kind.read(array[index])
        elif field.default is not _REQUIRED:
            values[field.name] = field.default
        else:
            raise DecodeError(f"{layout.build.__name__} lacks `{field.name}`")
    return layout.build(**values)
