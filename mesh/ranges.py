"""Which rows of two tables differ, found by ranges of ids: pure functions over one's own table.

Theory of operation. Two nodes talk in steps, none of which leaves state behind (range-based set
reconciliation: Meyer, SRDS 2023; comparing checksums before tables: Demers et al., PODC 1987,
section 1.3). A span speaks of the live members with ids in a range:

    span       body     answered by
    COMPARE    digest   equal: nothing. At most LEAF_ROWS of ours there: HELD. Else FANOUT narrower COMPAREs
    HELD       marks    the accounts of ours that are not among them; WANTED for those that we lack
    WANTED     marks    the accounts that bear them

One differing row of n costs about FANOUT * log(n / LEAF_ROWS) / log(FANOUT) spans of 33 bytes, and the
marks of one leaf; tables that have nothing in common cost 4 bytes a row above the rows themselves.

A mark is 32 bits of a row's fingerprint, mixed with the salt of the exchange (multiply-shift hashing,
Dietzfelbinger et al. 1997): two rows that collide in one exchange do not in the next.

Invariants: an answer costs O(n) however many spans are asked about, since only ascending,
disjoint spans are read; every answer is narrower than its question, or brings rows.
"""

import functools
import operator
from collections.abc import Iterable, Iterator

import attrs

from mesh.member import Member
from mesh.members import Members
from mesh.messages import Span, SpanKind
from mesh.roll import DIGEST_BYTES

FANOUT = 16
"""Parts of a range that differs: fewer mean more round trips, more mean more bytes for one differing row."""
LEAF_ROWS = 32
"""Ranges of at most so many rows are listed, mark by mark: as many bytes as four narrower spans."""
DEPTH_MAX = 16
"""Steps of one exchange: COMPARE of 2^64 ids, halved or better at each, and the three last."""
MARK_BYTES = 4
LOWEST, HIGHEST = "0" * 16, "f" * 16


@attrs.frozen
class Answer:
    """What to send back."""

    spans: tuple[Span, ...] = ()
    rows: tuple[Member, ...] = ()


def opening(members: Members) -> Span:
    """The span that begins an exchange: everything."""
    return Span(LOWEST, HIGHEST, SpanKind.COMPARE, members.digest())


def answer(members: Members, spans: Iterable[Span], salt: int) -> Answer:
    """Answer each span, in order. Whatever is out of order or does not make sense is left out."""
    found: list[Span] = []
    rows: list[Member] = []
    for span in _disjoint(spans):
        nodes, prints = members.between(span.low, span.high)
        match span.kind:
            case SpanKind.COMPARE:
                found += _narrowed(span, nodes, prints, salt)
            case SpanKind.HELD:
                theirs, ours = _marks(span.body), _marked(nodes, prints, salt)
                rows += [_row(members, node) for mark, node in ours.items() if mark not in theirs]
                found += _wanted(span, [mark for mark in theirs if mark not in ours])
            case SpanKind.WANTED:
                ours = _marked(nodes, prints, salt)
                rows += [_row(members, ours[mark]) for mark in _marks(span.body) if mark in ours]
    return Answer(tuple(found), tuple(rows))


def _disjoint(spans: Iterable[Span]) -> Iterator[Span]:
    after = ""
    for span in spans:
        if after < span.low <= span.high:
            after = span.high
            yield span


def _narrowed(span: Span, nodes: list[str], prints: list[int], salt: int) -> list[Span]:
    if _digest(prints) == span.body:
        return []
    if len(nodes) <= LEAF_ROWS:
        body = b"".join(_marked(nodes, prints, salt))
        return [Span(span.low, span.high, SpanKind.HELD, body)]
    cuts = [len(nodes) * part // FANOUT for part in range(FANOUT + 1)]
    lows = [span.low, *(nodes[cut] for cut in cuts[1:-1])]
    highs = [*(_before(low) for low in lows[1:]), span.high]
    return [
        Span(low, high, SpanKind.COMPARE, _digest(prints[start:end]))
        for low, high, start, end in zip(lows, highs, cuts, cuts[1:], strict=False)
    ]


def _wanted(span: Span, marks: Iterable[bytes]) -> list[Span]:
    body = b"".join(marks)
    return [Span(span.low, span.high, SpanKind.WANTED, body)] if body else []


def _before(node: str) -> str:
    return f"{int(node, 16) - 1:016x}"


def _digest(prints: Iterable[int]) -> bytes:
    return functools.reduce(operator.xor, prints, 0).to_bytes(DIGEST_BYTES, "big")


def _marked(nodes: list[str], prints: list[int], salt: int) -> dict[bytes, str]:
    """The ids by their marks, in order of the ids."""
    odd = salt | 1
    return {
        (print_ * odd >> 32 & 0xFFFFFFFF).to_bytes(MARK_BYTES, "big"): node
        for node, print_ in zip(nodes, prints, strict=True)
    }


def _marks(body: bytes) -> dict[bytes, None]:
    return dict.fromkeys(body[at : at + MARK_BYTES] for at in range(0, len(body), MARK_BYTES))


def _row(members: Members, node: str) -> Member:
    row = members.get(node)
    assert row is not None, "ranks name members"
    return row
