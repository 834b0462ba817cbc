"""A linear layer in eight bits on both sides: W8A8, with a scale for each token and each output.

    scale_r = max_k |x_rk| / LIMIT,  q_rk = round(x_rk / scale_r)               (dynamic, per token)
    y_rn = (sum_k q_rk * w_nk) * scale_r * w_scale_n + bias_n

in int8 (LIMIT 127, round half to even) or fp8 e4m3 (LIMIT 448; Micikevicius et al., arXiv 2209.05433). In
int8 the sum is an exact integer, at most k * 127^2 < 2^31 for k up to 133,000: no order of summation can
change it, so a row's bits depend on nothing but the row. In fp8 products are summed in fp32 in slices of k,
in the order of `kernels.linear_triton`.

x: [rows, k] float; weight: [n, k] int8 or e4m3; w_scale: [n] fp32; bias: [n] or none, x's dtype; y: [rows, n]
in x's dtype. Half the weight bytes of bf16, and twice the products a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import linear_triton
from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.linear_triton import ADDED, DEPTH_BYTES, GROUP, ROWS, SLICE, Tiling, corner, programs_of
from kernels.op import Build, Case, Op, normal

if TYPE_CHECKING:
    import triton.language as tl

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest magnitude of each narrow dtype."""
NARROW = tuple(LIMITS)
K_MAX = (2**31 - 1) // 127**2
"""Longest k whose int8 sum cannot overflow 32 bits."""

WHOLE = {torch.int8: Tiling(128, 128, 8, 3), torch.float8_e4m3fn: Tiling(64, 128, 4, 3)}
"""fp8 has its total and a slice's in registers: with 128 rows, Triton 3.9 spills on sm_90."""
SPLIT = Tiling(ROWS, 64, 4, 3)
"""As in `linear_triton`: by the gate, not timed."""
IMPRECISE = 32
"""Products of fp8 that Hopper may add in its short accumulator before they are moved to fp32: the least that
Triton offers. Its default adds all of a tile (DeepSeek-V3 report, arXiv 2412.19437, section 3.3.2)."""


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x: [rows, k] float -> (q: [rows, k] of int8 or e4m3, scale: [rows] fp32). Rows do not see each other."""
    wide = x.float()
    scale = wide.abs().amax(-1) / LIMITS[dtype] if x.shape[1] else wide.new_zeros(len(x))
    ratio = wide / torch.where(scale == 0, 1.0, scale)[:, None]
    return (ratio.round() if dtype is torch.int8 else ratio).to(dtype), scale


def linear_scaled_reference(x: Tensor, weight: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """The specification: products and sums in double, one rounding."""
    q, scale = quantise(x, weight.dtype)
    wide = q.double() @ weight.double().T * scale.double()[:, None] * w_scale.double()
    return (wide if bias is None else wide + bias.double()).to(x.dtype)


# fmt: off
@kernel(needs=("wide loads",))
def _quantise(x, q, scale, x_stride, K: tl.constexpr, BLOCK: tl.constexpr, LIMIT: tl.constexpr):
    """One row in int8: x / scale, rounded half to even."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    wide = tl.load(x + row * x_stride + at, mask=at < K, other=0.0).to(tl.float32)
    top = tl.max(tl.abs(wide), axis=0)
    by = tl.div_rn(top, LIMIT)
    tl.store(scale + row, by)
    ratio = tl.div_rn(wide, tl.where(by == 0.0, 1.0, by) + tl.zeros([BLOCK], tl.float32))
    magic = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, half to even
    whole = (ratio + magic) - magic
    tl.store(q + row * K + at, whole.to(tl.int8), mask=at < K)


@kernel()
def _narrow_slice(
    x, weight, first, k, K: tl.constexpr, DEPTH: tl.constexpr, SLICE: tl.constexpr,
    TILE_ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr, IMPRECISE: tl.constexpr,
):
    """[TILE_ROWS, COLUMNS]: products over k from `first` on; int32 if EXACT, else fp32."""
    if EXACT:
        total = tl.zeros([TILE_ROWS, COLUMNS], tl.int32)
    else:
        total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
    for start in range(first, tl.minimum(first + SLICE, k), DEPTH):
        at = start + tl.arange(0, DEPTH)
        if K % DEPTH == 0:
            left = tl.load(x[:, None] + at[None, :])
            right = tl.load(weight[:, None] + at[None, :])
        else:
            left = tl.load(x[:, None] + at[None, :], mask=(at < K)[None, :], other=0.0)
            right = tl.load(weight[:, None] + at[None, :], mask=(at < K)[None, :], other=0.0)
        if EXACT:
            total = tl.dot(left, tl.trans(right), total, out_dtype=tl.int32)
        else:
            total = tl.dot(left, tl.trans(right), total, max_num_imprecise_acc=IMPRECISE)
    return total


