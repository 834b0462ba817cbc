"""The small replicated state of a mesh, as one table: last writer wins, deletions are remembered.

A key (namespace, id) has at most one row. Its rank decides what survives a merge, always by `max`:

    live, deleted  its stamp, then its bytes
    revoked        the time until which it is kept, as if it were stamped then; then the same
    absent         the table's floor: whatever was written before it counts as known, and as deleted

so merging is idempotent, commutative and associative by construction, and a key's rank never falls.

The floor is what lets tombstones go. A table that knows everything written before time F may drop
the tombstones from before F, for it will refuse anything older that it does not hold: that must have
been deleted. `mesh.horizon` decides when the claim may be made; `raise_floor` makes it. Whoever
offers something that lies below the floor is answered with `epitaph`, a tombstone just under it.

Invariants:
- a key once deleted with stamp t never again holds a value with a stamp below t, collected or not;
- rows are kept as the bytes that came, fields of later versions included, so that digests agree
  between versions; `digest(floor)` is the sum of the rows' hashes, kept up at each change;
- at most ROWS_MAX rows and BYTES_MAX bytes. The last tenth is for what others wrote: a local write
  is refused before (LimitError), a row of a peer after (FULL, counted by the caller).
"""

import enum
import hashlib
from collections.abc import Iterator

import attrs

from mesh import wire
from mesh.errors import DecodeError, LimitError, shown
from mesh.hlc import COUNTER_MAX, Stamp
from mesh.wire import U64_MAX, field, integer, raw, string

NAMESPACE_BYTES_MAX = 32
ID_BYTES_MAX = 128
VALUE_BYTES_MAX = 16 * 1024
"""Keys, placements and registrations take hundreds of bytes; a blob belongs elsewhere."""
SIGNATURE_BYTES_MAX = 128
ROW_BYTES_MAX = VALUE_BYTES_MAX + 1024
"""One encoded record, with room for fields of later versions."""
ROWS_MAX = 16_384
BYTES_MAX = 32 * 2**20
"""Of all encoded rows together."""
LOCAL_SHARE = 0.9
"""How full a table may be for a local write: the rest absorbs what several nodes write at once, so
that tables do not differ for want of room."""
BUCKETS = 256
"""Ranges of keys (by the first byte of their hash) that are compared one by one."""
HASH_BYTES = 8
FOREVER_MS = 2**48 - 1
"""As `keep_until_ms`: the tombstone is never collected."""

EPITAPH_NODE = "f" * 16
"""Author of tombstones that nobody wrote."""

Key = tuple[str, str]
"""(namespace, id)."""
Rank = tuple[int, Stamp, bytes]


class Fate(enum.IntEnum):
    """What a row says of its key. Numbers travel."""

    LIVE = 0
    DELETED = 1
    REVOKED = 2
    """Deleted for good: nothing that is written before `keep_until_ms` brings it back."""


def _fate(value: object) -> Fate:
    if type(value) is not int or not Fate.LIVE <= value <= Fate.REVOKED:
        raise DecodeError(f"`{shown(value)}` is no fate of a record")
    return Fate(value)


@attrs.frozen
class Record:
    """One write of one key. Fields are declared in wire order; new ones go at the end, with a default."""

    namespace: str = field(string(NAMESPACE_BYTES_MAX))
    id: str = field(string(ID_BYTES_MAX))
    stamp: Stamp = field(wire.record(Stamp))
    """When, and by whom: `stamp.node` is the author."""
    value: bytes = field(raw(VALUE_BYTES_MAX), b"")
    fate: Fate = field(_fate, Fate.LIVE)
    keep_until_ms: int = field(integer(0, FOREVER_MS), 0)
    """Of a revocation: it counts as written then, and is held until the floor has passed it. When what it
    revokes expires by itself."""
    signature: bytes = field(raw(SIGNATURE_BYTES_MAX), b"")
    """Reserved for the author's signature; empty, and not checked."""

    @property
    def key(self) -> Key:
        """What it is about."""
        return (self.namespace, self.id)

    @property
    def author(self) -> str:
        """Node id of who wrote it."""
        return self.stamp.node

    @property
    def is_epitaph(self) -> bool:
        """Whether nobody wrote it: it follows from a floor."""
        return self.author == EPITAPH_NODE

    @property
    def is_live(self) -> bool:
        """Whether it is a value, not a tombstone."""
        return self.fate is Fate.LIVE


