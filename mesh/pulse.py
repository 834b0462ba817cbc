"""The messages of an idle mesh, `Ping` and `Ack`, and of one that spreads news, `Gossip`, as bytes by hand.

The tables of `mesh.codec` say what the bytes mean, and read and write everything. These three are nearly all
that a mesh says, so their common shape, in which each integer takes eight bytes (ids and nonces are random, so
that almost every one does) and no coordinate follows, is read and written here without going through the tables.
Whatever has another shape is left to the tables: `read` and `item` return None for it. A test holds that both ways
give the same bytes and the same values.

    ping   01 001c 93  cf source  cf nonce  cf target
    ack    02 001d 93  cf source  cf nonce  c4 08 digest
    gossip 09 000a 91  cf source
"""

import struct

from mesh.kinds import DIGEST_BYTES, NONCE_MAX
from mesh.messages import Ack, Gossip, Message, Ping

GOSSIP = struct.Struct(">5s8s")
PING = struct.Struct(">5s8scQc8s")
ACK = struct.Struct(">5s8scQ2s8s")
PING_HEAD = b"\x01\x00\x1c\x93\xcf"
"""Type, length, array of three, and the mark of an integer of eight bytes."""
GOSSIP_HEAD = b"\x09\x00\x0a\x91\xcf"
ACK_HEAD = b"\x02\x00\x1d\x93\xcf"
LONG = b"\xcf"
"""msgpack: an integer of eight bytes follows."""
EIGHT_BYTES = b"\xc4\x08"
"""msgpack: a byte string of eight bytes follows."""
SHORT_MAX = 2**32 - 1
"""Integers up to this take fewer bytes."""
SHORT_ID = "00000000ffffffff"
"""Ids up to this are such integers; text of one length is ordered as the numbers are."""
NOBODY = bytes(8)


def item(message: Message) -> bytes | None:
    """Encode the message as an item; None if it has not the common shape."""
    kind = type(message)
    if kind is Ping and not message.coordinate:
        nonce, source, target = message.nonce, message.source, message.target
        if nonce > SHORT_MAX and source > SHORT_ID and target > SHORT_ID:
            return PING.pack(PING_HEAD, bytes.fromhex(source), LONG, nonce, LONG, bytes.fromhex(target))
    elif kind is Ack and not message.coordinate:
        nonce, source, digest = message.nonce, message.source, message.digest
        assert len(digest) == DIGEST_BYTES, "a digest has one length"
        if nonce > SHORT_MAX and source > SHORT_ID:
            return ACK.pack(ACK_HEAD, bytes.fromhex(source), LONG, nonce, EIGHT_BYTES, digest)
    elif kind is Gossip and message.source > SHORT_ID:
        return GOSSIP.pack(GOSSIP_HEAD, bytes.fromhex(message.source))
    return None


def read(data: bytes, at: int) -> tuple[Message, int] | None:
    """Decode the item that begins at `at`, and say where the next does; None if it has not the common shape."""
    length = len(data) - at
    if length >= PING.size and data.startswith(PING_HEAD, at):
        _, source, long, nonce, long_too, target = PING.unpack_from(data, at)
        if long == long_too == LONG and nonce <= NONCE_MAX and source != NOBODY != target:
            return Ping(source.hex(), nonce, target.hex()), at + PING.size
    elif length >= ACK.size and data.startswith(ACK_HEAD, at):
        _, source, long, nonce, eight, digest = ACK.unpack_from(data, at)
        if long == LONG and eight == EIGHT_BYTES and nonce <= NONCE_MAX and source != NOBODY:
            return Ack(source.hex(), nonce, digest), at + ACK.size
    elif length >= GOSSIP.size and data.startswith(GOSSIP_HEAD, at):
        _, source = GOSSIP.unpack_from(data, at)
        if source != NOBODY:
            return Gossip(source.hex()), at + GOSSIP.size
    return None