@kernel("rows", "k", needs=("wide loads", "narrow matrix"))
def _scaled_whole(
    x, scale, weight, w_scale, bias, y, rows, k,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr, TILE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, BIASED: tl.constexpr, EXACT: tl.constexpr,
    IMPRECISE: tl.constexpr,
):
    """As `linear_whole`; an exact sum needs no slices, and is scaled last."""
    down = tl.cdiv(rows, TILE_ROWS)
    across = tl.cdiv(N, COLUMNS)
    for tile in range(tl.program_id(0), down * across, tl.num_programs(0)):
        row, column = corner(tile, down, across, TILE_ROWS, COLUMNS, GROUP)
        left = x + tl.minimum(row, rows - 1).to(tl.int64) * K
        right = weight + tl.minimum(column, N - 1).to(tl.int64) * K
        if EXACT:
            total = _narrow_slice(
                left, right, 0, k, K, DEPTH, K, TILE_ROWS, COLUMNS, EXACT, IMPRECISE,
            ).to(tl.float32)
        else:
            total = tl.zeros([TILE_ROWS, COLUMNS], tl.float32)
            for first in range(0, k, SLICE):
                total = total + _narrow_slice(
                    left, right, first, k, K, DEPTH, SLICE, TILE_ROWS, COLUMNS, EXACT, IMPRECISE,
                )
        by_row = tl.load(scale + row, mask=row < rows, other=0.0)
        by_column = tl.load(w_scale + column, mask=column < N, other=0.0)
        total = total * by_row[:, None] * by_column[None, :]
        if BIASED:
            total = total + tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(y + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


@kernel("rows", "k", needs=("wide loads", "narrow matrix"))
def _scaled_split(
    x, weight, partial, rows, k,
    K: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr, TILE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, EXACT: tl.constexpr, IMPRECISE: tl.constexpr,
):
    """One slice of one tile, unscaled, into partial: [slices, rows, N] of int32 or fp32."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    piece = tl.program_id(1)
    row = tl.program_id(2) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    left = x + tl.minimum(row, rows - 1).to(tl.int64) * K
    right = weight + tl.minimum(column, N - 1).to(tl.int64) * K
    total = _narrow_slice(
        left, right, piece * SLICE, k, K, DEPTH, SLICE, TILE_ROWS, COLUMNS, EXACT, IMPRECISE,
    )
    at = (piece.to(tl.int64) * rows + row)[:, None] * N + column[None, :]
    tl.store(partial + at, total, mask=(row < rows)[:, None] & (column < N)[None, :])


@kernel("rows", needs=("wide loads",))
def _scaled_add(
    partial, scale, w_scale, bias, y, rows, N: tl.constexpr, SLICES: tl.constexpr, COLUMNS: tl.constexpr,
    BIASED: tl.constexpr, EXACT: tl.constexpr,
):
    """Add the slices of one row from left to right, and scale the sum."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < N
    if EXACT:
        total = tl.zeros([COLUMNS], tl.int32)
    else:
        total = tl.zeros([COLUMNS], tl.float32)
    for piece in range(SLICES):
        total = total + tl.load(partial + (piece * rows + row) * N + column, mask=inside, other=0)
    by = tl.load(w_scale + column, mask=inside, other=0.0)
    wide = total.to(tl.float32) * tl.load(scale + row) * by
    if BIASED:
        wide = wide + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * N + column, wide, mask=inside)


