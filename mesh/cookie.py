"""Cookies: proof that whoever wants in receives packets at the address it sends from.

A cookie is a keyed hash of (address, session, slot of time), so that the giver keeps nothing
until it comes back (RFC 9147, section 5.1, has the idea from Photuris). The secret is drawn
once per process and never leaves it.
"""

import hashlib
import hmac

import attrs

from mesh.effects import Address

COOKIE_BYTES = 12
SLOT_S = 10.0
"""A cookie is good in its slot and the next: 10 to 20 s."""
LIFE_MAX_S = 2 * SLOT_S


@attrs.frozen
class Cookies:
    """One node's bakery."""

    secret: bytes = attrs.field(repr=False)

    def bake(self, mono: float, address: Address, session: bytes) -> bytes:
        """Return the cookie of this moment. `mono`: seconds, monotonic."""
        return self._of(int(mono // SLOT_S), address, session)

    def is_good(self, cookie: bytes, mono: float, address: Address, session: bytes) -> bool:
        """Whether this node gave that cookie to that session at that address lately."""
        slot = int(mono // SLOT_S)
        return any(hmac.compare_digest(cookie, self._of(s, address, session)) for s in (slot, slot - 1))

    def _of(self, slot: int, address: Address, session: bytes) -> bytes:
        text = f"{slot} {address[0]} {address[1]} ".encode() + session
        return hashlib.blake2b(text, key=self.secret, digest_size=COOKIE_BYTES).digest()
