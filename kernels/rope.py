"""Rotary position embedding, and the write of keys and values into the paged cache (arXiv 2104.09864).

Pairs (x_i, x_{i + d/2}) of each query and key head turn by the angle position * frequency_i ("rotate half",
the Hugging Face convention): y = x * cos + roll(x, d/2) * (-sin | sin).

qkv: [rows, heads + 2 * kv_heads, d], queries first, then keys, then values; turned in place.
cos, sin: [rows, 1, d] fp32, sin's first half negated. cache: one layer's pages,
[blocks, 2, kv_heads, block, d]; row r lands in page `page[r]`, slot `slot[r]`.
Moves every q, k, v element twice: limited by memory, on a CPU at batch 1 by the number of operator calls.
"""

import torch
from torch import Tensor

from kernels.op import Case, Op, normal


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
    implementations={"torch": rope_store},
    cases=(
        _case("one row", 1, 1, 1, 2),
        _case("grouped", 33, 4, 2, 64),
        _case("odd heads", 7, 3, 1, 80),
        _case("no rows", 0, 4, 2, 64),
        _case("all slots", 64, 2, 2, 128),
    ),
)
