"""The two messages of an idle mesh, `Ping` and `Ack`, as bytes by hand.

The tables of `mesh.codec` say what the bytes mean, and read and write everything. These two are nearly all
that a quiet mesh says, so their common shape, in which each integer takes eight bytes (ids and nonces are
random, so that almost every one does), is read and written here without going through the tables. Whatever has
another shape is left to the tables: `read` and `item` return None for it. A test holds that both ways give the
same bytes and the same values.

    ping   01 001c 93  cf source  cf nonce  cf target
    ack    02 001d 93  cf source  cf nonce  c4 08 digest
"""

from mesh.messages import Ack, Message, Ping

LONG = 0xCF
"""msgpack: an integer of eight bytes follows."""
PING_HEAD = b"\x01\x00\x1c\x93\xcf"
"""Type, length, array of three, and the mark of its first integer."""
ACK_HEAD = b"\x02\x00\x1d\x93\xcf"
HEAD_BYTES = len(PING_HEAD)
PING_BYTES = 31
ACK_BYTES = 32
DIGEST_BYTES = 8
SHORT_MAX = 2**32 - 1
"""Integers up to this take fewer bytes."""
SHORT_ID = "00000000"
"""Ids that begin so are such integers."""
NONE_ID = "0000000000000000"
NONCE_ZEROS = b"\x00\x00"
"""A nonce has 48 bits, so that its first two bytes are zero."""


def item(message: Message) -> bytes | None:
    """Encode the message as an item; None if it has not the common shape."""
    if type(message) is Ping:
        if message.nonce > SHORT_MAX and message.target[:8] != SHORT_ID != message.source[:8]:
            nonce = message.nonce.to_bytes(8, "big")
            source, target = bytes.fromhex(message.source), bytes.fromhex(message.target)
            return b"%b%b\xcf%b\xcf%b" % (PING_HEAD, source, nonce, target)
    elif type(message) is Ack and message.nonce > SHORT_MAX and message.source[:8] != SHORT_ID:
        nonce = message.nonce.to_bytes(8, "big")
        assert len(message.digest) == DIGEST_BYTES, "a digest has one length"
        return b"%b%b\xcf%b\xc4\x08%b" % (ACK_HEAD, bytes.fromhex(message.source), nonce, message.digest)
    return None


def read(data: bytes, at: int) -> tuple[Message, int] | None:
    """Decode the item that begins at `at`, and say where the next does; None if it has not the common shape."""
    head = data[at : at + HEAD_BYTES]
    if head == PING_HEAD:
        end = at + PING_BYTES
        if len(data) < end or data[at + 13] != LONG or data[at + 22] != LONG:
            return None
        source, target = data[at + 5 : at + 13].hex(), data[at + 23 : end].hex()
        if source == NONE_ID or target == NONE_ID or data[at + 14 : at + 16] != NONCE_ZEROS:
            return None
        return Ping(source, int.from_bytes(data[at + 16 : at + 22], "big"), target), end
    if head == ACK_HEAD:
        end = at + ACK_BYTES
        if len(data) < end or data[at + 13] != LONG or data[at + 22 : at + 24] != b"\xc4\x08":
            return None
        source = data[at + 5 : at + 13].hex()
        if source == NONE_ID or data[at + 14 : at + 16] != NONCE_ZEROS:
            return None
        return Ack(source, int.from_bytes(data[at + 16 : at + 22], "big"), data[at + 24 : end]), end
    return None
