"""An immutable table of accounts, ready to be shared: what a table of members stands on.

A node's table is one roll and the few accounts that differ from it (`mesh.members`), so that a change costs
neither a sorted list nor a dictionary of everybody, and so that the cores of one process whose views are
equal (a simulator's ten thousand) hold one roll between them instead of 10^8 rows.
"""

import functools
import hashlib
from collections.abc import Iterable

import attrs

from mesh.member import Liveness, Member

DIGEST_BYTES = 8
FINGERPRINTS_MAX = 2**14
"""Fingerprints remembered: a rumour is fingerprinted when it comes and again when it is replaced."""


@functools.lru_cache(maxsize=FINGERPRINTS_MAX)
def _hash(node: str, generation: int, incarnation: int, liveness: int) -> int:
    text = f"{node} {generation} {incarnation} {liveness}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")


def fingerprint(row: Member) -> int:
    """64 bits of id, generation, incarnation and liveness; 0 for who is not live."""
    liveness = row.liveness
    if liveness > Liveness.SUSPECT:
        return 0
    identity = row.identity
    return _hash(identity.node, identity.generation, identity.incarnation, int(liveness))


@attrs.frozen(eq=False)
class Roll:
    """Accounts, one per node. Build it with `of`."""

    rows: dict[str, Member]
    """By node, in order of first hearing. Never changed once it is here."""
    ranks: tuple[str, ...]
    """The live, by id."""
    prints: tuple[int, ...]
    """Their fingerprints."""
    gone: tuple[str, ...]
    """Those who are not live, in order of first hearing."""
    published: tuple[str, ...]
    """The live who publish metadata."""
    digest: int
    """All fingerprints, by exclusive or."""

    @classmethod
    def of(cls, rows: Iterable[Member]) -> "Roll":
        """The roll of these accounts; one node has one. O(n log n)."""
        by_node = {row.node: row for row in rows}
        ranks = tuple(sorted(node for node, row in by_node.items() if row.is_live))
        prints = tuple(fingerprint(by_node[node]) for node in ranks)
        published = tuple(node for node in ranks if by_node[node].metadata_digest)
        digest = functools.reduce(int.__xor__, prints, 0)
        gone = tuple(node for node, row in by_node.items() if not row.is_live)
        return cls(by_node, ranks, prints, gone, published, digest)

    def __len__(self) -> int:
        return len(self.rows)


NOBODY = Roll.of(())