@attrs.frozen(eq=False)
class Row:
    """A record as it is held: its bytes as they came, and what follows from them."""

    record: Record
    blob: bytes
    hash: int
    bucket: int

    @classmethod
    def of(cls, record: Record) -> "Row":
        """Encode a record of our own. Raises LimitError when a field is over its limit."""
        blob = wire.pack(record)
        try:
            return cls.read(blob)
        except DecodeError as error:
            raise LimitError(
                f"record `{record.namespace}/{record.id:.64}` cannot be kept: {error}\n"
                f"hint: a value may have {VALUE_BYTES_MAX} bytes, an id {ID_BYTES_MAX},"
                f" a namespace {NAMESPACE_BYTES_MAX}"
            ) from None

    @classmethod
    def read(cls, blob: bytes) -> "Row":
        """Decode what a peer sent. Raises DecodeError; total."""
        if len(blob) > ROW_BYTES_MAX:
            raise DecodeError(f"a record of {len(blob)} bytes is over the limit of {ROW_BYTES_MAX}")
        record = wire.unpack(Record, blob)
        if not record.namespace or not record.id or (record.value and not record.is_live):
            raise DecodeError("a record needs a namespace and an id, and a tombstone has no value")
        if record.keep_until_ms and record.fate is not Fate.REVOKED:
            raise DecodeError("only a revocation is kept until some time")
        return cls(record, blob, _hash(blob), bucket_of(record.key))

    @property
    def rank(self) -> Rank:
        """What to compare: the greater survives. A revocation counts as written when it expires."""
        return (self.effective_ms, self.record.stamp, self.blob)

    @property
    def effective_ms(self) -> int:
        """The wall time up to which it rules its key; of a tombstone, a floor above it lets it go."""
        return max(self.record.stamp.wall_ms, self.record.keep_until_ms)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=HASH_BYTES).digest(), "big")


def bucket_of(key: Key) -> int:
    """The range of keys in which this one is compared."""
    return hashlib.blake2b("\0".join(key).encode(), digest_size=1).digest()[0]


def epitaph(key: Key, floor_ms: int) -> Record:
    """What a table with this floor says of a key that it does not hold: it was deleted before."""
    return Record(*key, Stamp(max(0, floor_ms - 1), COUNTER_MAX, EPITAPH_NODE), fate=Fate.DELETED)


class Merge(enum.Enum):
    """What became of a row that was offered."""

    TAKEN = "taken"
    KNOWN = "known"
    """Held already, byte for byte, or collected already."""
    OLD = "old"
    """Something greater is held."""
    BELOW = "below"
    """It lies below the floor and is not held: it was deleted. Answer with an `epitaph`."""
    FULL = "full"


