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

import torch
from torch import Tensor

from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.op import Build, Case, Op, normal

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
@kernel(needs=("wide loads",))
def _rope_store(
    qkv, cos, sin, cache, page, slot, page_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
    LANES: tl.constexpr, BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = (tl.program_id(1) * LANES + tl.arange(0, LANES))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (lane < HEADS + 2 * KV_HEADS) & (column < HALF)
    at = qkv + (row * (HEADS + 2 * KV_HEADS) + lane) * 2 * HALF + column
    low = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = row * 2 * HALF + column
    shown = column < HALF
    low_cos = tl.load(cos + angle, mask=shown, other=0.0)
    low_sin = tl.load(sin + angle, mask=shown, other=0.0)
    high_cos = tl.load(cos + angle + HALF, mask=shown, other=0.0)
    high_sin = tl.load(sin + angle + HALF, mask=shown, other=0.0)
    turns = lane < HEADS + KV_HEADS
    new_low = tl.where(turns, low * low_cos + high * low_sin, low).to(qkv.dtype.element_ty)
    new_high = tl.where(turns, high * high_cos + low * high_sin, high).to(qkv.dtype.element_ty)
    tl.store(at, new_low, mask=inside & turns)
    tl.store(at + HALF, new_high, mask=inside & turns)
    line = (lane - HEADS) * PAGE + tl.load(slot + row)  # keys' heads, then values', as in qkv
    to = cache + tl.load(page + row) * page_stride + line * 2 * HALF + column
    tl.store(to, new_low, mask=inside & (lane >= HEADS))
    tl.store(to + HALF, new_high, mask=inside & (lane >= HEADS))


# fmt: on
def rope_store_launch(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor
) -> Launch:
    """One program per row and some of its lanes: about a thousand pairs."""
    _check(qkv, cos, sin, cache, page, slot)
    rows, lanes, width = qkv.shape
    kv_heads, tokens = cache.shape[2:4]
    half = width // 2
    block = power_of_two(half)
    together = min(power_of_two(lanes), max(1, 1024 // block))
    arguments = {"qkv": qkv, "cos": cos, "sin": sin, "cache": cache, "page": page, "slot": slot}
    arguments |= {"page_stride": cache.stride(0), "HEADS": lanes - 2 * kv_heads, "KV_HEADS": kv_heads}
    arguments |= {"HALF": half, "PAGE": tokens, "LANES": together, "BLOCK": block}
    return Launch(_rope_store, (rows, -(-lanes // together)), arguments)


def _check(qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor) -> None:
    rows, lanes, width = qkv.shape
    check("qkv", qkv, *FLOATS, shape=(rows, lanes, width // 2 * 2))
    check("cache", cache, qkv.dtype, shape=(None, 2, *cache.shape[2:4], width))
    check_dense("qkv", qkv, 3)
    check_dense("cache", cache, 4)
    for name, tensor in (("cos", cos), ("sin", sin)):
        check(name, tensor, torch.float32, shape=(rows, 1, width))
        check_dense(name, tensor, 3)
    for name, tensor in (("page", page), ("slot", slot)):
        check(name, tensor, torch.int64, shape=(rows,))
        check_dense(name, tensor, 1)


def rope_store_triton(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """As `rope_store`, in one launch. All contiguous but the cache's first dim; ValueError otherwise."""
    rope_store_launch(qkv, cos, sin, cache, page, slot).run()
    return qkv


def _build() -> tuple[Launch]:
    qkv = torch.empty(8, 48, 128, dtype=torch.bfloat16, device="meta")
    angles = torch.empty(8, 1, 128, device="meta")
    places = torch.empty(8, dtype=torch.int64, device="meta")
    cache = qkv.new_empty(64, 32, 2, 8, 64, 128)[:, 0]  # one layer of 32
    return (rope_store_launch(qkv, angles, angles, cache, places, places),)


def _case(name: str, rows: int, heads: int, kv_heads: int, width: int) -> Case:
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
        _case("one row", 1, 1, 1, 2),
        _case("grouped", 33, 4, 2, 64),
        _case("odd heads", 7, 3, 1, 80),
        _case("no rows", 0, 4, 2, 64),
        _case("all slots", 64, 2, 2, 128),
    ),
    builds=(Build("bf16, 32 + 2 * 8 heads of 128", _build),),
)
