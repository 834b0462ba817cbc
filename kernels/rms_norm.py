"""Root-mean-square norm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467).

x: [..., width]; weight: [width], or [lanes, width] for x: [..., lanes, width] (Qwen3 has a weight for query heads
and one for key heads); y like x. Reads and writes each element once: limited by memory on a GPU,
by the number of operator calls on a CPU at batch 1. The statistics are fp32 whatever the dtype, and the
normalised value is rounded to x's dtype before the weight, as Hugging Face does.

`add_rms_norm` adds what a layer has made to the residual first, in the residual's place: residual += x, rounded to
its dtype, and y is the norm of that. One launch and two trips to memory fewer than the two apart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.op import Build, Case, Op, normal

if TYPE_CHECKING:
    import triton.language as tl


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The specification. x: [..., width], any float dtype; weight: [width] or [lanes, width], x's dtype."""
    wide = x.double()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return ((wide * scale).to(x.dtype).double() * weight.double()).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise rows of x: [..., width] with torch operators whose rows do not see each other."""
    wide = x.float()
    scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (wide * scale).to(x.dtype).mul_(weight)


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The specification of the fused form: adds x into residual, and normalises that."""
    residual.copy_((residual.double() + x.double()).to(residual.dtype))
    return rms_norm_reference(residual, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """residual += x, in place; return its norm. All [..., width] of one dtype."""
    return rms_norm(residual.add_(x), weight, eps)


# fmt: off
@kernel("rows", needs=("wide loads",))
def _rms_norm(
    x, residual, weight, y, rows, eps, x_stride,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
    BY_LANE: tl.constexpr, ADDED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    begin = row // LANES * x_stride + row % LANES * WIDTH
    wide = tl.load(x + begin[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        before = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        wide = (wide + before).to(y.dtype.element_ty).to(tl.float32)
        tl.store(residual + at, wide, mask=inside)
    mean = tl.div_rn(tl.sum(wide * wide, axis=1), tl.full([ROWS], WIDTH, tl.float32))
    scale = tl.div_rn(tl.full([ROWS], 1.0, tl.float32), tl.sqrt_rn(mean + eps))
    normal = (wide * scale[:, None]).to(y.dtype.element_ty).to(tl.float32)
    if BY_LANE:
        lane = weight + (row % LANES)[:, None] * WIDTH
        by = tl.load(lane + column[None, :], mask=inside, other=0.0).to(tl.float32)
    else:
        by = tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, normal * by, mask=inside)


# fmt: on
def rms_norm_launch(
    x: Tensor, weight: Tensor, y: Tensor, eps: float, residual: Tensor | None = None
) -> Launch:
    """One program per row, or per few narrow rows; a row's sum has the same shape in any batch."""
    width = x.shape[-1]
    _check(x, weight, y, residual)
    block = power_of_two(width)
    together = max(1, 512 // block)
    rows, lanes = x.numel() // width, math.prod(x.shape[1:-1])
    added, by_lane = residual is not None, weight.dim() == 2
    arguments = {"x": x, "residual": residual if added else y, "weight": weight, "y": y, "rows": rows}
    arguments |= {"eps": eps, "x_stride": x.stride(0), "WIDTH": width, "BLOCK": block, "ROWS": together}
    arguments |= {"LANES": lanes, "BY_LANE": by_lane, "ADDED": added}
    return Launch(_rms_norm, (-(-rows // together),), arguments, warps=min(16, max(1, block // 512)))


def _check(x: Tensor, weight: Tensor, y: Tensor, residual: Tensor | None) -> None:
    width = x.shape[-1]
    check("x", x, *FLOATS, shape=(*(None,) * (x.dim() - 1), width))
    check_dense("x", x, x.dim() - 1)
    check("weight", weight, x.dtype, shape=(*x.shape[1:-1], width) if weight.dim() > 1 else (width,))
    check_dense("weight", weight, weight.dim())
    check("y", y, x.dtype, shape=tuple(x.shape))
    check_dense("y", y, y.dim())
    if residual is not None:
        check("residual", residual, x.dtype, shape=tuple(x.shape))
        check_dense("residual", residual, x.dim())


def rms_norm_triton(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise rows of x: [..., width] in one launch; all but its first dim dense. y is contiguous.

    weight: [width], or [lanes, width] for x: [rows, lanes, width]. ValueError for anything else.
    """
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rms_norm_launch(x, weight, y, eps).run()
    return y


def add_rms_norm_triton(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `add_rms_norm`, in one launch; x as in `rms_norm_triton`, the residual contiguous. ValueError else."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rms_norm_launch(x, weight, y, eps, residual).run()
    return y


def _build(rows: int, width: int, added: bool = False) -> tuple[Launch]:
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="meta")
    residual = torch.empty_like(x) if added else None
    return (rms_norm_launch(x, x[0], torch.empty_like(x), 1e-5, residual),)


def _build_heads() -> tuple[Launch]:
    """Query and key heads as they lie in qkv, a weight for each."""
    x = torch.empty(8, 48, 128, dtype=torch.bfloat16, device="meta")[:, :40]
    return (rms_norm_launch(x, x[0], torch.empty(8, 40, 128, dtype=x.dtype, device="meta"), 1e-5),)


def _heads(name: str, rows: int, lanes: int, width: int) -> Case:
    """A weight for each lane, and two lanes more that are left alone."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
        x = normal(generator, dtype, rows, lanes + 2, width)
        return x.narrow(1, 0, lanes), normal(generator, dtype, lanes, width), 1e-5

    return Case(name, make, terms=width)


def _case(name: str, *shape: int, scale: float = 1.0) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
        return normal(generator, dtype, *shape) * scale, normal(generator, dtype, shape[-1]), 1e-5

    return Case(name, make, terms=shape[-1])


OP = Op(
    name="rms_norm",
    reference=rms_norm_reference,
    implementations={"torch": rms_norm, "triton": rms_norm_triton},
    cases=(
        _case("one element", 1, 1),
        _case("one row", 1, 256),
        _case("odd width", 7, 97),
        _case("per head", 5, 3, 64),
        _case("no rows", 0, 64),
        _case("values no larger than eps", 3, 64, scale=2.0**-10),
        _case("many rows", 257, 768),
        _heads("heads within qkv", 9, 6, 64),
        _heads("one head within qkv, odd width", 5, 1, 33),
    ),
    builds=(
        Build("bf16, width 4096", lambda: _build(8, 4096)),
        Build("bf16, heads of 128 in qkv", _build_heads),
    ),
)


def _adding(name: str, *shape: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor | float, ...]:
        x, residual = normal(generator, dtype, *shape), normal(generator, dtype, *shape)
        return x, residual, normal(generator, dtype, shape[-1]), 1e-5

    return Case(name, make, terms=shape[-1])


ADD_OP = Op(
    name="add_rms_norm",
    reference=add_rms_norm_reference,
    implementations={"torch": add_rms_norm, "triton": add_rms_norm_triton},
    cases=(
        _adding("one element", 1, 1),
        _adding("one row", 1, 256),
        _adding("odd width", 7, 97),
        _adding("no rows", 0, 64),
        _adding("many rows", 257, 768),
    ),
    builds=(Build("bf16, width 4096, added", lambda: _build(8, 4096, added=True)),),
)
