"""How fields become msgpack and come back: the parts that the layouts of `mesh.codec` are made of.

Each kind reads anything at all: a value of the field, or DecodeError.
"""

import ipaddress
from collections.abc import Callable
from typing import Any

import attrs

from mesh.effects import Address
from mesh.errors import DecodeError, shown
from mesh.identity import NODE_DIGITS
from mesh.member import Liveness
from mesh.messages import SpanKind

DIGEST_BYTES = 8
VALUE_DIGEST_BYTES = 16
"""Of the digest by which metadata are known: enough that nobody finds two values with one."""
NONCE_MAX = 2**48 - 1
LAMPORT_MAX = 2**48 - 1
"""Of Lamport times, and of the numbers that authors give their events."""

REQUIRED = object()
"""Of a field without which an array means nothing."""


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
    default: Any = REQUIRED
    """Stands in when an older sender leaves the element out."""
    spared: bool = False
    """Whether it is left out when nothing but such fields follows and all hold their defaults: it costs nothing
    to whom it says nothing."""


@attrs.frozen
class Layout:
    """The array that one class of values becomes."""

    build: type
    fields: tuple[Field, ...]


def _same(value: Any) -> Any:
    return value


def need(holds: bool, what: str, value: Any) -> None:
    """Raise DecodeError unless it holds."""
    if not holds:
        raise DecodeError(f"`{shown(value)}` is not {what}")


def uint(value_max: int) -> Kind:
    """An integer from 0 to `value_max`; booleans are not integers here."""
    label = f"uint <= {value_max}"

    def read(value: Any) -> int:
        need(type(value) is int and 0 <= value <= value_max, label, value)
        return value

    return Kind(label, _same, read)


def text(chars_max: int) -> Kind:
    """A string of at most `chars_max` characters."""
    label = f"string, {chars_max} characters at most"

    def read(value: Any) -> str:
        need(type(value) is str and len(value) <= chars_max, label, value)
        return value

    return Kind(label, _same, read)


def ratio(value_max: float) -> Kind:
    """A finite number from 0 to `value_max`, single precision."""
    label = f"number from 0 to {value_max:g}"

    def read(value: Any) -> float:
        need(type(value) in (int, float) and 0 <= value <= value_max, label, value)
        return float(value)

    return Kind(label, _same, read)


def blob(bytes_max: int) -> Kind:
    """A byte string of at most `bytes_max` bytes."""
    label = f"{bytes_max} bytes at most"

    def read(value: Any) -> bytes:
        need(type(value) is bytes and len(value) <= bytes_max, label, value)
        return value

    return Kind(label, _same, read)


def many(kind: Kind, items_max: int) -> Kind:
    """An array of at most `items_max` values of one kind."""
    label = f"array of {items_max} at most: {kind.label}"

    def read(value: Any) -> tuple[Any, ...]:
        need(type(value) is tuple and len(value) <= items_max, label, value)
        return tuple(map(kind.read, value))

    return Kind(label, lambda values: [kind.write(value) for value in values], read)


def nested(layout: Layout) -> Kind:
    """A value with a layout of its own."""

    def read(value: Any) -> Any:
        return from_array(layout, value)

    return Kind(f"array: {layout.build.__name__}", lambda value: to_array(layout, value), read)


def _read_flag(value: Any) -> bool:
    need(type(value) is bool, "a boolean", value)
    return value


def _read_digest(value: Any) -> bytes:
    need(type(value) is bytes and len(value) == DIGEST_BYTES, f"{DIGEST_BYTES} bytes", value)
    return value


def _read_value_digest(value: Any) -> bytes:
    need(type(value) is bytes and len(value) == VALUE_DIGEST_BYTES, f"{VALUE_DIGEST_BYTES} bytes", value)
    return value


def _read_any_digest(value: Any) -> bytes:
    return value if value == b"" and type(value) is bytes else _read_value_digest(value)


def _read_node(value: Any) -> str:
    need(type(value) is int and 0 < value < 2**64, "a node id", value)
    return f"{value:0{NODE_DIGITS}x}"


def _read_liveness(value: Any) -> Liveness:
    need(type(value) is int and Liveness.ALIVE <= value <= Liveness.LEFT, "a liveness", value)
    return Liveness(value)


def _read_bound(value: Any) -> str:
    need(type(value) is int and 0 <= value < 2**64, "an end of a range of ids", value)
    return f"{value:0{NODE_DIGITS}x}"


def _read_span_kind(value: Any) -> SpanKind:
    need(type(value) is int and SpanKind.COMPARE <= value <= SpanKind.WANTED, "a kind of span", value)
    return SpanKind(value)


def _read_address(value: Any) -> Address:
    """Numeric only: a name would make the sender's socket resolve it, for anybody who asks."""
    need(type(value) is tuple and len(value) >= 2, "an address", value)
    host, port = value[:2]
    need(type(port) is int and 0 < port < 2**16, "a port", port)
    need(type(host) is str and _is_numeric(host), "a numeric host", host)
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
VALUE_DIGEST = Kind(f"{VALUE_DIGEST_BYTES} bytes", _same, _read_value_digest)
ANY_DIGEST = Kind(f"{VALUE_DIGEST_BYTES} bytes, or none", _same, _read_any_digest)
ADDRESS = Kind("array: numeric host, port", list, _read_address)
LIVENESS = Kind("0 alive, 1 suspect, 2 dead, 3 left", int, _read_liveness)
BOUND = Kind("uint64", lambda bound: int(bound, 16), _read_bound)
SPAN_KIND = Kind("0 compare, 1 held, 2 wanted", int, _read_span_kind)
NONCE = uint(NONCE_MAX)
COUNT = uint(2**32 - 1)
SPEED = ratio(1e12)


def to_array(layout: Layout, value: Any) -> list[Any]:
    fields = layout.fields
    while fields[-1].spared and getattr(value, fields[-1].name) == fields[-1].default:
        fields = fields[:-1]
    return [field.kind.write(getattr(value, field.name)) for field in fields]


def from_array(layout: Layout, array: Any) -> Any:
    need(type(array) is tuple, f"an array: {layout.build.__name__}", array)
    values = {
        field.name: field.kind.read(element) for field, element in zip(layout.fields, array, strict=False)
    }
    for field in layout.fields[len(values) :]:
        if field.default is REQUIRED:
            raise DecodeError(f"{layout.build.__name__} lacks `{field.name}`")
        values[field.name] = field.default
    return layout.build(**values)
