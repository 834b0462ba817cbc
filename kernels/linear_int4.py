"""A linear layer with weights of four bits and a scale for each group of 128: W4A16, for memory's sake.

    w_nk = (q_nk - 8) * scale_ng,  g = k // 128,      y_rn = sum_g scale_ng * sum_{k in g} x_rk (q_nk - 8) + bias_n

The integers are exact in every float dtype, so a weight is never rounded: the group's sum is multiplied by the
scale, in fp32. Groups are added from left to right within absolute slices of k, and slices likewise, as in
`kernels.linear_triton`: in either form, for few rows or many, an element's sum has one order.

Two weights share a byte: byte j of a group's 64 holds elements j (low) and j + 64 (high), so that each half is a
contiguous row of x's tile and nothing has to be interleaved.

x: [rows, k] float, k a multiple of 128; weight: [n, k / 2] uint8; scales: [n, k / 128] in x's dtype; bias: [n]
or none; y: [rows, n]. A quarter of bf16's weight bytes and two bytes a group: limited by memory up to some
dozens of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import linear_triton
from kernels._triton import FLOATS, Launch, check, check_dense, kernel
from kernels.linear_triton import GROUP, ROWS, SLICE, Tiling, corner, programs_of
from kernels.op import Build, Case, Op, normal

if TYPE_CHECKING:
    import triton.language as tl

SHARED = 128
"""Weights that share a scale."""
ZERO = 8
"""The integer that stands for zero."""

WHOLE = Tiling(64, 128, 8, 3)
SPLIT = Tiling(ROWS, 32, 4, 3)
"""By the gate, not timed. A group's sum and the total stand in registers together."""


