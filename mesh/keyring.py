"""Mesh keys: the one secret that makes a node a member, and the ring of them that makes rotation possible.

A key file has one key per line, `ID KEY`: an id of 1 to 255, which travels in the clear, and
32 random bytes in base64 or hex. The first line seals; every line opens. To rotate: add the new
key below on every node, then move it to the top on every node, then take the old one away on
every node; a ring that knows both sides of each step hears everybody throughout.

Everything else is derived from the secret by HKDF-SHA256 (RFC 5869) under a name of its own, so
that no derived key says anything about another, or about the secret.
"""

import base64
import binascii
import hashlib
import re

import attrs
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mesh.errors import MeshError

KEY_BYTES = 32
"""Length of a mesh key: AES-256's."""
KEY_ID_MAX = 255
KEYS_MAX = 8
"""Keys in one ring; a rotation needs two."""
FILE_BYTES_MAX = 4096
"""Most bytes of a key file that are read."""
DISTINCT_BYTES_MIN = 8
"""A key with fewer distinct bytes was typed, not drawn: 32 random bytes have 30 of them, and fewer
than 8 once in 10^40 draws."""
CHECK_BYTES = 4
"""Enough to tell a wrong key from a damaged packet; says nothing useful about the key."""

_LINE = re.compile(r"(\d{1,3})[ \t]+(\S+)")


class KeyringError(MeshError):
    """A key file that cannot be used. The operator's mistake; no state changed."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


@attrs.frozen
class MeshKey:
    """One mesh key. `repr` does not show the secret."""

    id: int
    """1 to 255; 0 on the wire means unsealed."""
    secret: bytes = attrs.field(repr=False)
    """KEY_BYTES bytes."""
    knock_key: bytes = attrs.field(init=False, repr=False, eq=False)
    """Authenticates knocks, before any session exists."""
    check: bytes = attrs.field(init=False, eq=False)
    """CHECK_BYTES that tell two keys of one id apart; public."""

    def __attrs_post_init__(self) -> None:
        assert 1 <= self.id <= KEY_ID_MAX and len(self.secret) == KEY_BYTES
        object.__setattr__(self, "knock_key", self.derive(b"knock"))
        object.__setattr__(self, "check", self.derive(b"check", CHECK_BYTES))

    def derive(self, name: bytes, length: int = KEY_BYTES) -> bytes:
        """Return `length` bytes of the key named `name`; the same on every node."""
        return HKDF(hashes.SHA256(), length, None, b"inferno 1 " + name).derive(self.secret)

    def session_key(self, session: bytes) -> bytes:
        """Return the AEAD key of one sender's session."""
        return self.derive(b"session " + session)


@attrs.frozen
class Keyring:
    """The keys that a node holds: the first seals, all open. Never empty, no id twice."""

    keys: tuple[MeshKey, ...]

    @property
    def first(self) -> MeshKey:
        """The key that seals."""
        return self.keys[0]

    def by_id(self) -> dict[int, MeshKey]:
        """Return every key by its id."""
        return {key.id: key for key in self.keys}


def label_bytes(label: str) -> bytes:
    """Return the 8 bytes by which packets are bound to a mesh's name."""
    return hashlib.blake2b(label.encode(), digest_size=8, person=b"inferno-label").digest()


def line(key: MeshKey) -> str:
    """Return a key as a line of a key file, without its end."""
    return f"{key.id} {base64.b64encode(key.secret).decode()}"


def parse(text: str) -> Keyring:
    """Read a key file: `ID KEY` lines, blank ones and `#` comments between. Raises KeyringError."""
    keys: dict[int, MeshKey] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].strip()
        if words:
            key = _key(words, number)
            if key.id in keys:
                raise KeyringError(
                    f"line {number}: key id `{key.id}` is there twice", "give each key its own id"
                )
            keys[key.id] = key
    if not keys:
        raise KeyringError("there is no key in it", "`python -m node keys` makes one")
    if len(keys) > KEYS_MAX:
        raise KeyringError(f"`{len(keys)}` keys are more than {KEYS_MAX}", "take away those that nobody uses")
    return Keyring(tuple(keys.values()))


def _key(words: str, number: int) -> MeshKey:
    match = _LINE.fullmatch(words)
    if match is None or not 1 <= int(match[1]) <= KEY_ID_MAX:
        raise KeyringError(
            f"line {number} is not `ID KEY`", f"a line is an id of 1 to {KEY_ID_MAX}, a space, and the key"
        )
    secret = _secret(match[2])
    if secret is None:
        raise KeyringError(
            f"line {number}: the key is neither base64 nor hex", "`python -m node keys` makes one"
        )
    if len(secret) != KEY_BYTES:
        raise KeyringError(
            f"line {number}: the key has `{len(secret)}` bytes, not {KEY_BYTES}",
            "`python -m node keys` makes one",
        )
    if len(set(secret)) < DISTINCT_BYTES_MIN:
        raise KeyringError(
            f"line {number}: the key was not drawn at random: it has fewer than {DISTINCT_BYTES_MIN} distinct bytes",
            "`python -m node keys` makes one",
        )
    return MeshKey(int(match[1]), secret)


def _secret(word: str) -> bytes | None:
    """Read hex where the word is hex of the right length, base64 (plain or URL-safe) otherwise."""
    if len(word) == 2 * KEY_BYTES and re.fullmatch(r"[0-9A-Fa-f]+", word):
        return bytes.fromhex(word)
    try:
        padded = word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4)
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        return None
