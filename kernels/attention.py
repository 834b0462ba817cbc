"""Causal grouped-query attention over a paged cache, the same bits for a row however the work is cut.

For the query at position p of head h: o = sum_j softmax_j(scale * q . k_j) v_j over j <= p.

The keys are walked in absolute chunks of one page. Chunk c yields a partial (o_c, l_c), where l_c is the
logarithm of its sum of exponentials; partials are merged from left to right in fp32:
    w_c = exp(l_c - max_c l_c),   o = (sum_c w_c o_c) / (sum_c w_c).
So a row's arithmetic depends on its position alone: not on the chunk of prefill it came in, nor on the
batch, nor on whether it is decoded or prefilled. One chunk goes through torch's CPU flash operator, whole
and masked, query heads of a group folded as rows and filled up to a multiple of `rows_multiple`: measured
on AVX-512, its rows change bits when the last block of them holds fewer than four (fp32 and bf16), or when
the masked tail of the keys is left off. `kernels.probe` repeats the measurement at load.

Reads each page of keys and values once per sequence and step: limited by memory in decode, by arithmetic in
prefill. q: [rows, heads, d]; a layer's cache: [blocks, 2, kv_heads, block, d]; o: [rows, heads, d].
"""

from collections.abc import Sequence

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.op import Case, Op, normal

GATHER_BYTES = 4 << 20
"""Pages are copied side by side for one operator call up to this size; beyond it the copy costs more."""
PARTIAL_BYTES = 32 << 20
"""Most memory that one span's unmerged partial results may take; longer spans are cut into shorter ones."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


@attrs.frozen
class Span:
    """Consecutive rows of one sequence: positions start .. start + count, and the pages from position 0."""

    start: int
    count: int
    pages: tuple[int, ...]


@attrs.frozen(eq=False)
class Batch:
    """Sequences with equally many rows, whose (sequence, chunk) pairs are computed together."""

    first: int
    """Index of the batch's first row in the step."""
    sequences: int
    tokens: int
    """Rows per sequence."""
    depth: int
    """Largest number of chunks that any of the sequences has."""
    parts: tuple["Part", ...]
    sequence: Tensor
    """[items]: which sequence of the batch each (sequence, chunk) item belongs to."""
    chunk: Tensor
    """[items]"""
    blind: Tensor | None
    """[items, 1, folded rows]: rows that see no key of their item's chunk; none if there are none."""
    look: "Look"


@attrs.frozen(eq=False)
class Part:
    """Items that go through one operator call."""

    page: int
    """The only item's page, read in place; -1 if there are several."""
    pages: Tensor
    sequence: Tensor
    mask: Tensor
    """[items, 1, folded rows, block]: 0 or minus infinity, added to the scores."""


@attrs.frozen
class Geometry:
    """What the plan needs to know about the cache and the operator."""

    heads: int
    kv_heads: int
    width: int
    """Elements per head."""
    block: int
    dtype: torch.dtype
    rows_multiple: int
    """Folded rows per operator call are filled up to a multiple of this."""

    @property
    def group(self) -> int:
        """Query heads per key and value head."""
        return self.heads // self.kv_heads

    @property
    def page_bytes(self) -> int:
        """Bytes of one page of one layer, keys and values."""
        return 2 * self.kv_heads * self.block * self.width * self.dtype.itemsize


@attrs.frozen(eq=False)
class Look:
    """How a layer looks back, beside causally. torch's CPU operator has no cap: the compiled kernels have."""

    window: int = 0
    """Only so many latest positions are seen, the row's own included (Mistral); 0 is all."""
    cap: float = 0.0
    """Scores become cap * tanh(score / cap) (Gemma 2, arXiv 2408.00118, section 2); 0 leaves them."""
    sinks: Tensor | None = None
    """[heads] fp32: one more score per head, which takes weight and has no value (gpt-oss; Xiao et al.,
    arXiv 2309.17453)."""


