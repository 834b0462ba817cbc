"""Attention's Triton kernels: `kernels.attention` holds the formula, the specification and the CPU's path.

(A file of its own: with both devices in one, the formula would be lost between them.)

Keys are walked in absolute chunks of `CHUNK`. Within a chunk, tile by tile, an online softmax (Milakov and
Gimelshein, arXiv 1805.02867) yields a partial (o_c, m_c, s_c): the unnormalised output, the largest score
and the sum of 2^(score - m_c). Partials are merged from left to right in fp32. Decode computes the chunks of
a row in as many programs and merges them in a second launch (arXiv 2311.01282, with chunks of a fixed size in
place of a fixed number, so that the split does not depend on the batch). Its programs follow a list of
(sequence, chunk) on the device, so a long row beside short ones costs no idle programs, and a captured graph
can be replayed with another list. Prefill computes and merges the chunks in one program. Both call the same
two functions, and a chunk that a row does not see changes nothing (1 * total + 0), so the order of a row's
sums depends on its position alone. Whether the bits do depends also on the matrix instruction, which differs
between 16 rows and 64: to be measured on a GPU, not promised.

Query heads of a group are packed as rows beside the tokens, so each key is read once per group. A tile never
crosses a page: 16-byte reads along the head, and one look-up per tile, made a tile ahead. (Triton spends a
stage of its pipeline on an address read in the same iteration.) What a row must not see is not read as a
value at all: pages need not be cleared.

A layer may look back through a window, cap its scores or have sinks (`attention.Look`). Chunks and tiles that
lie before the window are skipped, which is what computing them would give; a sink joins the sum at the end.

A cache of eight bits has a scale per token and kv head beside it (`kernels.narrow_cache`). Its codes are exact in
q's dtype; scores take the key's scale, and weights the value's before they are rounded.

Decode reads 2 * d elements per key and kv head, and moves 8 * d * group bytes of partials per chunk: limited
by memory. Prefill does 4 * d operations per query head and seen key: limited by arithmetic.
q: [rows, heads, d], its rows may have gaps; a layer's cache: [blocks, 2, kv_heads, block, d]; o like q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from kernels import attention
from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.attention import EVERYTHING, Look, Span
from kernels.linear_scaled import NARROW
from kernels.op import Build

if TYPE_CHECKING:
    import triton.language as tl

CHUNK = 512
"""Keys per partial. Shorter ones spread a lone long sequence over more of the chip, longer ones interrupt
prefill's pipeline less often. Not measured yet."""
TILE_BYTES = 128
"""A tile has as many keys as elements of the cache fit here: 64 of two bytes, 32 of four."""
ROWS_MIN = 16
"""Least rows (and head width) of a matrix instruction; decode fills up to it."""
PREFILL = {64: (128, 8, 3), 128: (64, 8, 2)}
"""By head width, rounded up: packed rows, warps, stages. A row's total and its chunk's partial stand in
registers together; twice the rows at 128 wide spill on sm_80."""
LARGE = PREFILL | {128: (128, 8, 2)}
"""From sm_90 on, whose matrix instructions read shared memory: 64 rows for each group of four warps."""
NARROWED = {64: (64, 4, 3), 128: (64, 8, 2)}
"""For a cache of eight bits, whose tiles pass through registers to be widened."""
NARROWED_LARGE = NARROWED | {128: (64, 4, 2)}
"""From sm_90 on: one group of four warps has the registers for 64 rows, which eight lack under Triton 3.6."""
TILE_ROWS = {64: 128, 128: 128}
"""By head width, rounded up: packed rows of a plan's tile, which a launch takes in one program or two."""
WAVES = 4
"""Prefill's warps on AMD, which are twice as wide; eight leave each thread half the registers."""
DECODE = {64: (4, 4), 128: (4, 3)}
"""By head width, rounded up: warps, stages."""
STAGES_NARROW = 3
"""Most of decode's stages over a cache of eight bits: with four, Triton 3.6 fails on gfx942."""
REDUCE = 4
"""Heads per program that merges partials."""
NO_CHUNK = 1 << 20
"""A chunk beyond every position: its program ends at once. Times `CHUNK` it is still an int32."""


