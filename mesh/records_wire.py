"""What nodes say to each other about records, as bytes, and back. Total: any bytes give a message or DecodeError.

    packet = version (1 byte) | key id (1 byte) | type (1 byte) | length (2 bytes, big-endian) | payload

is a membership packet of one item (`mesh.codec`), whose type is none of its own: the two never mix.
The payload is one msgpack array, the fields of the message in order (`mesh.wire`); new fields go
at the end. Records travel as opaque bytes within it: one that means nothing spoils no other, and a
field of a later version is kept and passed on by those who do not know it.
"""

import struct
from collections.abc import Callable
from typing import Any

import attrs

from mesh import wire
from mesh.codec import UNSEALED, VERSION
from mesh.errors import DecodeError, LimitError
from mesh.hlc import WALL_MS_MAX, node_id
from mesh.records import BUCKETS, HASH_BYTES, ROW_BYTES_MAX
from mesh.wire import field, flag, integer, many, raw

_HEAD = struct.Struct(">BBBH")
HEAD_BYTES = _HEAD.size
PAYLOAD_BYTES_MAX = 2**16 - 1
PAGE_BYTES_MAX = 40 * 1024
"""Of records or of hashes in one message: with what else it carries, the payload stays under its limit."""
ROWS_IN_MESSAGE_MAX = 2048
WANTED_MAX = 2048
"""Rows asked for at once: their hashes take 16 KiB."""

_wall = integer(0, WALL_MS_MAX)


def _exactly(size: int) -> Callable[[Any], bytes]:
    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise DecodeError(f"{size} bytes were expected")
        return value

    return read


def _multiple(bytes_max: int) -> Callable[[Any], bytes]:
    limited = raw(bytes_max)

    def read(value: Any) -> bytes:
        if len(limited(value)) % HASH_BYTES:
            raise DecodeError("whole hashes were expected")
        return value

    return read


@attrs.frozen
class Claim:
    """Who speaks, and from which ground. Begins every message."""

    source: str = field(node_id)
    wall_ms: int = field(_wall)
    """The speaker's wall clock."""
    floor_ms: int = field(_wall)
    """The floor of its table; see `mesh.records`."""
    founded_ms: int = field(_wall)
    """Least wall time of any stamp it ever saw; see `mesh.horizon`."""


@attrs.frozen
class RecordDigest:
    """Here is the fingerprint of my table. Answered, if it differs, by RecordSums; a datagram."""

    claim: Claim = field(wire.record(Claim))
    digest: bytes = field(_exactly(HASH_BYTES))


@attrs.frozen
class RecordSums:
    """Here is the sum of each bucket, at the higher of our floors. Answered by RecordHashes. Reliable."""

    claim: Claim = field(wire.record(Claim))
    at_ms: int = field(_wall)
    """The floor at which the sums were taken."""
    sums: bytes = field(_exactly(BUCKETS * HASH_BYTES))


@attrs.frozen
class Bucket:
    """The hashes of all rows of one bucket."""

    bucket: int = field(integer(0, BUCKETS - 1))
    hashes: bytes = field(_multiple(PAGE_BYTES_MAX))


@attrs.frozen
class RecordHashes:
    """Here are the hashes of the rows in buckets that differ. Answered by RecordRows. Reliable."""

    claim: Claim = field(wire.record(Claim))
    at_ms: int = field(_wall)
    buckets: tuple[Bucket, ...] = field(many(wire.record(Bucket), BUCKETS))


@attrs.frozen
class RecordRows:
    """Here are rows that you lack; send me those that I lack. Reliable."""

    claim: Claim = field(wire.record(Claim))
    rows: tuple[bytes, ...] = field(many(raw(ROW_BYTES_MAX), ROWS_IN_MESSAGE_MAX))
    wanted: bytes = field(_multiple(WANTED_MAX * HASH_BYTES), b"")
    """Hashes of rows that the speaker lacks."""
    more: bool = field(flag, False)
    """Whether there was more than a message holds: compare again at once."""


@attrs.frozen
class RecordNews:
    """Here are rows that are news. A datagram, or reliable if one is too large for that."""

    claim: Claim = field(wire.record(Claim))
    rows: tuple[bytes, ...] = field(many(raw(ROW_BYTES_MAX), ROWS_IN_MESSAGE_MAX))


Message = RecordDigest | RecordSums | RecordHashes | RecordRows | RecordNews

TYPES: dict[int, type[Message]] = {
    64: RecordDigest,
    65: RecordSums,
    66: RecordHashes,
    67: RecordRows,
    68: RecordNews,
}
"""Item types. A number is never used again for anything else."""
_NUMBERS = {kind: number for number, kind in TYPES.items()}


def is_of_records(data: bytes) -> bool:
    """Whether a packet is for the records, not for membership. Says nothing about its sense."""
    return len(data) >= HEAD_BYTES and data[2] in TYPES


def encode(message: Message) -> bytes:
    """Encode one packet. Raises LimitError if it is too large."""
    payload = wire.pack(message)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise LimitError(f"{type(message).__name__} of {len(payload)} bytes is over {PAYLOAD_BYTES_MAX}")
    return _HEAD.pack(VERSION, UNSEALED, _NUMBERS[type(message)], len(payload)) + payload


def decode(data: bytes) -> Message:
    """Decode one packet. Raises DecodeError for anything that is not one; total. O(bytes)."""
    if len(data) < HEAD_BYTES:
        raise DecodeError("a packet has a head")
    version, key, number, length = _HEAD.unpack_from(data)
    if (version, key) != (VERSION, UNSEALED) or number not in TYPES or length != len(data) - HEAD_BYTES:
        raise DecodeError(
            f"no packet of records: version {version}, key {key}, type {number}, {length} bytes"
        )
    return wire.unpack(TYPES[number], data[HEAD_BYTES:])


def joined(hashes: list[int]) -> bytes:
    """Hashes as bytes."""
    return b"".join(value.to_bytes(HASH_BYTES, "big") for value in hashes)


def split(data: bytes) -> list[int]:
    """Bytes as hashes."""
    return [int.from_bytes(data[at : at + HASH_BYTES], "big") for at in range(0, len(data), HASH_BYTES)]
