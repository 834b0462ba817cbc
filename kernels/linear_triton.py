"""The linear layer's Triton kernels: `kernels.linear` holds the formula, the specification and the CPU's path.

k is walked in absolute slices of `SLICE`. A slice is summed in fp32, tile of k by tile of k, and slices are added from
left to right, so the order of an element's sum depends on k alone. Two ways to compute it, with equal sums:

- whole: persistent programs go through the tiles of y, each over all slices. For many rows, limited by
  arithmetic; tiles are taken in squares, so that what a square shares stays in the cache;
- split: one program per tile and slice, and a second launch that adds the slices. For few rows, limited by
  reading the weights: there are too few tiles to occupy a chip, and a slice each gives them all work.

Both pad to `ROWS` rows at least, so that one form of matrix instruction (wgmma's 64 rows on Hopper) serves a
lone row and a full batch. Whether the tile of 128 rows that `whole` uses beyond rounds alike on every chip
is to be measured on each, not promised.

x: [rows, k], its rows may have gaps; weight: [n, k]; bias: [n] or none; y: [rows, n]. Moves n * k + rows *
(k + n) elements, and in the split form 8 * rows * n * slices bytes of partial sums besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from kernels import linear
from kernels._triton import FLOATS, Kernel, Launch, check, check_dense, kernel
from kernels.op import Build

if TYPE_CHECKING:
    import triton.language as tl

SLICE = 1024
"""Elements of k per partial sum. Shorter ones spread a narrow layer over more of the chip, longer ones
write fewer partial sums. Not measured yet."""
ROWS = 64
"""Least rows of a tile, filled up if there are fewer."""
GROUP = 8
"""Tiles of rows that are taken together, so that a column of weights is read once for all of them."""
ADDED = 1024
"""Columns of one program that adds partial sums: 16 bytes a thread."""
PROGRAMS = 4
"""Persistent programs where there is no GPU to ask: the interpreter, and the gate's meta tensors."""


DEPTH_BYTES = 128
"""Bytes of k in a tile, of x or of the weights. One for both forms: a tile's length is part of the order of
its sums."""


@attrs.frozen
class Tiling:
    """How y is cut. A table, not a search: what a search finds depends on what else the chip was doing."""

    rows: int
    columns: int
    warps: int
    stages: int


WHOLE = Tiling(128, 128, 8, 3)
SPLIT = Tiling(ROWS, 128, 4, 3)
"""Neither was timed on a GPU. What fits and does not spill on all four chips, by `kernels.gate`."""


# fmt: off
@kernel()
def _float_slice(
    x, weight, first, k, K: tl.constexpr, DEPTH: tl.constexpr, SLICE: tl.constexpr,
    TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):
    """[TILE_ROWS, COLUMNS] in fp32: rows at x and rows at weight multiplied over k from `first` on."""
    total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
    for start in range(first, tl.minimum(first + SLICE, k), DEPTH):
        at = start + tl.arange(0, DEPTH)
        if K % DEPTH == 0:
            left = tl.load(x[:, None] + at[None, :])
            right = tl.load(weight[:, None] + at[None, :])
        else:
            left = tl.load(x[:, None] + at[None, :], mask=(at < K)[None, :], other=0.0)
            right = tl.load(weight[:, None] + at[None, :], mask=(at < K)[None, :], other=0.0)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
    return total


