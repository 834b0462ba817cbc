"""Which part of a prompt decides where it goes: prefixes that few continue alike, found without an index.

The canonical prompt is the bytes of its segments in order, cut into blocks of `BLOCK_BYTES` (a constant of the
mesh, whatever the pages of an engine). Block by block a chain of hashes names the prefix up to there, salted by
model, adapter and tenant. A prefix is worth a home of its own (`mesh.affinity`) if it belongs to one conversation:
a system prompt that everybody shares would make one worker hot and tell nothing. So an entry remembers how
prefixes went on: one that was continued in `BRANCHES` different ways is shared, and with it all that is shorter. The
key of a prompt is its shortest prefix that is longer than every shared one. The turns of a conversation have one
key, whatever their length, since they only grow at the end; entries that see the same traffic learn the same depth.

Invariants: a prompt costs hashes up to `AHEAD` blocks beyond what is remembered, `DEPTH_MAX` at most; at most
`PREFIXES_MAX` prefixes with `BRANCHES` continuations each are remembered, those met longest ago go first.
"""

import hashlib
from array import array
from collections.abc import Iterator

import attrs

from mesh.attempt import Attempt

BLOCK_BYTES = 256
"""Some 64 tokens of text: a conversation tells itself from its system prompt within its first question or answer."""

DEPTH_MAX = 256
"""64 KiB: what is shared beyond says nothing about where to go."""

AHEAD = 32
"""8 KiB: blocks that are learned of what was not met before; a system prompt is known after a few prompts."""

BRANCHES = 4
"""A prompt that is edited or asked again a few times is still one conversation."""

PREFIXES_MAX = 8192

KEY_BYTES = 8
"""A collision sends two conversations to one home, no more."""


def salt_of(request: Attempt) -> bytes:
    """Return what separates the chains of those who share no cache: model, adapter and tenant."""
    return "\0".join((request.model, request.adapter, request.tenant)).encode(errors="surrogatepass")


def head_of(request: Attempt) -> bytes:
    """Return the canonical prompt as far as its chain can go. O(`DEPTH_MAX` * `BLOCK_BYTES`)."""
    left = DEPTH_MAX * BLOCK_BYTES
    pieces = []
    for segment in request.prompt:
        piece = _bytes_of(segment.kind, segment.text[:left], segment.ids[:left])[:left]
        pieces.append(piece)
        left -= len(piece)
        if left <= 0:
            break
    return b"".join(pieces)


def _bytes_of(kind: str, text: str, ids: tuple[int, ...]) -> bytes:
    numbers = array("Q", ids)
    return kind.encode(errors="surrogatepass") + text.encode(errors="surrogatepass") + numbers.tobytes()


def chain(salt: bytes, head: bytes) -> Iterator[bytes]:
    """Yield the key of each prefix of full blocks, the shortest first."""
    key = hashlib.blake2b(salt, digest_size=KEY_BYTES).digest()
    for start in range(0, min(len(head), DEPTH_MAX * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        key = hashlib.blake2b(key + head[start : start + BLOCK_BYTES], digest_size=KEY_BYTES).digest()
        yield key


@attrs.define
class Prefixes:
    """What one entry learned of how prefixes go on."""

    _after: dict[bytes, dict[bytes, None]] = attrs.field(init=False, factory=dict)
    """prefix -> its different continuations, the one met last at the end; likewise the prefixes."""

    def __len__(self) -> int:
        return len(self._after)

    def key_of(self, salt: bytes, head: bytes) -> bytes:
        """Learn from a prompt, and return the key of its home; empty if it is short or shared to its end."""
        home, ahead, before = b"", AHEAD, b""
        for key in chain(salt, head):
            if before:
                ahead -= before not in self._after
                self._learn(before, key)
            if not home or self.is_shared(before):
                home = key
            if ahead == 0:
                return home
            before = key
        return b"" if self.is_shared(before) else home

    def is_shared(self, key: bytes) -> bool:
        """Whether so many went on differently after this prefix that it tells nothing."""
        return len(self._after.get(key, ())) == BRANCHES

    def _learn(self, key: bytes, after: bytes) -> None:
        known = self._after.pop(key, None)
        if known is None:
            known = {}
            if len(self._after) >= PREFIXES_MAX:
                del self._after[next(iter(self._after))]
        self._after[key] = known
        known.pop(after, None)
        known[after] = None
        if len(known) > BRANCHES:
            del known[next(iter(known))]
