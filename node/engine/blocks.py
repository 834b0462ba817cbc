"""Paged blocks of the KV cache: who holds which, and which can be found again by what is in them.

A block holds the keys and values of `block_tokens` consecutive positions. A full
block is named by its key: a hash over the chain of all ids up to its end, salted
by the tenant, so that equal prefixes share blocks and no tenant can learn from
timings what another has asked. Each block is in exactly one place:

    held    by one or more sequences (a count per block)
    cached  held by nobody, named, kept until its room is needed (least recently used goes first)
    free    held by nobody, without a name

Only numbers live here; the tensors are the runner's. `check_integrity` says whether
the account is right, and is run whenever the scheduler is idle.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import attrs

from mesh.errors import LimitError

KEY_BYTES = 16
"""128 bits: among 2**40 blocks a collision has odds below 2**-48."""


def root_key(salt: str) -> bytes:
    """Return the key that a tenant's chains begin with."""
    return hashlib.blake2b(salt.encode(), digest_size=KEY_BYTES).digest()


def next_key(parent: bytes, ids: Sequence[int]) -> bytes:
    """Return the key of the full block that holds `ids` and follows the block named `parent`."""
    return hashlib.blake2b(parent + array("I", ids).tobytes(), digest_size=KEY_BYTES).digest()


def chain(salt: str, ids: Sequence[int], block_tokens: int) -> tuple[bytes, ...]:
    """Return the keys of the full blocks at the head of `ids`."""
    keys = [root_key(salt)]
    for start in range(0, len(ids) - block_tokens + 1, block_tokens):
        keys.append(next_key(keys[-1], ids[start : start + block_tokens]))
    return tuple(keys[1:])


@attrs.define
class Blocks:
    """The account of `count` blocks of `block_tokens` positions each, numbered from 0."""

    count: int
    block_tokens: int
    _holders: list[int] = attrs.field(init=False)
    _keys: list[bytes | None] = attrs.field(init=False)
    _named: dict[bytes, int] = attrs.field(init=False, factory=dict)
    _cached: dict[int, None] = attrs.field(init=False, factory=dict)
    _free: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self.count > 0 and self.block_tokens > 0
        self._holders = [0] * self.count
        self._keys = [None] * self.count
        self._free = list(range(self.count - 1, -1, -1))

    @property
    def tokens(self) -> int:
        """Positions that fit in all blocks."""
        return self.count * self.block_tokens

    @property
    def available(self) -> int:
        """Blocks that `allocate` could hand out now."""
        return len(self._free) + len(self._cached)

    def needed(self, tokens: int) -> int:
        """Return how many blocks hold `tokens` positions."""
        return -(-tokens // self.block_tokens)

    def match(self, keys: Iterable[bytes]) -> tuple[int, ...]:
        """Return the blocks named by the leading keys, as far as they are known. Changes nothing."""
        found = []
        for key in keys:
            block = self._named.get(key)
            if block is None:
                break
            found.append(block)
        return tuple(found)

    def cost(self, blocks: Iterable[int]) -> int:
        """Return how much `available` would sink if these blocks were shared."""
        return sum(block in self._cached for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Add a holder to blocks that `match` has found."""
        for block in blocks:
            assert self._keys[block] is not None, f"block {block} has no name"
            self._cached.pop(block, None)
            self._holders[block] += 1

    def allocate(self, count: int) -> tuple[int, ...]:
        """Hand out `count` blocks with one holder each; their old contents are forgotten.

        Raises LimitError, with nothing changed, if fewer are available.
        """
        if count > self.available:
            raise LimitError(f"`{count}` blocks are wanted, {self.available} of {self.count} are available")
        return tuple(self._take() for _ in range(count))

    def _take(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block = next(iter(self._cached))
            self._forget(block)
        self._holders[block] = 1
        return block

    def _forget(self, block: int) -> None:
        del self._cached[block]
        self._unname(block)

    def _unname(self, block: int) -> None:
        key, self._keys[block] = self._keys[block], None
        if key is not None:
            del self._named[key]

    def publish(self, block: int, key: bytes) -> None:
        """Name a held block whose positions have all been computed; the first of equal blocks wins."""
        assert self._holders[block] > 0, f"block {block} is nobody's"
        if self._keys[block] is None and key not in self._named:
            self._keys[block] = key
            self._named[key] = block

    def spoil(self, blocks: Iterable[int]) -> None:
        """Take the names of held blocks away: what is in them must not be found again."""
        for block in blocks:
            assert self._holders[block] > 0, f"block {block} is nobody's"
            self._unname(block)

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one hold on each; the deepest of a chain becomes the first to be evicted."""
        for block in reversed(blocks):
            assert self._holders[block] > 0, f"block {block} is released twice"
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._retire(block)

    def _retire(self, block: int) -> None:
        if self._keys[block] is None:
            self._free.append(block)
        else:
            self._cached[block] = None

    def check_integrity(self, held: Iterable[Sequence[int]]) -> None:
        """Assert that the account agrees with the blocks that sequences hold. O(blocks)."""
        counts = [0] * self.count
        for blocks in held:
            for block in blocks:
                counts[block] += 1
        assert counts == self._holders, "holders are miscounted"
        idle = sorted([*self._free, *self._cached])
        nobodys = [block for block, count in enumerate(counts) if count == 0]
        assert idle == nobodys, "a block is lost or in two places"
        names = {key: block for block, key in enumerate(self._keys) if key is not None}
        assert names == self._named, "names and blocks disagree"
        assert all(self._keys[block] is None for block in self._free), "a free block has a name"
        assert all(self._keys[block] is not None for block in self._cached), "a cached block has no name"
