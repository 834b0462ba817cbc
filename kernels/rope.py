"""Rotary position embedding, and the write of keys and values into the paged cache (arXiv 2104.09864).

Pairs (x_i, x_{i + d/2}) of each query and key head turn by the angle position * frequency_i ("rotate half",
the Hugging Face convention): y = x * cos + roll(x, d/2) * (-sin | sin).

qkv: [rows, heads + 2 * kv_heads, d], queries first, then keys, then values; turned in place.
cos, sin: [rows, 1, d] fp32, sin's first half negated. cache: one layer's pages,
[blocks, 2, kv_heads, block, d]; row r lands in page `page[r]`, slot `slot[r]`.
Moves every q, k, v element twice: limited by memory, on a CPU at batch 1 by the number of operator calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.linear_scaled import LIMITS, NARROW
from kernels.op import Build, Case, Op, normal
from kernels.rms_norm import rms_norm_reference

if TYPE_CHECKING:
    import triton.language as tl


def rope_angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin for `rope_store`, each [rows, 1, d] fp32, from positions [rows] and frequencies [d / 2]."""
    angles = positions.to(torch.float32).unsqueeze(-1) * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)


def rope_store_reference(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """The specification, row by row. Returns qkv with q and k turned; writes k and v into `cache`."""
    kv_heads = cache.shape[2]
    turning = qkv.shape[1] - kv_heads
    out = qkv.clone()
    for row in range(len(qkv)):
        x = qkv[row, :turning].double()
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat((second, first), -1)
        out[row, :turning] = (x * cos[row].double() + turned * sin[row].double()).to(qkv.dtype)
        cache[page[row], 0, :, slot[row]] = out[row, turning - kv_heads : turning]
        cache[page[row], 1, :, slot[row]] = out[row, turning:]
    return out


def rope_store(qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor) -> Tensor:
    """Turn q and k in place and store k and v; shapes in the module's docstring. Returns `qkv`."""
    rows, lanes, width = qkv.shape
    kv_heads = cache.shape[2]
    turning = qkv.narrow(1, 0, lanes - kv_heads)
    turned = turning.roll(width // 2, -1)
    turning.copy_((turning * cos).add_(turned * sin))
    fresh = qkv.narrow(1, lanes - 2 * kv_heads, 2 * kv_heads).view(rows, 2, kv_heads, width)
    cache.permute(0, 3, 1, 2, 4).index_put_((page, slot), fresh)
    return qkv


# fmt: off
@kernel()
def _narrowed(low, high, LIMIT: tl.constexpr, ROUND: tl.constexpr):
    """(codes of both halves, as fp32; steps) of lanes: [LANES, BLOCK] each; one step per lane."""
    top = tl.maximum(tl.max(tl.abs(low), axis=1), tl.max(tl.abs(high), axis=1))
    step = tl.div_rn(top, tl.full(top.shape, LIMIT, tl.float32))
    by = tl.where(step == 0.0, 1.0, step)[:, None] + tl.zeros(low.shape, tl.float32)
    low = tl.div_rn(low, by)
    high = tl.div_rn(high, by)
    if ROUND:
        magic = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, half to even
        low = (low + magic) - magic
        high = (high + magic) - magic
    return low, high, step


@kernel(needs=("wide loads",))
def _rope_store(
    qkv, cos, sin, norms, cache, scales, page, slot, page_stride, scales_stride, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
    LANES: tl.constexpr, BLOCK: tl.constexpr, NORMED: tl.constexpr, NARROW: tl.constexpr,
    LIMIT: tl.constexpr, ROUND: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = (tl.program_id(1) * LANES + tl.arange(0, LANES))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (lane < HEADS + 2 * KV_HEADS) & (column < HALF)
    at = qkv + (row * (HEADS + 2 * KV_HEADS) + lane) * 2 * HALF + column
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    turns = lane < HEADS + KV_HEADS
    if NORMED:
        mean = (tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)) * (0.5 / HALF) + eps
        root = tl.div_rn(tl.full([LANES], 1.0, tl.float32), tl.sqrt_rn(mean))[:, None]
        by = norms + lane * 2 * HALF + column
        normal_low = (low * root).to(qkv.dtype.element_ty).to(tl.float32)
        normal_high = (high * root).to(qkv.dtype.element_ty).to(tl.float32)
        normal_low *= tl.load(by, mask=inside & turns, other=0.0).to(tl.float32)
        normal_high *= tl.load(by + HALF, mask=inside & turns, other=0.0).to(tl.float32)
        low = tl.where(turns, normal_low.to(qkv.dtype.element_ty).to(tl.float32), low)
        high = tl.where(turns, normal_high.to(qkv.dtype.element_ty).to(tl.float32), high)
    angle = row * 2 * HALF + column
    shown = column < HALF
    low_cos = tl.load(cos + angle, mask=shown, other=0.0)
    low_sin = tl.load(sin + angle, mask=shown, other=0.0)
    high_cos = tl.load(cos + angle + HALF, mask=shown, other=0.0)
    high_sin = tl.load(sin + angle + HALF, mask=shown, other=0.0)
    new_low = tl.where(turns, low * low_cos + high * low_sin, low).to(qkv.dtype.element_ty)
    new_high = tl.where(turns, high * high_cos + low * high_sin, high).to(qkv.dtype.element_ty)
    tl.store(at, new_low, mask=inside & turns)
    tl.store(at + HALF, new_high, mask=inside & turns)
    line = (lane - HEADS) * PAGE + tl.load(slot + row)  # keys' heads, then values', as in qkv
    block = tl.load(page + row)
    to = cache + block * page_stride + line * 2 * HALF + column
    kept = inside & (lane >= HEADS)
    if NARROW:
        low, high, step = _narrowed(new_low.to(tl.float32), new_high.to(tl.float32), LIMIT, ROUND)
        tl.store(to, low.to(cache.dtype.element_ty), mask=kept)
        tl.store(to + HALF, high.to(cache.dtype.element_ty), mask=kept)
        one = kept & (column == 0)
        tl.store(scales + block * scales_stride + line + column, step[:, None] + column * 0.0, mask=one)
    else:
        tl.store(to, new_low, mask=kept)
        tl.store(to + HALF, new_high, mask=kept)


# fmt: on
def rope_store_launch(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache: Tensor,
    page: Tensor,
    slot: Tensor,
    *,
    norms: Tensor | None = None,
    eps: float = 0.0,
    scales: Tensor | None = None,
) -> Launch:
    """One program per row and some of its lanes: about a thousand pairs.

    norms: [heads + kv_heads, d], qkv's dtype: query and key heads are normalised first (`kernels.rms_norm`).
    scales: [blocks, 2, kv_heads, block] fp32 beside a cache of int8 or e4m3 (`kernels.narrow_cache`).
    """
    _check(qkv, cos, sin, cache, page, slot)
    _check_options(qkv, cache, norms, scales)
    rows, lanes, width = qkv.shape
    kv_heads, tokens = cache.shape[2:4]
    half = width // 2
    block = power_of_two(half)
    together = min(power_of_two(lanes), max(1, 1024 // block))
    arguments = {"qkv": qkv, "cos": cos, "sin": sin, "cache": cache, "page": page, "slot": slot}
    arguments |= {"norms": qkv if norms is None else norms, "NORMED": norms is not None, "eps": float(eps)}
    arguments |= {"scales": cache if scales is None else scales, "LIMIT": LIMITS.get(cache.dtype, 0.0)}
    arguments |= {"scales_stride": 16 if scales is None else scales.stride(0)}
    arguments |= {"page_stride": cache.stride(0), "HEADS": lanes - 2 * kv_heads, "KV_HEADS": kv_heads}
    arguments |= {"HALF": half, "PAGE": tokens, "LANES": together, "BLOCK": block}
    arguments |= {"NARROW": scales is not None, "ROUND": cache.dtype is torch.int8}
    return Launch(_rope_store, (rows, -(-lanes // together)), _rope_store.of(arguments))


def _check(qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor) -> None:
    rows, lanes, width = qkv.shape
    check("qkv", qkv, *FLOATS, shape=(rows, lanes, width // 2 * 2))
    check_dense("qkv", qkv, 3)
    check_dense("cache", cache, 4)
    for name, tensor in (("cos", cos), ("sin", sin)):
        check(name, tensor, torch.float32, shape=(rows, 1, width))
        check_dense(name, tensor, 3)
    for name, tensor in (("page", page), ("slot", slot)):
        check(name, tensor, torch.int64, shape=(rows,))
        check_dense(name, tensor, 1)


def _check_options(qkv: Tensor, cache: Tensor, norms: Tensor | None, scales: Tensor | None) -> None:
    _, lanes, width = qkv.shape
    dtypes = (qkv.dtype,) if scales is None else NARROW
    check("cache", cache, *dtypes, shape=(None, 2, *cache.shape[2:4], width))
    if norms is not None:
        check("norms", norms, qkv.dtype, shape=(lanes - cache.shape[2], width))
        check_dense("norms", norms, 2)
    if scales is not None:
        check("scales", scales, torch.float32, shape=tuple(cache.shape[:4]))
        check_dense("scales", scales, 3)


def rope_store_triton(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """As `rope_store`, in one launch. All contiguous but the cache's first dim; ValueError otherwise."""
    rope_store_launch(qkv, cos, sin, cache, page, slot).run()
    return qkv


def norm_rope_store_reference(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache: Tensor,
    page: Tensor,
    slot: Tensor,
    norms: Tensor,
    eps: float,
) -> Tensor:
    """The specification of the fused form: query and key heads are normalised, then turned and stored."""
    turning = qkv.shape[1] - cache.shape[2]
    normal_heads = rms_norm_reference(qkv[:, :turning], norms, eps)
    return rope_store_reference(torch.cat((normal_heads, qkv[:, turning:]), 1), cos, sin, cache, page, slot)


def norm_rope_store_triton(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache: Tensor,
    page: Tensor,
    slot: Tensor,
    norms: Tensor,
    eps: float,
) -> Tensor:
    """As `rope_store_triton`, after the norms of query and key heads (Qwen3): one launch in place of three."""
    rope_store_launch(qkv, cos, sin, cache, page, slot, norms=norms, eps=eps).run()
    return qkv


def build(*, normed: bool = False, narrow: torch.dtype | None = None) -> tuple[Launch]:
    """One layer of 32, for the gate."""
    qkv = torch.empty(8, 48, 128, dtype=torch.bfloat16, device="meta")
    angles = torch.empty(8, 1, 128, device="meta")
    places = torch.empty(8, dtype=torch.int64, device="meta")
    cache = qkv.new_empty(64, 32, 2, 8, 64, 128, dtype=narrow or qkv.dtype)[:, 0]
    scales = cache.new_empty(64, 32, 2, 8, 64, dtype=torch.float32)[:, 0] if narrow else None
    norms = qkv[0, :40] if normed else None
    launch = rope_store_launch(
        qkv, angles, angles, cache, places, places, norms=norms, eps=1e-6, scales=scales
    )
    return (launch,)


def case(name: str, rows: int, heads: int, kv_heads: int, width: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, ...]:
        positions = torch.randperm(64, generator=generator)[:rows]
        frequencies = 10_000.0 ** -(torch.arange(0, width, 2) / width)
        cache = torch.zeros(4, 2, kv_heads, 16, width, dtype=dtype)
        qkv = normal(generator, dtype, rows, heads + 2 * kv_heads, width)
        return qkv, *rope_angles(positions, frequencies), cache, positions // 16, positions % 16

    return Case(name, make)


OP = Op(
    name="rope_store",
    reference=rope_store_reference,
    implementations={"torch": rope_store, "triton": rope_store_triton},
    cases=(
        case("one row", 1, 1, 1, 2),
        case("grouped", 33, 4, 2, 64),
        case("odd heads", 7, 3, 1, 80),
        case("no rows", 0, 4, 2, 64),
        case("all slots", 64, 2, 2, 128),
    ),
    builds=(Build("bf16, 32 + 2 * 8 heads of 128", build),),
)


def _normed(name: str, rows: int, heads: int, kv_heads: int, width: int) -> Case:
    plain = case(name, rows, heads, kv_heads, width)

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[object, ...]:
        return *plain.make(generator, dtype), normal(generator, dtype, heads + kv_heads, width), 1e-6

    return attrs.evolve(plain, make=make, terms=width)


NORM_OP = Op(
    name="norm_rope_store",
    reference=norm_rope_store_reference,
    implementations={"triton": norm_rope_store_triton},
    cases=(
        _normed("one row", 1, 1, 1, 2),
        _normed("grouped", 33, 4, 2, 64),
        _normed("odd heads", 7, 3, 1, 80),
        _normed("no rows", 0, 4, 2, 64),
    ),
    roundings=6,
    builds=(Build("bf16, 32 + 2 * 8 of 128, normed", lambda: build(normed=True)),),
)
