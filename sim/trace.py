"""The trace of a run: one line per event that matters, and a digest of them all.

Two runs of one seed must agree in every line; `first_difference` says where they
do not. Datagrams and bytes of links enter the digest without a line of their own.
"""

import hashlib
import itertools
import zlib
from collections import deque
from collections.abc import Callable

import attrs

TAIL_LINES = 400
"""Lines that are kept when the whole trace is not."""


Fields = tuple[tuple[str, object], ...]


@attrs.define
class Trace:
    """Lines in order. `keep` holds all of them in memory; otherwise only the last are held."""

    keep: bool = False
    listener: Callable[[float, str, str, Fields], None] | None = None
    """Called with the parts of each line as it is written. It may look, and must change nothing."""
    lines: deque[str] = attrs.field(init=False)
    count: int = attrs.field(init=False, default=0)
    _hash: "hashlib.blake2b" = attrs.field(init=False, factory=lambda: hashlib.blake2b(digest_size=16))

    def __attrs_post_init__(self) -> None:
        self.lines = deque(maxlen=None if self.keep else TAIL_LINES)

    def write(self, at: float, who: str, event: str, fields: Fields = ()) -> None:
        """Add a line: `  12.345678  node-3  member  node=node-1 state=dead`."""
        line = line_of(at, who, event, fields)
        self.lines.append(line)
        self.count += 1
        self._hash.update(line.encode() + b"\n")
        if self.listener is not None:
            self.listener(at, who, event, fields)

    def carried(self, at: float, source: str, target: str, data: bytes) -> None:
        """Let bytes that were sent enter the digest."""
        self._hash.update(f"{at!r} {source} {target} {zlib.crc32(data)}\n".encode())

    def tail(self, count: int) -> list[str]:
        """Return the last lines."""
        return list(self.lines)[-count:]

    def digest(self) -> str:
        """Return the digest of everything so far, as hex."""
        return self._hash.hexdigest()


def line_of(at: float, who: str, event: str, fields: Fields = ()) -> str:
    """The text of one line; `at` is virtual seconds."""
    text = " ".join(f"{name}={value}" for name, value in fields)
    return f"{at:12.6f}  {who:<9} {event}" + (f"  {text}" if text else "")


def first_difference(one: Trace, other: Trace) -> str | None:
    """Return the first line that differs, from both sides; None if all that were kept agree."""
    for number, (left, right) in enumerate(itertools.zip_longest(one.lines, other.lines), start=1):
        if left != right:
            return f"line {number}:\n  {left}\n  {right}"
    return None
