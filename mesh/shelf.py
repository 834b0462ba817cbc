"""What is held of the members' metadata: values by their digest, and whose they are.

A value is kept once, however many members publish it, and as long as one of them does. What a member publishes is
its mark, the digest that stands in its account; the value may still be missing. Invariants: whoever has a mark is
among the users of its digest; no value is held without a user; values take at most `size_max` together,
our own apart.
"""

import hashlib

import attrs

from mesh.kinds import VALUE_DIGEST_BYTES

SHELF_BYTES_MAX = 64 * 2**20
"""Of all values together: 1,024 of the largest size. Members beyond it stay without, and are counted."""


def digest_of(value: bytes) -> bytes:
    """Return by what a value is known, 16 bytes; nothing if it is empty, for that is no value."""
    if not value:
        return b""
    return hashlib.blake2b(value, digest_size=VALUE_DIGEST_BYTES, person=b"inferno-meta").digest()


@attrs.define
class Shelf:
    """Values and marks. Each operation costs O(1)."""

    size_max: int = SHELF_BYTES_MAX
    size: int = attrs.field(init=False, default=0)
    """Bytes of all values that are held."""
    _values: dict[bytes, bytes] = attrs.field(init=False, factory=dict)
    _users: dict[bytes, dict[str, None]] = attrs.field(init=False, factory=dict)
    _marks: dict[str, bytes] = attrs.field(init=False, factory=dict)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._values

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids of all who have a mark."""
        return tuple(self._marks)

    def mark(self, node: str) -> bytes:
        """The digest that `node` publishes, as far as was noted; empty for none."""
        return self._marks.get(node, b"")

    def users(self, digest: bytes) -> tuple[str, ...]:
        """Who publishes this value, in the order in which they were noted."""
        return tuple(self._users.get(digest, ()))

    def value(self, digest: bytes) -> bytes | None:
        """The value with this digest, if it is held."""
        return self._values.get(digest)

    def note(self, node: str, digest: bytes) -> None:
        """`node` publishes this digest from now on, empty for none; a value that nobody publishes any more goes."""
        before = self._marks.pop(node, b"")
        if digest:
            self._marks[node] = digest
            self._users.setdefault(digest, {})[node] = None
        if before and before != digest:
            del self._users[before][node]
            if not self._users[before]:
                del self._users[before]
                self.size -= len(self._values.pop(before, b""))

    def fits(self, size: int) -> bool:
        """Whether there is room for a value of `size` bytes."""
        return self.size + size <= self.size_max

    def put(self, value: bytes, own: bool = False) -> bool:
        """Keep a value that somebody publishes, and that fits or is our own. Returns whether it is kept now."""
        digest = digest_of(value)
        if digest in self._values or digest not in self._users or not (own or self.fits(len(value))):
            return False
        self._values[digest] = value
        self.size += len(value)
        return True