# fmt: on
def quantise_launch(x: Tensor, q: Tensor, scale: Tensor) -> Launch:
    """x: [rows, k] float into q: [rows, k] int8 and scale: [rows] fp32; one program per row."""
    check_dense("x", x, 1)
    block = power_of_two(x.shape[1])
    arguments = {"x": x, "q": q, "scale": scale, "x_stride": x.stride(0), "K": x.shape[1]}
    arguments |= {"BLOCK": block, "LIMIT": LIMITS[torch.int8]}
    return Launch(_quantise, (len(x),), arguments, warps=min(16, max(1, block // 512)))


def scaled_launches(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    y: Tensor,
    programs: int,
) -> tuple[Launch, ...]:
    """The product of what is quantised already: one launch for many rows, two for few, with equal sums."""
    _check(q, scale, weight, w_scale, bias, y)
    rows, n = y.shape
    whole = WHOLE[q.dtype]
    tiles = -(-rows // whole.rows) * -(-n // whole.columns)
    ends = {"scale": scale, "w_scale": w_scale, "bias": y if bias is None else bias, "y": y}
    ends |= {"BIASED": bias is not None}
    if rows > ROWS and tiles >= programs:
        arguments = _common(q, weight, whole) | ends | {"GROUP": GROUP}
        return (linear_triton.launch(_scaled_whole, (min(programs, tiles),), arguments, whole),)
    return _split_launches(q, weight, y, ends)


def _split_launches(q: Tensor, weight: Tensor, y: Tensor, ends: dict[str, object]) -> tuple[Launch, Launch]:
    rows, n = y.shape
    slices = -(-q.shape[1] // SLICE)
    kind = torch.int32 if q.dtype is torch.int8 else torch.float32
    partial = torch.empty(slices, rows, n, dtype=kind, device=q.device)
    arguments = _common(q, weight, SPLIT) | ends | {"partial": partial}
    grid = (-(-n // SPLIT.columns), slices, -(-rows // SPLIT.rows))
    first = linear_triton.launch(_scaled_split, grid, arguments, SPLIT)
    arguments |= {"SLICES": slices, "COLUMNS": ADDED}
    second = linear_triton.launch(_scaled_add, (rows, -(-n // ADDED)), arguments, None)
    return first, second


def _common(q: Tensor, weight: Tensor, tiling: Tiling) -> dict[str, object]:
    n, k = weight.shape
    shared = {"x": q, "weight": weight, "rows": len(q), "k": k, "K": k, "N": n, "SLICE": SLICE}
    shared |= {"DEPTH": DEPTH_BYTES // weight.itemsize, "TILE_ROWS": tiling.rows, "COLUMNS": tiling.columns}
    return shared | {"EXACT": q.dtype is torch.int8, "IMPRECISE": IMPRECISE}


def _check(q: Tensor, scale: Tensor, weight: Tensor, w_scale: Tensor, bias: Tensor | None, y: Tensor) -> None:
    n, k = weight.shape
    if k > K_MAX and q.dtype is torch.int8:
        raise ValueError(f"k is {k}, but an int8 sum is exact only up to {K_MAX}")
    check("x", q, *NARROW, shape=(None, k))
    check("weight", weight, q.dtype, shape=(n, k))
    check("scale", scale, torch.float32, shape=(len(q),))
    check("w_scale", w_scale, torch.float32, shape=(n,))
    check("y", y, *FLOATS, shape=(len(q), n))
    if bias is not None:
        check("bias", bias, y.dtype, shape=(n,))
    for name, tensor in (("x", q), ("weight", weight), ("y", y)):
        check_dense(name, tensor, 2)


def linear_scaled_triton(x: Tensor, weight: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Quantise x by rows and multiply. weight: [n, k] int8 or e4m3; see the module for shapes.

    int8 rows are quantised by a kernel of ours, e4m3 rows by torch: its conversion is the specification's.
    """
    y = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device)
    if weight.dtype is torch.int8:
        q, scale = torch.empty(x.shape, dtype=torch.int8, device=x.device), x.new_empty(len(x)).float()
        quantise_launch(x, q, scale).run()
    else:
        q, scale = quantise(x, weight.dtype)
    for each in scaled_launches(q, scale, weight, w_scale, bias, y, programs_of(x)):
        each.run()
    return y


def _build(rows: int, k: int, n: int, dtype: torch.dtype) -> tuple[Launch, ...]:
    def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    q, scale, y = meta(rows, k, dtype=dtype), meta(rows), meta(rows, n, dtype=torch.bfloat16)
    product = scaled_launches(q, scale, meta(n, k, dtype=dtype), meta(n), None, y, 132)
    if dtype is torch.int8:
        return (quantise_launch(meta(rows, k, dtype=torch.bfloat16), q, scale), *product)
    return product


def _case(name: str, rows: int, k: int, n: int, dtype: torch.dtype, biased: bool = False) -> Case:
    def make(generator: torch.Generator, float_dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        weight, w_scale = quantise(torch.randn(n, k, generator=generator) / k**0.5, dtype)
        bias = normal(generator, float_dtype, n) if biased else None
        return normal(generator, float_dtype, rows, k), weight, w_scale, bias

    return Case(f"{name}, {'int8' if dtype is torch.int8 else 'e4m3'}", make, terms=k)


def _zeros(_generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, ...]:
    weight, w_scale = quantise(torch.ones(5, 32), torch.int8)
    return torch.zeros(3, 32, dtype=dtype), weight, w_scale


OP = Op(
    name="linear_scaled",
    reference=linear_scaled_reference,
    implementations={"triton": linear_scaled_triton},
    cases=(
        _case("one element", 1, 1, 1, torch.int8),
        *(_case("one row", 1, 256, 512, dtype) for dtype in NARROW),
        *(_case("odd sizes", 7, 97, 33, dtype, biased=True) for dtype in NARROW),
        Case("no rows", lambda generator, dtype: _case("", 0, 64, 32, torch.int8).make(generator, dtype)),
        Case("rows of zeros", _zeros),
        *(_case("sliced", 17, 2500, 130, dtype, biased=True) for dtype in NARROW),
        *(_case("many rows", 200, 1100, 300, dtype, biased=True) for dtype in NARROW),
    ),
    roundings=3,
    builds=(
        Build("int8, 8 rows, 4096 x 6144", lambda: _build(8, 4096, 6144, torch.int8)),
        Build("int8, 2048 rows, 4096 x 6144", lambda: _build(2048, 4096, 6144, torch.int8)),
        Build(
            "fp8, 8 rows, 4096 x 6144",
            lambda: _build(8, 4096, 6144, torch.float8_e4m3fn),
            ("sm_90", "sm_100"),
        ),
        Build(
            "fp8, 2048 rows, 4096 x 6144",
            lambda: _build(2048, 4096, 6144, torch.float8_e4m3fn),
            ("sm_90", "sm_100"),
        ),
    ),
)
