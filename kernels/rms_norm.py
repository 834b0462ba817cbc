"""Root-mean-square norm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467).

x: [..., width]; weight: [width]; y like x. Reads and writes each element once: limited by memory on a GPU,
by the number of operator calls on a CPU at batch 1. The statistics are fp32 whatever the dtype, and the
normalised value is rounded to x's dtype before the weight, as Hugging Face does.

`add_rms_norm` adds what a layer has made to the residual first, in the residual's place: residual += x, rounded to
its dtype, and y is the norm of that. One launch and two trips to memory fewer than the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.op import Build, Case, Op, normal

if TYPE_CHECKING:
    import triton.language as tl


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The specification. x: [..., width], any float dtype; weight: [width], x's dtype."""
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
    x, residual, weight, y, rows, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADDED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        before = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        wide = (wide + before).to(y.dtype.element_ty).to(tl.float32)
        tl.store(residual + at, wide, mask=inside)
    mean = tl.div_rn(tl.sum(wide * wide, axis=1), tl.full([ROWS], WIDTH, tl.float32))
    scale = tl.div_rn(tl.full([ROWS], 1.0, tl.float32), tl.sqrt_rn(mean + eps))
    normal = (wide * scale[:, None]).to(y.dtype.element_ty).to(tl.float32)
    by = tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    tl.store(y + at, normal * by[None, :], mask=inside)


# fmt: on
def rms_norm_launch(
    x: Tensor, weight: Tensor, y: Tensor, eps: float, residual: Tensor | None = None
) -> Launch:
    """One program per row, or per few narrow rows; a row's sum has the same shape in any batch."""
    width = x.shape[-1]
    check("x", x, *FLOATS, shape=(*(None,) * (x.dim() - 1), width))
    check("weight", weight, x.dtype, shape=(width,))
    check_dense("x", x, x.dim())
    if residual is not None:
        check("residual", residual, x.dtype, shape=tuple(x.shape))
        check_dense("residual", residual, x.dim())
    block = power_of_two(width)
    together = max(1, 512 // block)
    rows = x.numel() // width
    added = residual is not None
    arguments = {"x": x, "residual": residual if added else y, "weight": weight, "y": y, "rows": rows}
    arguments |= {"eps": eps, "WIDTH": width, "BLOCK": block, "ROWS": together, "ADDED": added}
    return Launch(_rms_norm, (-(-rows // together),), arguments, warps=min(16, max(1, block // 512)))


def rms_norm_triton(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise rows of x: [..., width], contiguous, in one launch. ValueError for anything else."""
    y = torch.empty_like(x)
    rms_norm_launch(x, weight, y, eps).run()
    return y


def add_rms_norm_triton(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `add_rms_norm`, in one launch; everything contiguous. ValueError for anything else."""
    y = torch.empty_like(x)
    rms_norm_launch(x, weight, y, eps, residual).run()
    return y


def _build(rows: int, width: int, added: bool = False) -> tuple[Launch]:
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="meta")
    residual = torch.empty_like(x) if added else None
    return (rms_norm_launch(x, x[0], torch.empty_like(x), 1e-5, residual),)


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
    ),
    builds=(
        Build("bf16, width 4096", lambda: _build(8, 4096)),
        Build("bf16, head of 128", lambda: _build(320, 128)),
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
