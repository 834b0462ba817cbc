"""SwiGLU's elementwise half: y = silu(gate) * up, silu(z) = z / (1 + exp(-z)) (Shazeer, arXiv 2002.05202).

x: [rows, 2 * width], the gate's half first, as one fused linear yields it; y: [rows, width]. Three elements
moved per element made: limited by memory. silu is rounded to x's dtype before the product, as in Hugging Face.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.op import Case, Op, normal


def swiglu_reference(x: Tensor) -> Tensor:
    """The specification. x: [rows, 2 * width] -> [rows, width]."""
    gate, up = x.double().chunk(2, dim=-1)
    return ((gate / (1 + torch.exp(-gate))).to(x.dtype).double() * up).to(x.dtype)


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


def _case(name: str, rows: int, width: int) -> Case:
    return Case(name, lambda generator, dtype: (normal(generator, dtype, rows, 2 * width),))


OP = Op(
    name="swiglu",
    reference=swiglu_reference,
    implementations={"torch": swiglu},
    cases=(
        _case("one element", 1, 1),
        _case("one row", 1, 768),
        _case("odd width", 5, 97),
        _case("no rows", 0, 64),
        _case("many rows", 129, 512),
    ),
)