def pack_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight: [n, k] float -> (packed: [n, k / 2] uint8, scales: [n, k / 128] in its dtype); nearest values.

    A group's largest magnitude becomes 7 (or 8 with the other sign, if that is the larger). ValueError unless
    k is a multiple of 128.
    """
    n, k = weight.shape
    if k % SHARED:
        raise ValueError(f"k is {k}, not a multiple of {SHARED}")
    groups = weight.float().view(n, k // SHARED, SHARED)
    scales = (groups.abs().amax(-1) / 7).to(weight.dtype)
    steps = torch.where(scales == 0, 1.0, scales.float())[..., None]
    q = ((groups / steps).round().clamp(-ZERO, ZERO - 1) + ZERO).to(torch.uint8)
    low, high = q.chunk(2, dim=-1)
    return (low | high << 4).reshape(n, k // 2), scales


def unpack_int4(packed: Tensor) -> Tensor:
    """packed: [n, k / 2] uint8 -> [n, k / 128, 128] of integers from -8 to 7, in double."""
    groups = packed.view(len(packed), -1, SHARED // 2)
    return torch.cat((groups & 15, groups >> 4), -1).double() - ZERO


def linear_int4_reference(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """The specification: products and sums in double, one rounding."""
    dense = (unpack_int4(weight) * scales.double()[..., None]).flatten(1)
    wide = x.double() @ dense.T
    return (wide if bias is None else wide + bias.double()).to(x.dtype)


# fmt: off
@kernel()
def _nibble_slice(
    x, weight, scales, first, k, SHARED: tl.constexpr, ZERO: tl.constexpr, SLICE: tl.constexpr,
    TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):
    """[TILE_ROWS, COLUMNS] in fp32: the scaled sums of the groups of one slice."""
    half = tl.arange(0, SHARED // 2)
    total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
    for start in range(first, tl.minimum(first + SLICE, k), SHARED):
        pairs = tl.load(weight[:, None] + (start // 2 + half)[None, :]).to(tl.int32)
        left = tl.load(x[:, None] + (start + half)[None, :])
        low = ((pairs & 15) - ZERO).to(left.dtype)
        group = tl.dot(left, tl.trans(low), input_precision="ieee")
        left = tl.load(x[:, None] + (start + SHARED // 2 + half)[None, :])
        high = ((pairs >> 4) - ZERO).to(left.dtype)
        group = tl.dot(left, tl.trans(high), group, input_precision="ieee")
        total = total + group * tl.load(scales + start // SHARED).to(tl.float32)[None, :]
    return total


@kernel("rows", "k", needs=("wide loads", "group matrix"))
def _int4_whole(
    x, weight, scales, bias, y, rows, k, x_stride,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, SHARED: tl.constexpr, ZERO: tl.constexpr,
    TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, BIASED: tl.constexpr,
):
    """As `linear_whole`."""
    down = tl.cdiv(rows, TILE_ROWS)
    across = tl.cdiv(N, COLUMNS)
    for tile in range(tl.program_id(0), down * across, tl.num_programs(0)):
        row, column = corner(tile, down, across, TILE_ROWS, COLUMNS, GROUP)
        here = tl.minimum(column, N - 1).to(tl.int64)
        left = x + tl.minimum(row, rows - 1).to(tl.int64) * x_stride
        total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
        for first in range(0, k, SLICE):
            total = total + _nibble_slice(
                left, weight + here * (K // 2), scales + here * (K // SHARED), first, k,
                SHARED, ZERO, SLICE, TILE_ROWS, COLUMNS,
            )
        if BIASED:
            total = total + tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(y + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


@kernel("rows", "k", needs=("wide loads", "group matrix"))
def _int4_split(
    x, weight, scales, partial, rows, k, x_stride,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, SHARED: tl.constexpr, ZERO: tl.constexpr,
    TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):
    """One slice of one tile, into partial: [slices, rows, N] fp32."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    piece = tl.program_id(1)
    row = tl.program_id(2) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    here = tl.minimum(column, N - 1).to(tl.int64)
    left = x + tl.minimum(row, rows - 1).to(tl.int64) * x_stride
    total = _nibble_slice(
        left, weight + here * (K // 2), scales + here * (K // SHARED), piece * SLICE, k,
        SHARED, ZERO, SLICE, TILE_ROWS, COLUMNS,
    )
    at = (piece.to(tl.int64) * rows + row)[:, None] * N + column[None, :]
    tl.store(partial + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


# fmt: on
def int4_launches(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, y: Tensor, programs: int
) -> tuple[Launch, ...]:
    """One launch for many rows, two for few; the sums are the same. ValueError if shapes do not fit."""
    _check(x, weight, scales, bias, y)
    rows, n = y.shape
    tiles = -(-rows // WHOLE.rows) * -(-n // WHOLE.columns)
    if rows > ROWS and tiles >= programs:
        ends = {"bias": y if bias is None else bias, "y": y, "BIASED": bias is not None, "GROUP": GROUP}
        arguments = _common(x, weight, scales, WHOLE) | ends
        return (linear_triton.launch(_int4_whole, (min(programs, tiles),), arguments, WHOLE),)
    slices = -(-x.shape[1] // SLICE)
    partial = torch.empty(slices, rows, n, device=x.device)
    grid = (-(-n // SPLIT.columns), slices, -(-rows // SPLIT.rows))
    arguments = _common(x, weight, scales, SPLIT) | {"partial": partial}
    first = linear_triton.launch(_int4_split, grid, arguments, SPLIT)
    return first, linear_triton.add_launch(partial, bias, y)


def _common(x: Tensor, weight: Tensor, scales: Tensor, tiling: Tiling) -> dict[str, object]:
    k, n = x.shape[1], len(weight)
    shared = {"x": x, "weight": weight, "scales": scales, "rows": len(x), "k": k, "x_stride": x.stride(0)}
    shared |= {"K": k, "N": n, "SLICE": SLICE, "SHARED": SHARED, "ZERO": ZERO}
    return shared | {"TILE_ROWS": tiling.rows, "COLUMNS": tiling.columns}


def _check(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, y: Tensor) -> None:
    (rows, k), n = x.shape, len(weight)
    if k % SHARED:
        raise ValueError(f"k is {k}, not a multiple of {SHARED}")
    check("x", x, *FLOATS, shape=(rows, k))
    check("weight", weight, torch.uint8, shape=(n, k // 2))
    check("scales", scales, x.dtype, shape=(n, k // SHARED))
    check("y", y, x.dtype, shape=(rows, n))
    if bias is not None:
        check("bias", bias, x.dtype, shape=(n,))
    check_dense("x", x, 1)
    for name, tensor in (("weight", weight), ("scales", scales), ("y", y)):
        check_dense(name, tensor, 2)


def linear_int4_triton(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x @ dequantised(weight).T + bias; see the module for shapes."""
    y = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device)
    for each in int4_launches(x, weight, scales, bias, y, programs_of(x)):
        each.run()
    return y


def _build(rows: int, k: int, n: int) -> tuple[Launch, ...]:
    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    weight, scales = meta(n, k // 2, dtype=torch.uint8), meta(n, k // SHARED)
    return int4_launches(meta(rows, k), weight, scales, None, meta(rows, n), 132)


def _case(name: str, rows: int, k: int, n: int, biased: bool = False) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        weight, scales = pack_int4((torch.randn(n, k, generator=generator) / k**0.5).to(dtype))
        bias = normal(generator, dtype, n) if biased else None
        return normal(generator, dtype, rows, k), weight, scales, bias

    return Case(name, make, terms=k)


OP = Op(
    name="linear_int4",
    reference=linear_int4_reference,
    implementations={"triton": linear_int4_triton},
    cases=(
        _case("one row", 1, 256, 512),
        _case("one group and output", 2, 128, 1, biased=True),
        _case("odd rows and outputs", 7, 384, 33, biased=True),
        _case("no rows", 0, 128, 32),
        _case("sliced", 17, 2432, 130, biased=True),
        _case("many rows", 200, 1152, 300, biased=True),
    ),
    builds=(
        Build("8 rows, 4096 x 6144", lambda: _build(8, 4096, 6144)),
        Build("2048 rows, 4096 x 6144", lambda: _build(2048, 4096, 6144)),
    ),
)
