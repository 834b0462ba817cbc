"""Records on the wire: msgpack arrays of declared fields that may grow at their end.

A record is a frozen attrs class whose fields are made with `field(reader)`. Its
bytes are the array of its fields in declared order. Decoding is total: a reader
checks type and bound, elements beyond the known fields are ignored, missing ones
take their default, and whatever does not fit raises DecodeError, nothing else.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import attrs
import msgpack

from mesh.errors import DecodeError, shown

Reader = Callable[[Any], Any]
Record = TypeVar("Record")

U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

ARRAY_ITEMS_MAX = 2**18
"""Most elements of one array: the emitted ids of the longest flight fit, a bomb does not."""


def integer(low: int = 0, high: int = U32_MAX) -> Reader:
    """Read an integer within [low, high]; bools are not integers."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise DecodeError(f"`{shown(value)}` is no integer of {low} to {high}")
        return value

    return read


def real(value: Any) -> float:
    """Read a finite number."""
    if type(value) not in (int, float) or not -1e308 < value < 1e308:
        raise DecodeError(f"`{shown(value)}` is no finite number")
    return float(value)


def flag(value: Any) -> bool:
    """Read a bool."""
    if type(value) is not bool:
        raise DecodeError(f"`{shown(value)}` is no boolean")
    return value


def string(bytes_max: int) -> Reader:
    """Read a string of at most `bytes_max` UTF-8 bytes."""

    def read(value: Any) -> str:
        if type(value) is not str or len(value.encode()) > bytes_max:
            raise DecodeError(f"a string of at most {bytes_max} bytes was expected")
        return value

    return read


def raw(bytes_max: int) -> Reader:
    """Read a byte string of at most `bytes_max` bytes."""

    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > bytes_max:
            raise DecodeError(f"at most {bytes_max} bytes were expected")
        return value

    return read


def optional(reader: Reader) -> Reader:
    """Read nil as None, anything else with `reader`."""
    return lambda value: None if value is None else reader(value)


def many(reader: Reader, items_max: int = ARRAY_ITEMS_MAX) -> Reader:
    """Read an array of at most `items_max` elements into a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) > items_max:
            raise DecodeError(f"an array of at most {items_max} elements was expected")
        return tuple(map(reader, value))

    return read


def pair(first: Reader, second: Reader) -> Reader:
    """Read an array of two elements; further ones are ignored."""

    def read(value: Any) -> tuple[Any, Any]:
        if type(value) not in (list, tuple) or len(value) < 2:
            raise DecodeError("an array of two elements was expected")
        return first(value[0]), second(value[1])

    return read


def record(cls: type[Record]) -> Reader:
    """Read a nested record."""
    return lambda value: from_array(cls, value)


def field(reader: Reader, default: Any = attrs.NOTHING) -> Any:
    """Declare a field of a record and how it is read from the wire."""
    return attrs.field(default=default, metadata={"read": reader})


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls))


@cache
def _readers(cls: type) -> tuple[tuple[str, Reader, bool], ...]:
    return tuple(
        (field.name, field.metadata["read"], field.default is attrs.NOTHING) for field in attrs.fields(cls)
    )


@cache
def _is_record(cls: type) -> bool:
    return attrs.has(cls)


PLAIN = frozenset((str, int, float, bytes, bool, type(None)))
"""What msgpack writes as it is: most fields, told apart here without a call for each."""


def to_array(value: Any) -> Any:
    """Turn a record, and the records within it, into plain arrays."""
    if _is_record(type(value)):
        items = [getattr(value, name) for name in _names(type(value))]
        return [item if type(item) in PLAIN else to_array(item) for item in items]
    if type(value) is tuple and value and _is_record(type(value[0])):
        return [to_array(item) for item in value]
    return value


def from_array(cls: type[Record], array: Any) -> Record:
    """Build a record from an array. Raises DecodeError; total."""
    if type(array) not in (list, tuple):
        raise DecodeError(f"{cls.__name__} is no array")
    readers = _readers(cls)
    values = [read(item) for (_, read, _), item in zip(readers, array, strict=False)]
    if len(values) < len(readers) and readers[len(values)][2]:
        raise DecodeError(f"{cls.__name__} lacks `{readers[len(values)][0]}`")
    return cls(*values)


def pack(value: Any) -> bytes:
    """Encode a record."""
    return msgpack.packb(to_array(value))


def unpack(cls: type[Record], data: bytes) -> Record:
    """Decode a record from bytes. Raises DecodeError; total."""
    return from_array(cls, _plain(data))


def first(data: bytes) -> Any:
    """Return the first field of a record that this process has encoded itself; nothing else is looked at."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.read_array_header()
    return unpacker.unpack()


def _plain(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            strict_map_key=True,
            max_array_len=ARRAY_ITEMS_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise DecodeError(f"no msgpack: {error!r:.80}") from None