@attrs.frozen(eq=False)
class Work:
    """One step's rows as the kernels read them, made once for all layers. Int32, on the device."""

    latest: Tensor
    """[decode sequences]: position of each sequence's only row. They stand first."""
    items: Tensor
    """[items, 2] of decode: sequence, chunk; a sequence's chunks side by side, from the first on. A list may be
    filled up with (0, `NO_CHUNK`)."""
    firsts: Tensor
    """[decode sequences]: the item of each one's first chunk."""
    tiles: Tensor
    """[tiles, 4] of prefill: sequence, first row, that row's position, rows."""
    table: Tensor
    """[sequences, pages]: the pages of each sequence from position 0, filled up with zeros."""
    rows: int


def plan_work(spans: Sequence[Span], group: int, width: int, device: str | torch.device) -> Work:
    """Cut a step into programs. Spans of one row must stand before all others.

    group: query heads per kv head; width: elements per head.
    """
    decode = [span.start for span in spans if span.count == 1]
    assert all(span.count == 1 for span in spans[: len(decode)]), "decode rows stand first"
    tokens = _tokens(width, group)
    tiles, row = [], len(decode)
    for sequence, span in enumerate(spans[len(decode) :], len(decode)):
        firsts = range(0, span.count, tokens)
        tiles.extend((sequence, row + i, span.start + i, min(tokens, span.count - i)) for i in firsts)
        row += span.count
    depths = [position // CHUNK + 1 for position in decode]
    items = [(sequence, chunk) for sequence, depth in enumerate(depths) for chunk in range(depth)]
    firsts = [end - depth for end, depth in zip(accumulate(depths), depths, strict=True)]
    pages = max((len(span.pages) for span in spans), default=0)
    table = [span.pages + (0,) * (pages - len(span.pages)) for span in spans]
    return Work(
        latest=torch.tensor(decode, dtype=torch.int32, device=device),
        items=torch.tensor(items, dtype=torch.int32, device=device).view(-1, 2),
        firsts=torch.tensor(firsts, dtype=torch.int32, device=device),
        tiles=torch.tensor(tiles, dtype=torch.int32, device=device).view(-1, 4),
        table=torch.tensor(table, dtype=torch.int32, device=device).view(len(spans), pages),
        rows=row,
    )


def _padded(width: int) -> int:
    return max(ROWS_MIN, power_of_two(width))


def _row(width: int) -> int:
    """The row of `PREFILL` and `DECODE` for a head width."""
    return min(max(min(PREFILL), _padded(width)), max(PREFILL))


def _tokens(width: int, group: int) -> int:
    """Tokens of a plan's tile: two programs' of 64 packed rows, or what one of more rows holds."""
    tile = TILE_ROWS[_row(width)]
    rows = max(tile // 2, power_of_two(group))
    return rows // group * max(1, tile // rows)


# fmt: off
@kernel()
def _chunk(
    q, position, earliest, latest, cache, scales, pages, page_stride, scales_stride, scale, slope, first,
    KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, PAGE: tl.constexpr,
    CHUNK: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr, WINDOW: tl.constexpr, CAPPED: tl.constexpr,
    NARROW: tl.constexpr,
):
    """(o, m, s) of the chunk at key `first` for rows q: [ROWS, PADDED], of which row r sees `position[r]`.

    Positions lie within earliest .. latest, or are -1. With a cap, what is multiplied by `scale` is
    tanh(score / cap) = 1 - 2 / (2^(slope * q . k) + 1), which needs no function of the vendor's.
    """
    slot = tl.arange(0, TILE)
    column = tl.arange(0, PADDED)
    lanes = slot[:, None] * WIDTH + column[None, :]
    shown = (column < WIDTH)[None, :]
    o = tl.zeros([ROWS, PADDED], tl.float32)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    s = tl.zeros([ROWS], tl.float32)
    begin = first
    if WINDOW:
        begin = tl.maximum(first, (earliest - (WINDOW - 1)) // TILE * TILE)
    page = tl.load(pages + begin // PAGE).to(tl.int64)
    for key in range(begin, tl.minimum(first + CHUNK, latest + 1), TILE):
        tile = cache + page * page_stride + (key % PAGE) * WIDTH
        if NARROW:
            steps = scales + page * scales_stride + key % PAGE + slot
        page = tl.load(pages + tl.minimum(key + TILE, latest) // PAGE).to(tl.int64)  # the next tile's
        keys = tl.load(tile + lanes, mask=shown, other=0.0).to(q.dtype)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee")
        if NARROW:
            scores = scores * tl.load(steps)[None, :]
        if CAPPED:
            scores = 1.0 - 2.0 / (tl.exp2(scores * slope) + 1.0)
        if WINDOW:
            back = (position[:, None] - (key + slot)[None, :]).to(tl.uint32, bitcast=True)
            seen = back < WINDOW
        else:
            seen = (key + slot)[None, :] <= position[:, None]
        scores = tl.where(seen, scores, float("-inf"))
        top = tl.maximum(m, tl.max(scores, axis=1) * scale)
        anchor = tl.where(top == float("-inf"), 0.0, top)
        weights = tl.exp2(tl.fma(scores, tl.full(scores.shape, scale, tl.float32), -anchor[:, None]))
        shrink = tl.exp2(m - anchor)
        written = (key + slot <= latest)[:, None] & shown
        values = tl.load(tile + KV_HEADS * PAGE * WIDTH + lanes, mask=written, other=0.0).to(q.dtype)
        shares = weights
        if NARROW:
            value_steps = tl.load(steps + KV_HEADS * PAGE, mask=key + slot <= latest, other=0.0)
            shares = weights * value_steps[None, :]
        o = tl.dot(shares.to(q.dtype), values, o * shrink[:, None], input_precision="ieee")
        s = s * shrink + tl.sum(weights, axis=1)
        m = top
    return o, m, s


@kernel()
def _merge(o, m, s, chunk_o, chunk_m, chunk_s):
    """The total (o, m, s) so far, and the next partial to its right -> the total with it."""
    top = tl.maximum(m, chunk_m)
    anchor = tl.where(top == float("-inf"), 0.0, top)
    left = tl.exp2(m - anchor)
    right = tl.exp2(chunk_m - anchor)
    return o * left[:, None] + chunk_o * right[:, None], top, s * left + chunk_s * right


@kernel()
def _sink(o, m, s, sink):
    """The total (o, m, s) with one more score per row, which has no value."""
    top = tl.maximum(m, sink * 1.4426950408889634)  # log2(e)
    left = tl.exp2(m - top)
    return o * left[:, None], top, s * left + tl.exp2(sink * 1.4426950408889634 - top)


@kernel("table_stride", needs=("wide loads", "matrix"))
def _decode(
    q, cache, scales, latest, items, table, partial, level, q_stride, page_stride, scales_stride, table_stride,
    scale, slope,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    PAGE: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr, WINDOW: tl.constexpr,
    CAPPED: tl.constexpr, NARROW: tl.constexpr,
):
    """The partial of one chunk of one sequence, for the query heads of one kv head."""
    item = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    sequence = tl.load(items + item * 2).to(tl.int64)
    first = tl.load(items + item * 2 + 1) * CHUNK
    last = tl.load(latest + sequence)
    if first <= last and (WINDOW == 0 or first + CHUNK > last - (WINDOW - 1)):
        row = tl.arange(0, ROWS)
        column = tl.arange(0, PADDED)
        inside = (row < GROUP)[:, None] & (column < WIDTH)[None, :]
        head = kv_head * GROUP + row
        at = head[:, None] * WIDTH + column[None, :]
        queries = tl.load(q + sequence * q_stride + at, mask=inside, other=0.0)
        position = tl.where(row < GROUP, last, -1)
        keys = cache + kv_head * PAGE * WIDTH
        steps = scales + kv_head * PAGE
        pages = table + sequence * table_stride
        o, m, s = _chunk(
            queries, position, last, last, keys, steps, pages, page_stride, scales_stride, scale, slope, first,
            KV_HEADS, WIDTH, PADDED, PAGE, CHUNK, TILE, ROWS, WINDOW, CAPPED, NARROW,
        )
        line = item * KV_HEADS * GROUP + head
        tl.store(partial + line[:, None] * WIDTH + column[None, :], o, mask=inside)
        tl.store(level + line * 2, m, mask=row < GROUP)
        tl.store(level + line * 2 + 1, s, mask=row < GROUP)


@kernel(needs=("wide loads",))
def _reduce(
    partial, level, latest, firsts, sinks, out,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr,
):
    """Merge one sequence's partials, for some of its heads, from left to right."""
    sequence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    some = head < HEADS
    inside = some[:, None] & (column < WIDTH)[None, :]
    o = tl.zeros([ROWS, PADDED], tl.float32)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    s = tl.zeros([ROWS], tl.float32)
    last = tl.load(latest + sequence)
    item = tl.load(firsts + sequence).to(tl.int64)
    begin = last * 0
    if WINDOW:
        begin = tl.maximum(last - (WINDOW - 1), 0) // CHUNK
    for chunk in range(begin, last // CHUNK + 1):
        line = (item + chunk) * HEADS + head
        chunk_o = tl.load(partial + line[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)
        chunk_m = tl.load(level + line * 2, mask=some, other=0.0)
        chunk_s = tl.load(level + line * 2 + 1, mask=some, other=1.0)
        o, m, s = _merge(o, m, s, chunk_o, chunk_m, chunk_s)
    if SINKS:
        o, m, s = _sink(o, m, s, tl.load(sinks + head, mask=some, other=0.0))
    at = (sequence * HEADS + head)[:, None] * WIDTH + column[None, :]
    tl.store(out + at, o * tl.div_rn(tl.full([ROWS], 1.0, tl.float32), s)[:, None], mask=inside)


@kernel("table_stride", needs=("wide loads", "group matrix"))
def _prefill(
    q, cache, scales, tiles, table, sinks, out, q_stride, page_stride, scales_stride, table_stride, scale, slope,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    PAGE: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr, WINDOW: tl.constexpr,
    CAPPED: tl.constexpr, NARROW: tl.constexpr, SINKS: tl.constexpr, PARTS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Some consecutive tokens of one sequence, times the query heads of one kv head, over all chunks."""
    tile = tiles + tl.program_id(0) // PARTS * 4
    skipped = tl.program_id(0) % PARTS * TOKENS
    sequence, first_row = tl.load(tile).to(tl.int64), tl.load(tile + 1).to(tl.int64) + skipped
    start, count = tl.load(tile + 2) + skipped, tl.minimum(tl.load(tile + 3) - skipped, TOKENS)
    kv_head = tl.program_id(1)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, PADDED)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    inside = (token < count)[:, None] & (column < WIDTH)[None, :]
    at = head[:, None] * WIDTH + column[None, :]
    queries = tl.load(q + (first_row + token)[:, None] * q_stride + at, mask=inside, other=0.0)
    position = tl.where(token < count, start + token, -1)
    latest = tl.where(count > 0, start + count - 1, -1)
    keys = cache + kv_head * PAGE * WIDTH
    steps = scales + kv_head * PAGE
    pages = table + sequence * table_stride
    o = tl.zeros([ROWS, PADDED], tl.float32)
    m = tl.full([ROWS], float("-inf"), tl.float32)
    s = tl.zeros([ROWS], tl.float32)
    begin = start * 0
    if WINDOW:
        begin = tl.maximum(start - (WINDOW - 1), 0) // CHUNK * CHUNK
    for first in range(begin, latest + 1, CHUNK):
        chunk_o, chunk_m, chunk_s = _chunk(
            queries, position, start, latest, keys, steps, pages, page_stride, scales_stride, scale, slope, first,
            KV_HEADS, WIDTH, PADDED, PAGE, CHUNK, TILE, ROWS, WINDOW, CAPPED, NARROW,
        )
        o, m, s = _merge(o, m, s, chunk_o, chunk_m, chunk_s)
    if SINKS:
        o, m, s = _sink(o, m, s, tl.load(sinks + head, mask=token < count, other=0.0))
    s = tl.where(token < count, s, 1.0)
    result = o * tl.div_rn(tl.full([ROWS], 1.0, tl.float32), s)[:, None]
    tl.store(out + (first_row + token)[:, None] * (KV_HEADS * GROUP * WIDTH) + at, result, mask=inside)


# fmt: on
def attend_launches(
    q: Tensor,
    cache: Tensor,
    work: Work,
    scale: float,
    out: Tensor,
    look: Look = EVERYTHING,
    scales: Tensor | None = None,
    large: bool = False,
) -> tuple[Launch, ...]:
    """Decode's two launches and prefill's one; those with nothing to do have an empty grid.

    large: whether the chip takes the tables for sm_90 and later.
    """
    _check(q, cache, scales, out, work.rows, look)
    items, heads, width = len(work.items), q.shape[1], q.shape[2]
    partial = torch.empty(items, heads, width, device=q.device)
    level = torch.empty(items, heads, 2, device=q.device)
    common = _common(q, cache, work, scale, look) | _narrow(cache, scales)
    ends = {"sinks": out if look.sinks is None else look.sinks, "SINKS": look.sinks is not None}
    return (
        _decode_launch(work, partial, level, common),
        _reduce_launch(work, partial, level, out, ends | {"WINDOW": look.window}),
        _prefill_launch(work, out, common | ends, _prefill_table(scales is not None, large)),
    )


def _prefill_table(narrow: bool, large: bool) -> dict[int, tuple[int, int, int]]:
    if narrow:
        return NARROWED_LARGE if large else NARROWED
    return LARGE if large else PREFILL


def _common(q: Tensor, cache: Tensor, work: Work, scale: float, look: Look) -> dict[str, object]:
    """What both kernels that read the cache are told; 2^x stands for e^x."""
    heads, width = q.shape[1:]
    kv_heads, page = cache.shape[2:4]
    base = math.log2(math.e)
    common = {"q": q, "cache": cache, "table": work.table, "scale": (look.cap or scale) * base}
    common |= {"slope": 2 * scale / look.cap * base if look.cap else 0.0}
    common |= {"WINDOW": look.window, "CAPPED": bool(look.cap)}
    common |= {"q_stride": q.stride(0), "page_stride": cache.stride(0), "table_stride": work.table.stride(0)}
    common |= {"KV_HEADS": kv_heads, "GROUP": heads // kv_heads, "WIDTH": width, "PADDED": _padded(width)}
    return common | {"PAGE": page, "CHUNK": CHUNK, "TILE": min(page & -page, TILE_BYTES // q.itemsize)}


def _narrow(cache: Tensor, scales: Tensor | None) -> dict[str, object]:
    if scales is None:
        return {"scales": cache, "scales_stride": 16, "NARROW": False}
    return {"scales": scales, "scales_stride": scales.stride(0), "NARROW": True}


def _decode_launch(work: Work, partial: Tensor, level: Tensor, common: dict[str, object]) -> Launch:
    grid = (len(work.items), common["KV_HEADS"])
    warps, stages = DECODE[_row(common["WIDTH"])]
    stages = min(stages, STAGES_NARROW) if common["NARROW"] else stages
    arguments = {"latest": work.latest, "items": work.items, "partial": partial, "level": level}
    arguments["ROWS"] = max(ROWS_MIN, power_of_two(common["GROUP"]))
    return Launch(_decode, grid, common | arguments, warps, stages, _tile_bytes(common))


def _reduce_launch(
    work: Work, partial: Tensor, level: Tensor, out: Tensor, ends: dict[str, object]
) -> Launch:
    _, heads, width = partial.shape
    arguments = ends | {"partial": partial, "level": level, "latest": work.latest, "out": out}
    arguments |= {"firsts": work.firsts}
    arguments |= {"HEADS": heads, "WIDTH": width, "PADDED": _padded(width), "CHUNK": CHUNK, "ROWS": REDUCE}
    return Launch(_reduce, (len(work.latest), -(-heads // REDUCE)), arguments, warps=1, stages=3)


def _prefill_launch(
    work: Work, out: Tensor, common: dict[str, object], table: dict[int, tuple[int, int, int]]
) -> Launch:
    width, group = common["WIDTH"], common["GROUP"]
    rows, warps, stages = table[_row(width)]
    rows = max(rows, power_of_two(group))
    parts = max(1, TILE_ROWS[_row(width)] // rows)
    arguments = common | {"tiles": work.tiles, "out": out, "ROWS": rows, "PARTS": parts}
    arguments["TOKENS"] = _tokens(width, group) // parts
    grid = (len(work.tiles) * parts, common["KV_HEADS"])
    return Launch(_prefill, grid, arguments, warps, stages, _tile_bytes(common), WAVES)


def _is_large(device: torch.device) -> bool:
    nvidia = device.type == "cuda" and torch.version.hip is None
    return nvidia and torch.cuda.get_device_capability(device) >= (9, 0)


def _tile_bytes(common: dict[str, object]) -> int:
    """Of keys and values."""
    return 2 * common["TILE"] * common["PADDED"] * common["cache"].itemsize


def _check(q: Tensor, cache: Tensor, scales: Tensor | None, out: Tensor, rows: int, look: Look) -> None:
    _, heads, width = q.shape
    if look.sinks is not None:
        check("sinks", look.sinks, torch.float32, shape=(heads,))
    kv_heads, page = cache.shape[2:4]
    check("q", q, *FLOATS, shape=(rows, heads, width))
    dtypes = (q.dtype,) if scales is None else NARROW
    check("cache", cache, *dtypes, shape=(None, 2, kv_heads, page, width))
    if scales is not None:
        check("scales", scales, torch.float32, shape=tuple(cache.shape[:4]))
        check_dense("scales", scales, 3)
    check("out", out, q.dtype, shape=(rows, heads, width))
    check_dense("q", q, 2)
    check_dense("cache", cache, 4)
    check_dense("out", out, 3)
    if heads % kv_heads:
        raise ValueError(f"`q` has {heads} heads, which {kv_heads} kv heads do not divide")
    if page % ROWS_MIN or _padded(width) > max(PREFILL):
        limits = f"pages are multiples of {ROWS_MIN}, heads at most {max(PREFILL)} wide"
        raise ValueError(f"`cache` has pages of {page} tokens and heads of {width}; {limits}")


def attend_triton(
    q: Tensor, cache: Tensor, work: Work, scale: float, look: Look = EVERYTHING, scales: Tensor | None = None
) -> Tensor:
    """q: [rows, heads, d], cache: [blocks, 2, kv_heads, block, d] -> [rows, heads, d], by a plan.

    scales: [blocks, 2, kv_heads, block] fp32 for a cache of int8 or e4m3. Rows in the order of the plan's
    spans. The last two dims of q and the last four of the cache are dense, block is a multiple of 16, d at
    most 128; ValueError otherwise, before anything is launched.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for launch in attend_launches(q, cache, work, scale, out, look, scales, _is_large(q.device)):
        launch.run()
    return out


def attention_triton(
    q: Tensor, cache: Tensor, spans: Sequence[Span], scale: float, look: Look = EVERYTHING
) -> Tensor:
    """Plan and attend, for tests."""
    work = plan_work(spans, q.shape[1] // cache.shape[2], q.shape[2], q.device)
    return attend_triton(q, cache, work, scale, look)


def build(
    width: int,
    heads: int,
    kv_heads: int,
    look: Look = EVERYTHING,
    narrow: torch.dtype | None = None,
    large: bool = False,
) -> tuple[Launch, ...]:
    """One layer of 32, 64-token pages, q as it lies in qkv; one decode row at 4,000 and 100 prefill rows."""
    spans = (Span(4000, 1, tuple(range(63))), Span(0, 100, (0, 1)))
    qkv = torch.empty(101, heads + 2 * kv_heads, width, dtype=torch.bfloat16, device="meta")
    cache = qkv.new_empty(64, 32, 2, kv_heads, 64, width, dtype=narrow or qkv.dtype)[:, 0]
    scales = cache.new_empty(64, 32, 2, kv_heads, 64, dtype=torch.float32)[:, 0] if narrow else None
    work = plan_work(spans, heads // kv_heads, width, "meta")
    q = qkv[:, :heads]
    out = torch.empty(q.shape, dtype=q.dtype, device="meta")
    return attend_launches(q, cache, work, width**-0.5, out, look, scales, large)


OP = attrs.evolve(
    attention.OP,
    implementations=attention.OP.implementations | {"triton": attention_triton},
    builds=(
        Build("bf16, 32 heads of 64 on 8", lambda: build(64, 32, 8)),
        Build("bf16, 32 heads of 128 on 8", lambda: build(128, 32, 8)),
        Build("bf16, 32 heads of 96 on 32", lambda: build(96, 32, 32)),
        Build("bf16, large", lambda: build(128, 32, 8, large=True)[2:], ("sm_90", "sm_100")),
    ),
)