@kernel()
def corner(tile, down, across, TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """The rows and columns of a tile: down a band of GROUP rows of tiles, then one column of them across."""
    band = tile // (GROUP * across)
    height = tl.minimum(down - band * GROUP, GROUP)
    inside = tile % (GROUP * across)
    row = (band * GROUP + inside % height) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    return row, (inside // height) * COLUMNS + tl.arange(0, COLUMNS)


@kernel("rows", "k", needs=("wide loads", "group matrix"))
def _linear_whole(
    x, weight, bias, y, rows, k, x_stride,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr, TILE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, BIASED: tl.constexpr,
):
    """Tiles of y, as many as fall to this program, each over all of k."""
    down = tl.cdiv(rows, TILE_ROWS)
    across = tl.cdiv(N, COLUMNS)
    for tile in range(tl.program_id(0), down * across, tl.num_programs(0)):
        row, column = corner(tile, down, across, TILE_ROWS, COLUMNS, GROUP)
        left = x + tl.minimum(row, rows - 1).to(tl.int64) * x_stride
        right = weight + tl.minimum(column, N - 1).to(tl.int64) * K
        total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
        for first in range(0, k, SLICE):
            total = total + _float_slice(left, right, first, k, K, DEPTH, SLICE, TILE_ROWS, COLUMNS)
        if BIASED:
            total = total + tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(y + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


@kernel("rows", "k", needs=("wide loads", "group matrix"))
def _linear_split(
    x, weight, partial, rows, k, x_stride,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr, TILE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One slice of one tile of y, into partial: [slices, rows, N] fp32."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    piece = tl.program_id(1)
    row = tl.program_id(2) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    left = x + tl.minimum(row, rows - 1).to(tl.int64) * x_stride
    right = weight + tl.minimum(column, N - 1).to(tl.int64) * K
    total = _float_slice(left, right, piece * SLICE, k, K, DEPTH, SLICE, TILE_ROWS, COLUMNS)
    at = (piece.to(tl.int64) * rows + row)[:, None] * N + column[None, :]
    tl.store(partial + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


@kernel("rows", needs=("wide loads",))
def _linear_add(
    partial, bias, y, rows, N: tl.constexpr, SLICES: tl.constexpr, COLUMNS: tl.constexpr,
    BIASED: tl.constexpr,
):
    """Add the slices of one row, from left to right."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < N
    total = tl.zeros([COLUMNS], tl.float32)
    for piece in range(SLICES):
        total = total + tl.load(partial + (piece * rows + row) * N + column, mask=inside, other=0.0)
    if BIASED:
        total = total + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * N + column, total, mask=inside)


# fmt: on
def linear_launches(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, programs: int = PROGRAMS
) -> tuple[Launch, ...]:
    """One launch for many rows, two for few; the sums are the same. ValueError if shapes do not fit."""
    _check(x, weight, bias, y)
    rows, n = y.shape
    tiles = -(-rows // WHOLE.rows) * -(-n // WHOLE.columns)
    if rows > ROWS and tiles >= programs:
        return (whole_launch(x, weight, bias, y, programs),)
    return split_launches(x, weight, bias, y)


def whole_launch(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, programs: int) -> Launch:
    """The form for many rows."""
    rows, n = y.shape
    arguments = _common(x, weight, WHOLE) | {"bias": y if bias is None else bias, "y": y}
    arguments |= {"GROUP": GROUP, "BIASED": bias is not None}
    tiles = -(-rows // WHOLE.rows) * -(-n // WHOLE.columns)
    return launch(_linear_whole, (min(programs, tiles),), arguments, WHOLE)


def split_launches(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> tuple[Launch, Launch]:
    """The form for few rows."""
    rows, n = y.shape
    slices = -(-x.shape[1] // SLICE)
    partial = torch.empty(slices, rows, n, device=x.device)
    grid = (-(-n // SPLIT.columns), slices, -(-rows // SPLIT.rows))
    first = launch(_linear_split, grid, _common(x, weight, SPLIT) | {"partial": partial}, SPLIT)
    return first, add_launch(partial, bias, y)


def add_launch(partial: Tensor, bias: Tensor | None, y: Tensor) -> Launch:
    """Add partial: [slices, rows, n] fp32 into y, with the bias."""
    slices, rows, n = partial.shape
    arguments = {"partial": partial, "bias": y if bias is None else bias, "y": y, "rows": rows, "N": n}
    arguments |= {"SLICES": slices, "COLUMNS": ADDED, "BIASED": bias is not None}
    return Launch(_linear_add, (rows, -(-n // ADDED)), arguments)


def _common(x: Tensor, weight: Tensor, tiling: Tiling) -> dict[str, object]:
    n, k = weight.shape
    shared = {"x": x, "weight": weight, "rows": len(x), "k": k, "x_stride": x.stride(0), "K": k, "N": n}
    shared |= {"SLICE": SLICE, "DEPTH": DEPTH_BYTES // weight.itemsize}
    return shared | {"TILE_ROWS": tiling.rows, "COLUMNS": tiling.columns}


def launch(
    kernel: Kernel, grid: tuple[int, ...], arguments: dict[str, object], tiling: Tiling | None
) -> Launch:
    """A launch with those of the arguments that the kernel takes; no tiling if it does not walk over tiles."""
    ordered = kernel.of(arguments)
    if tiling is None:
        return Launch(kernel, grid, ordered)
    tile_bytes = (tiling.rows + tiling.columns) * DEPTH_BYTES
    return Launch(kernel, grid, ordered, tiling.warps, tiling.stages, tile_bytes)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> None:
    n, k = weight.shape
    check("x", x, *FLOATS, shape=(None, k))
    check("weight", weight, x.dtype, shape=(n, k))
    check("y", y, x.dtype, shape=(len(x), n))
    if bias is not None:
        check("bias", bias, x.dtype, shape=(n,))
    check_dense("x", x, 1)
    for name, tensor in (("weight", weight), ("y", y)):
        check_dense(name, tensor, 2)


def programs_of(x: Tensor) -> int:
    """Persistent programs: one per multiprocessor of x's device."""
    if not x.is_cuda:
        return PROGRAMS
    return torch.cuda.get_device_properties(x.device).multi_processor_count


def linear_triton(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x @ weight.T + bias. x: [rows, k], weight: [n, k] contiguous, bias: [n]; one dtype."""
    y = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device)
    for each in linear_launches(x, weight, bias, y, programs_of(x)):
        each.run()
    return y


def _build(rows: int, k: int, n: int, programs: int) -> tuple[Launch, ...]:
    x = torch.empty(rows, k, dtype=torch.bfloat16, device="meta")
    weight = torch.empty(n, k, dtype=torch.bfloat16, device="meta")
    y = torch.empty(rows, n, dtype=torch.bfloat16, device="meta")
    return linear_launches(x, weight, None, y, programs)


OP = attrs.evolve(
    linear.OP,
    implementations=linear.OP.implementations | {"triton": linear_triton},
    builds=(
        Build("bf16, 8 rows, 4096 x 6144", lambda: _build(8, 4096, 6144, 132)),
        Build("bf16, 2048 rows, 4096 x 6144", lambda: _build(2048, 4096, 6144, 132)),
    ),
)
