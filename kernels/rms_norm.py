"""Root-mean-square norm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467).

x: [..., width]; weight: [width]; y like x. Reads and writes each element once: limited by memory on a GPU,
by the number of operator calls on a CPU at batch 1. The statistics are fp32 whatever the dtype, and the
normalised value is rounded to x's dtype before the weight, as Hugging Face does.
"""

import torch
from torch import Tensor

from kernels.op import Case, Op, normal


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


def _case(name: str, *shape: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
        return normal(generator, dtype, *shape), normal(generator, dtype, shape[-1]), 1e-5

    return Case(name, make, terms=shape[-1])


OP = Op(
    name="rms_norm",
    reference=rms_norm_reference,
    implementations={"torch": rms_norm},
    cases=(
        _case("one element", 1, 1),
        _case("one row", 1, 256),
        _case("odd width", 7, 97),
        _case("per head", 5, 3, 64),
        _case("no rows", 0, 64),
        _case("many rows", 257, 768),
    ),
)
