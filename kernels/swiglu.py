"""SwiGLU's elementwise half: y = silu(gate) * up, silu(z) = z / (1 + exp(-z)) (Shazeer, arXiv 2002.05202).

x: [rows, 2 * width], the gate's half first, as one fused linear yields it; y: [rows, width]. Three elements
moved per element made: limited by memory. silu is rounded to x's dtype before the product, as in Hugging Face.

GeGLU is the same with gelu's tanh form in silu's place (Gemma; Hendrycks and Gimpel, arXiv 1606.08415):
gelu(z) = z / (1 + exp(-2 u)), u = sqrt(2 / pi) (z + 0.044715 z^3), since (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels._triton import FLOATS, Launch, check, check_dense, kernel
from kernels.op import Build, Case, Op, normal

if TYPE_CHECKING:
    import triton.language as tl

ROOT, CUBE = math.sqrt(2 / math.pi), 0.044715
BLOCK = 2048
"""Columns per program of the Triton kernel: at least 16 bytes of each half per thread, with AMD's wide warps."""


def swiglu_reference(x: Tensor) -> Tensor:
    """The specification. x: [rows, 2 * width] -> [rows, width]."""
    gate, up = x.double().chunk(2, dim=-1)
    return ((gate / (1 + torch.exp(-gate))).to(x.dtype).double() * up).to(x.dtype)


def geglu_reference(x: Tensor) -> Tensor:
    """The specification of GeGLU. x: [rows, 2 * width] -> [rows, width]."""
    gate, up = x.double().chunk(2, dim=-1)
    return (F.gelu(gate, approximate="tanh").to(x.dtype).double() * up).to(x.dtype)


def geglu(x: Tensor) -> Tensor:
    """gelu(gate) * up on x: [rows, 2 * width], from operations whose bits do not depend on where they are."""
    gate, up = x.chunk(2, dim=-1)
    wide = gate.float()
    u = (wide * wide * wide).mul_(CUBE).add_(wide).mul_(-2 * ROOT)
    return u.exp_().add_(1).reciprocal_().mul_(wide).to(x.dtype).mul_(up)


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up on x: [rows, 2 * width], the same bits wherever an element lies.

    torch's fp32 silu differs in the last bit between its vector body and its scalar tail, and which of
    them an element meets depends on the batch. Its exp, and IEEE additions and divisions, do not differ.
    In bf16 both round to the same value.
    """
    gate, up = x.chunk(2, dim=-1)
    if x.dtype == torch.float32:
        return torch.exp(-gate).add_(1).reciprocal_().mul_(gate).mul_(up)
    return F.silu(gate).mul_(up)


@kernel(needs=("wide loads",))
def _swiglu(x, y, WIDTH: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    gate = tl.load(x + row * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    bend = -gate
    if GELU:
        bend = (gate * gate * gate * 0.044715 + gate) * -1.5957691216057308  # -2 sqrt(2 / pi)
    bent = tl.div_rn(gate, 1 + tl.exp(bend)).to(y.dtype.element_ty).to(tl.float32)
    tl.store(y + row * WIDTH + column, bent * up, mask=inside)


def swiglu_launch(x: Tensor, y: Tensor, gelu: bool = False) -> Launch:
    """One program per row and `BLOCK` columns."""
    rows, width = len(x), x.shape[1] // 2
    check("x", x, *FLOATS, shape=(rows, 2 * width))
    check_dense("x", x, 2)
    check("y", y, x.dtype, shape=(rows, width))
    arguments = {"x": x, "y": y, "WIDTH": width, "BLOCK": BLOCK, "GELU": gelu}
    return Launch(_swiglu, (rows, -(-width // BLOCK)), arguments)


def swiglu_triton(x: Tensor) -> Tensor:
    """silu(gate) * up on x: [rows, 2 * width], contiguous, in one launch. ValueError for anything else."""
    y = x.new_empty(len(x), x.shape[1] // 2)
    swiglu_launch(x, y).run()
    return y


def geglu_triton(x: Tensor) -> Tensor:
    """gelu(gate) * up on x: [rows, 2 * width], contiguous, in one launch. ValueError for anything else."""
    y = x.new_empty(len(x), x.shape[1] // 2)
    swiglu_launch(x, y, gelu=True).run()
    return y


def _build(gelu: bool = False) -> tuple[Launch]:
    x = torch.empty(8, 2 * 14336, dtype=torch.bfloat16, device="meta")
    return (swiglu_launch(x, x[:, :14336], gelu),)


def _case(name: str, rows: int, width: int) -> Case:
    return Case(name, lambda generator, dtype: (normal(generator, dtype, rows, 2 * width),))


OP = Op(
    name="swiglu",
    reference=swiglu_reference,
    implementations={"torch": swiglu, "triton": swiglu_triton},
    cases=(
        _case("one element", 1, 1),
        _case("one row", 1, 768),
        _case("odd width", 5, 97),
        _case("no rows", 0, 64),
        _case("many rows", 129, 512),
        _case("more than a program's columns", 2, 1500),
    ),
    builds=(Build("bf16, width 14336", _build),),
)

GEGLU_OP = Op(
    name="geglu",
    reference=geglu_reference,
    implementations={"torch": geglu, "triton": geglu_triton},
    cases=OP.cases,
    roundings=3,
    builds=(Build("bf16, width 14336, gelu", lambda: _build(gelu=True)),),
)