EVERYTHING = Look()


def attention_reference(
    q: Tensor, cache: Tensor, spans: Sequence[Span], scale: float, look: Look = EVERYTHING
) -> Tensor:
    """The specification: gather, score, mask, softmax and weigh in double, one sequence at a time."""
    out, first = torch.empty_like(q), 0
    group = q.shape[1] // cache.shape[2]
    for span in spans:
        total = span.start + span.count
        kv = cache[list(span.pages)].double().permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :total]
        keys, values = kv.repeat_interleave(group, dim=1)  # [heads, total, d] each
        rows = q[first : first + span.count].double().transpose(0, 1)
        weights = _weights(rows @ keys.transpose(1, 2) * scale, span.start, look)
        out[first : first + span.count] = (weights @ values).transpose(0, 1).to(q.dtype)
        first += span.count
    return out


def _weights(scores: Tensor, start: int, look: Look) -> Tensor:
    """Softmax over what is seen of scores: [heads, rows, keys], the first row at position `start`."""
    heads, rows, keys = scores.shape
    if look.cap:
        scores = look.cap * torch.tanh(scores / look.cap)
    ahead = torch.arange(keys) - torch.arange(start, start + rows).unsqueeze(-1)
    unseen = (ahead > 0) | (ahead <= -look.window if look.window else False)
    scores = scores.masked_fill(unseen, -torch.inf)
    if look.sinks is None:
        return scores.softmax(-1)
    sinks = look.sinks.double()[:, None, None].expand(heads, rows, 1)
    return torch.cat((scores, sinks), -1).softmax(-1)[..., :keys]


def plan_attention(spans: Sequence[Span], geometry: Geometry, look: Look = EVERYTHING) -> tuple[Batch, ...]:
    """Cut a step into batches, once for all layers that look alike. Spans of one row must stand before all others.

    ValueError for a look with a cap, which this path does not have.
    """
    if look.cap:
        raise ValueError("torch's attention on a CPU has no cap on scores: it needs the compiled kernels")
    decode = [span for span in spans if span.count == 1]
    assert all(span.count == 1 for span in spans[: len(decode)]), "decode rows stand first"
    batches, first = [], 0
    if decode:
        batches.append(_batch(decode, first, geometry, look))
        first = len(decode)
    for span in spans[len(decode) :]:
        for piece in _cut(span, geometry):
            batches.append(_batch([piece], first, geometry, look))
            first += piece.count
    return tuple(batches)


