"""What a grammar asks of a sequence, step by step: which ids may come next.

A constraint's state is a function of the grammar's bytes and of the produced ids alone, so an attempt that brings
emitted ids goes on as if nothing had happened. `node.engine.grammar` implements it with a library; the pure
cores know only this.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol


class Constraint(Protocol):
    """The grammar of one sequence, as far as it has been followed."""

    failure: str
    """Why it cannot be followed any further, in words for the client; empty while all is well."""

    @property
    def allowed(self) -> bytes:
        """The ids that may come next: bit `id % 8` of byte `id // 8`. At least one, unless it has failed."""

    @property
    def complete(self) -> bool:
        """Whether the output is whole and nothing but an end may follow."""

    def push(self, id: int) -> None:
        """Take the next id, one of the allowed."""

    def ahead(self, ids: Sequence[int]) -> list[bytes]:
        """Return what would be allowed after each of `ids`, as far as they are allowed; nothing changes."""


class Grammars(Protocol):
    """What compiles grammars for one model's vocabulary."""

    def begin(self, source: bytes, emitted: Sequence[int]) -> Constraint:
        """Return a grammar's state after the emitted ids. Raises TextError, or `Strayed`."""


class Strayed(Exception):
    """Emitted ids that this engine's grammar would not have allowed: another engine's version differs."""


def leaves_any(allowed: bytes, banned: Iterable[int]) -> bool:
    """Return whether an id is allowed that is not banned."""
    bits = int.from_bytes(allowed, "little")
    for id in banned:
        bits &= ~(1 << id)
    return bits != 0


def ids_of(allowed: bytes) -> list[int]:
    """Return the allowed ids in order. O(vocabulary)."""
    return [8 * index + bit for index, byte in enumerate(allowed) for bit in range(8) if byte >> bit & 1]