class Table:
    """Rows by key. Each operation costs O(1), `scan` and `raise_floor` what they return and a little."""

    def __init__(self, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._namespaces: dict[str, dict[str, Row]] = {}
        self._by_hash: dict[int, Row] = {}
        self._tombs: dict[Key, Row] = {}
        self._sums = [0] * BUCKETS
        self._rows = 0
        self.bytes = 0
        """Encoded size of all rows."""
        self.changes = 0
        """Rows put in or taken out since the beginning: equal counts mean an unchanged table."""
        self.floor_ms = 0
        """Everything written before this is known, and its tombstones are gone. 0 claims nothing."""

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"<Table of {self._rows} rows, {len(self._tombs)} tombstones, floor {self.floor_ms}>"

    @property
    def tombstones(self) -> int:
        """How many rows are tombstones."""
        return len(self._tombs)

    def row(self, key: Key) -> Row | None:
        """What is held of a key, tombstones included."""
        return self._namespaces.get(key[0], {}).get(key[1])

    def get(self, key: Key) -> Record | None:
        """The live record of a key, or None."""
        row = self.row(key)
        return row.record if row is not None and row.record.is_live else None

    def scan(self, namespace: str, prefix: str = "") -> Iterator[Record]:
        """Yield the live records of a namespace whose id begins with `prefix`, by id. O(n log n)."""
        for name, row in sorted(self._namespaces.get(namespace, {}).items()):
            if row.record.is_live and name.startswith(prefix):
                yield row.record

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that hold anything, tombstones included, by name."""
        return tuple(sorted(self._namespaces))

    def rows(self) -> Iterator[Row]:
        """Yield everything that is held."""
        for rows in self._namespaces.values():
            yield from rows.values()

    def by_hash(self, hash_: int) -> Row | None:
        """The row whose bytes have this hash."""
        return self._by_hash.get(hash_)

    # Merging.

    def check_room(self, row: Row) -> None:
        """Raise LimitError unless a local write fits. A tombstone for what is held always does."""
        held = self.row(row.record.key)
        if not self._fits(row, held, LOCAL_SHARE):
            raise LimitError(
                f"the table of records is full: {self._rows} of {self._rows_max} rows,"
                f" {self.bytes} of {self._bytes_max} bytes\n"
                "hint: delete records; the room of deleted ones is free after the horizon"
            )

    def merge(self, row: Row) -> Merge:
        """Take the greater of what is held and what is offered."""
        held = self.row(row.record.key)
        verdict = self._judge(row, held)
        if verdict is Merge.TAKEN:
            if held is not None:
                self._remove(held)
            if row.record.is_live or row.effective_ms >= self.floor_ms:
                self._insert(row)
        return verdict

    def _judge(self, row: Row, held: Row | None) -> Merge:
        if held is not None and row.rank <= held.rank:
            return Merge.KNOWN if row.rank == held.rank else Merge.OLD
        if held is None and not row.record.is_live and row.effective_ms < self.floor_ms:
            return Merge.KNOWN
        if self._is_below(row, held):
            return Merge.BELOW
        return Merge.TAKEN if self._fits(row, held, 1.0) else Merge.FULL

    def _is_below(self, row: Row, held: Row | None) -> bool:
        absent = held is None or not held.record.is_live
        return absent and row.record.is_live and row.record.stamp.wall_ms < self.floor_ms

    def _fits(self, row: Row, held: Row | None, share: float) -> bool:
        if held is not None and (len(row.blob) <= len(held.blob) or not row.record.is_live):
            return True
        rows = self._rows + (held is None)
        size = self.bytes + len(row.blob) - (len(held.blob) if held is not None else 0)
        return rows <= self._rows_max * share and size <= self._bytes_max * share

    def _insert(self, row: Row) -> None:
        record = row.record
        self._namespaces.setdefault(record.namespace, {})[record.id] = row
        self._by_hash[row.hash] = row
        if not record.is_live:
            self._tombs[record.key] = row
        self._count(row, 1)

    def _remove(self, row: Row) -> None:
        record = row.record
        rows = self._namespaces[record.namespace]
        del rows[record.id]
        if not rows:
            del self._namespaces[record.namespace]
        self._by_hash.pop(row.hash, None)
        self._tombs.pop(record.key, None)
        self._count(row, -1)

    def _count(self, row: Row, sign: int) -> None:
        self._rows += sign
        self.changes += 1
        self.bytes += sign * len(row.blob)
        self._sums[row.bucket] = self._sums[row.bucket] + sign * row.hash & U64_MAX

    # Time.

    def raise_floor(self, floor_ms: int) -> int:
        """Claim that everything written before `floor_ms` is known; return how many tombstones went. O(tombstones)."""
        if floor_ms <= self.floor_ms:
            return 0
        self.floor_ms = floor_ms
        gone = self._collectible(floor_ms)
        for row in gone:
            self._remove(row)
        return len(gone)

    def drop(self, row: Row) -> None:
        """Forget a row as if it had never come: for what nobody else would take, and for starting over."""
        self._remove(row)

    def _collectible(self, floor_ms: int) -> list[Row]:
        if floor_ms <= 0:
            return []
        return [row for row in self._tombs.values() if row.effective_ms < floor_ms]

    # Comparing.

    def sums(self, floor_ms: int = 0) -> tuple[int, ...]:
        """One sum of hashes for each bucket, of what a table with this floor, if higher, would hold."""
        if floor_ms <= self.floor_ms:
            return tuple(self._sums)
        sums = list(self._sums)
        for row in self._collectible(floor_ms):
            sums[row.bucket] = sums[row.bucket] - row.hash & U64_MAX
        return tuple(sums)

    def digest(self, floor_ms: int = 0) -> bytes:
        """Fingerprint of the whole, 8 bytes; equal digests mean equal rows, up to the hash."""
        total = sum(self.sums(floor_ms)) & U64_MAX
        return total.to_bytes(HASH_BYTES, "big")

    def hashes(self, buckets: frozenset[int], floor_ms: int = 0) -> dict[int, list[int]]:
        """Hashes of the rows in these buckets that a table with this floor would hold. O(rows)."""
        floor_ms = max(floor_ms, self.floor_ms)
        found: dict[int, list[int]] = {bucket: [] for bucket in sorted(buckets)}
        for row in self.rows():
            if row.bucket in found and (row.record.is_live or row.effective_ms >= floor_ms):
                found[row.bucket].append(row.hash)
        return found