def _cut(span: Span, geometry: Geometry) -> list[Span]:
    """The span in pieces whose partial results fit `PARTIAL_BYTES`."""
    depth = -(-(span.start + span.count) // geometry.block)
    most = max(1, PARTIAL_BYTES // (4 * depth * geometry.heads * geometry.width))
    starts = range(span.start, span.start + span.count, most)
    end = span.start + span.count
    return [Span(start, min(most, end - start), span.pages) for start in starts]


def _batch(spans: Sequence[Span], first: int, geometry: Geometry, look: Look) -> Batch:
    block, tokens = geometry.block, spans[0].count
    depths = [(span.start + tokens - 1) // block + 1 for span in spans]
    oldest = [max(0, span.start - look.window + 1) // block if look.window else 0 for span in spans]
    items = [(s, c) for s, depth in enumerate(depths) for c in range(oldest[s], depth)]
    sequence, chunk = torch.tensor(items).T
    positions = torch.tensor([span.start for span in spans]).unsqueeze(-1) + torch.arange(tokens)
    latest = positions[sequence] - chunk.unsqueeze(-1) * block  # [items, tokens]: last slot that a row sees
    mask = _mask(latest, geometry, look)
    pages = [spans[s].pages[c] for s, c in items]
    blind = (mask < 0).all(-1)
    return Batch(
        first=first,
        sequences=len(spans),
        tokens=tokens,
        depth=max(depths),
        parts=_parts(pages, sequence, mask, geometry),
        sequence=sequence,
        chunk=chunk,
        blind=blind if tokens > 1 and max(depths) > 1 else None,
        look=look,
    )


def _mask(latest: Tensor, geometry: Geometry, look: Look) -> Tensor:
    """[items, 1, folded rows, block] from latest: [items, tokens]. The filling rows see everything."""
    items, tokens = latest.shape
    rows = tokens * geometry.group
    filled = -(-rows // geometry.rows_multiple) * geometry.rows_multiple
    mask = torch.zeros(items, 1, filled, geometry.block, dtype=geometry.dtype)
    unseen = torch.arange(geometry.block) > latest.unsqueeze(-1)
    if look.window:
        unseen |= torch.arange(geometry.block) <= latest.unsqueeze(-1) - look.window
    mask[:, 0, :rows].masked_fill_(unseen.repeat_interleave(geometry.group, dim=1), -torch.inf)
    return mask


def _parts(pages: list[int], sequence: Tensor, mask: Tensor, geometry: Geometry) -> tuple[Part, ...]:
    most = max(1, GATHER_BYTES // geometry.page_bytes)
    parts = []
    for low in range(0, len(pages), most):
        some = pages[low : low + most]
        page = some[0] if len(some) == 1 else -1
        rows = slice(low, low + most)
        parts.append(Part(page, torch.tensor(some), sequence[rows], mask[rows]))
    return tuple(parts)


def attend(q: Tensor, cache: Tensor, batches: Sequence[Batch], scale: float) -> Tensor:
    """q: [rows, heads, d], cache: [blocks, 2, kv_heads, block, d] -> [rows, heads, d], by a plan."""
    if len(batches) == 1:
        return _attend(q, cache, batches[0], scale)
    out = torch.empty_like(q)
    for batch in batches:
        rows = slice(batch.first, batch.first + batch.sequences * batch.tokens)
        out[rows] = _attend(q[rows], cache, batch, scale)
    return out


def _attend(q: Tensor, cache: Tensor, batch: Batch, scale: float) -> Tensor:
    heads, width = q.shape[1:]
    kv_heads = cache.shape[2]
    folded = q.view(batch.sequences, batch.tokens, kv_heads, heads // kv_heads, width)
    folded = folded.permute(0, 2, 1, 3, 4).reshape(batch.sequences, kv_heads, -1, width)
    rows = folded.shape[2]
    filled = batch.parts[0].mask.shape[2]
    if filled > rows:
        folded = F.pad(folded, (0, 0, 0, filled - rows))
    results = [_partial(folded, cache, batch, part, scale) for part in batch.parts]
    o, level = results[0] if len(results) == 1 else map(torch.cat, zip(*results, strict=True))
    if batch.depth > 1 or batch.look.sinks is not None:
        o = _merge(o, level, batch).to(q.dtype)
    o = o[:, :, :rows].view(batch.sequences, kv_heads, batch.tokens, heads // kv_heads, width)
    return o.transpose(1, 2).reshape(-1, heads, width)


def _partial(q: Tensor, cache: Tensor, batch: Batch, part: Part, scale: float) -> tuple[Tensor, Tensor]:
    """One operator call: (o [items, kv_heads, rows, d], level [items, kv_heads, rows] fp32)."""
    if part.page >= 0:
        kv = cache[part.page].unsqueeze(0)
    else:
        kv = cache.index_select(0, part.pages)
    if len(q) > 1 and batch.depth > 1:
        q = q.index_select(0, part.sequence)
    elif len(q) == 1:
        q = q.expand(len(kv), -1, -1, -1)
    elif len(part.sequence) < len(q):
        q = q.index_select(0, part.sequence)
    keys, values = kv.unbind(1)
    return _flash(q, keys, values, 0.0, False, attn_mask=part.mask, scale=scale)


def _merge(o: Tensor, level: Tensor, batch: Batch) -> Tensor:
    """Partials of all items -> [sequences, kv_heads, rows, d] fp32, chunk by chunk from the left.

    Products and sums are separate operations: IEEE rounds each the same wherever an element lies, which a
    fused one does not promise. A sequence without a chunk has level minus infinity there and weight zero.
    """
    if batch.blind is not None:
        level = level.masked_fill(batch.blind, -torch.inf)
    where = (batch.chunk, batch.sequence)
    levels = level.new_full((batch.depth, batch.sequences, *level.shape[1:]), -torch.inf)
    levels.index_put_(where, level)
    most = levels.amax(0)
    sinks = _sinks(batch.look.sinks, level) if batch.look.sinks is not None else None
    if sinks is not None:
        most = torch.maximum(most, sinks)
    weights = (levels - most).exp_().unsqueeze_(-1)
    weighed = torch.zeros((batch.depth, batch.sequences, *o.shape[1:]), dtype=torch.float32)
    weighed.index_put_(where, o.float())
    weighed.mul_(weights)
    total, weight = weighed[0], weights[0]
    for chunk in range(1, batch.depth):
        total = total + weighed[chunk]
        weight = weight + weights[chunk]
    if sinks is not None:
        weight = weight + (sinks - most).exp_().unsqueeze_(-1)
    return total / weight


def _sinks(sinks: Tensor, level: Tensor) -> Tensor:
    """sinks: [heads] -> [1, kv_heads, folded rows] as level's rows are folded; the filling rows have some too."""
    kv_heads, rows = level.shape[1:]
    group = sinks.view(kv_heads, -1)
    return group.repeat(1, -(-rows // group.shape[1]))[:, :rows].unsqueeze(0)


def attention(
    q: Tensor, cache: Tensor, spans: Sequence[Span], scale: float, look: Look = EVERYTHING
) -> Tensor:
    """Plan and attend, for tests; rows filled up to eight."""
    width = q.shape[-1]
    geometry = Geometry(q.shape[1], cache.shape[2], width, cache.shape[3], q.dtype, rows_multiple=8)
    batches = plan_attention(spans, geometry, look)
    return attend(q, cache, batches, scale) if batches else torch.empty_like(q)


def case(name: str, heads: int, kv_heads: int, width: int, block: int, *spans: tuple[int, int]) -> Case:
    """Heads, kv heads, head width, page, and the spans (start, count) of a step."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[object, ...]:
        cut, free = [], list(torch.randperm(64, generator=generator).tolist())
        for start, count in spans:
            depth = -(-(start + count) // block)
            assert depth <= len(free), "the case needs more pages than there are"
            cut.append(Span(start, count, tuple(free[:depth])))
            free = free[depth:]
        cache = normal(generator, dtype, 64, 2, kv_heads, block, width)
        rows = sum(count for _, count in spans)
        return normal(generator, dtype, rows, heads, width), cache, tuple(cut), width**-0.5

    return Case(name, make, terms=max((start + count for start, count in spans), default=1) + width)


OP = Op(
    name="attention",
    reference=attention_reference,
    implementations={"torch": attention},
    cases=(
        case("first token", 1, 1, 16, 16, (0, 1)),
        case("one decode row", 4, 2, 64, 256, (300, 1)),
        case("decode, mixed lengths", 4, 2, 64, 32, (0, 1), (31, 1), (32, 1), (100, 1)),
        case("whole prefill", 4, 2, 64, 32, (0, 97)),
        case("chunk of prefill over a page", 6, 3, 80, 32, (50, 33)),
        case("mixed step", 8, 1, 32, 16, (40, 1), (3, 1), (0, 17), (17, 5)),
        case("decode past 512 keys", 2, 1, 64, 64, (1100, 1), (511, 1), (512, 1)),
        case("prefill past 512 keys", 2, 1, 64, 64, (500, 30)),
        case("no rows", 4, 2, 64, 16),
    ),
    roundings=4,
)
