"""The outside of a sealed datagram: what may be read before anything is opened.

    header    = version (1) | key id (1) | session (8) | kind and counter (6)
    DATA      = header | sealed packet
    ADMIT     = header | cookie (12) | sealed packet, perhaps empty
    KNOCK     = header | key check (4) | label check (4) | wall clock, ms (6) | zeros (10) | MAC (16)
    CHALLENGE = header | kind of answer and counter that is answered (6) | sealed: cookie (12), ms (6)

Kind is the upper two bits of the last six bytes of the header, the counter the other 46. The
nonce of the AEAD is those six bytes behind six zeros: unique under a session's key, since a
counter is never used twice. Sealed parts end in a tag of 16 bytes. A packet goes in without
its first two bytes, which are the header's.
"""

import enum

import attrs

HEADER_BYTES = 16
TAG_BYTES = 16
SESSION_BYTES = 8
"""Random, so that two of a million sessions under one mesh key coincide once in 4 * 10^7 meshes; two
that did would share a key and its nonces."""
COUNTER_BITS = 46
COUNTER_MAX = 2**COUNTER_BITS - 1
ANSWER_BYTES_MIN = 56
"""Length of a knock and of a challenge. Nothing shorter is challenged, so an answer is never longer
than what caused it: no amplification."""
SHORTEST_BYTES = HEADER_BYTES + TAG_BYTES
PACKET_HEADER_BYTES = 2
"""Version and key id, which a packet loses on its way into a sealed datagram."""


class Kind(enum.IntEnum):
    """What a sealed datagram is."""

    DATA = 0
    ADMIT = 1
    KNOCK = 2
    CHALLENGE = 3


class Why(enum.IntEnum):
    """What a challenge says of the datagram that it answers."""

    STRANGER = 0
    """The session is not known here: nothing was opened; come again with the cookie."""
    PATH = 1
    """It was opened, but from that address nothing has come before: prove it."""
    WELL = 2
    """A knock of a session that is known here."""


@attrs.frozen
class Head:
    """A header that was read."""

    key_id: int
    session: bytes
    kind: int
    counter: int


def word(kind: int, counter: int) -> bytes:
    """Return the six bytes that hold a kind and a counter."""
    return (kind << COUNTER_BITS | counter).to_bytes(6, "big")


def unword(six: bytes) -> tuple[int, int]:
    """Return the kind and the counter of six bytes."""
    value = int.from_bytes(six, "big")
    return value >> COUNTER_BITS, value & COUNTER_MAX


def nonce(header: bytes) -> bytes:
    """Return the AEAD's nonce of a datagram."""
    return b"\0\0\0\0\0\0" + header[10:HEADER_BYTES]
