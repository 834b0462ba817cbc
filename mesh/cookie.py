"""Cookies: proof that whoever wants in receives packets at the address it sends from.

A cookie is the counter of the packet that was answered, and a keyed hash of (address, session, slot
of time, counter), so that the giver keeps nothing until it comes back (RFC 9147, section 5.1, has
the idea from Photuris). What the session sent up to that counter may have been seen and forgotten;
what it sends after it cannot have been, since a cookie dies before a session is forgotten. The
secret is drawn once per process and never leaves it.
"""

import hashlib
import hmac

import attrs

from mesh.effects import Address

COUNTER_BYTES = 5
HASH_BYTES = 7
"""A guess is right once in 2^56 tries, and then only meets the AEAD."""
COOKIE_BYTES = COUNTER_BYTES + HASH_BYTES
SLOT_S = 10.0
"""A cookie is good in its slot and the next: 10 to 20 s."""
LIFE_MAX_S = 2 * SLOT_S


@attrs.frozen
class Cookies:
    """One node's bakery."""

    secret: bytes = attrs.field(repr=False)

    def bake(self, mono: float, address: Address, session: bytes, counter: int) -> bytes:
        """Return the cookie of this moment. `mono`: seconds, monotonic; `counter`: below 2^40."""
        said = counter.to_bytes(COUNTER_BYTES, "big")
        return said + self._hash(int(mono // SLOT_S), address, session, said)

    def floor(self, cookie: bytes, mono: float, address: Address, session: bytes) -> int | None:
        """Return the counter in a cookie that this node gave to that session at that address lately, or None."""
        said, told = cookie[:COUNTER_BYTES], cookie[COUNTER_BYTES:]
        slot = int(mono // SLOT_S)
        for each in (slot, slot - 1):
            if hmac.compare_digest(told, self._hash(each, address, session, said)):
                return int.from_bytes(said, "big")
        return None

    def _hash(self, slot: int, address: Address, session: bytes, said: bytes) -> bytes:
        text = f"{slot} {address[0]} {address[1]} ".encode() + session + said
        return hashlib.blake2b(text, key=self.secret, digest_size=HASH_BYTES).digest()
