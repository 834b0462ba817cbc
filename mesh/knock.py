"""Knocks: how a node asks for another's session, and why one is refused before any session is looked at.

A knock says which key and which mesh it means by checks of 4 bytes, so that the one knocked at can
tell a wrong key from a wrong name, and is authenticated by a keyed BLAKE2b, a third of the cost of a
session's key: a forged knock costs its receiver a microsecond and gets no answer.
"""

import hashlib
import hmac

from mesh.envelope import ANSWER_BYTES_MIN, TAG_BYTES
from mesh.keyring import CHECK_BYTES, MeshKey

_KEY_CHECK = slice(16, 20)
_LABEL_CHECK = slice(20, 24)
_MAC_AT = ANSWER_BYTES_MIN - TAG_BYTES
_ZEROS = bytes(_MAC_AT - 30)


def knock(header: bytes, key: MeshKey, label: bytes, wall: float) -> bytes:
    """Return the knock with that header. `wall`: seconds since the epoch; `label`: 8 bytes."""
    clock = (round(wall * 1000) & (2**48 - 1)).to_bytes(6, "big")
    text = header + key.check + _label_check(key, label) + clock + _ZEROS
    return text + _mac(key, text)


def refusal(data: bytes, key: MeshKey, label: bytes) -> str:
    """Return why a knock is refused, as a word for the counters; empty if it is authentic."""
    if len(data) != ANSWER_BYTES_MIN:
        return "malformed"
    if data[_KEY_CHECK] != key.check:
        return "wrong_key"
    if data[_LABEL_CHECK] != _label_check(key, label):
        return "wrong_label"
    return "" if hmac.compare_digest(data[_MAC_AT:], _mac(key, data[:_MAC_AT])) else "forged"


def _label_check(key: MeshKey, label: bytes) -> bytes:
    return hashlib.blake2b(label, key=key.knock_key, digest_size=CHECK_BYTES).digest()


def _mac(key: MeshKey, text: bytes) -> bytes:
    return hashlib.blake2b(text, key=key.knock_key, digest_size=TAG_BYTES).digest()
