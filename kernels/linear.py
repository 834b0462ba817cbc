"""A linear layer whose rows do not see each other: y = x @ weight.T + bias, prepacked once.

x: [rows, k], weight: [n, k], bias: [n] or none; y: [rows, n] in x's dtype. Reads the weights once per call:
limited by memory up to a dozen rows, by arithmetic beyond.

oneDNN chooses its blocking by the shape of the batch. Measured (torch 2.13, oneDNN 3.12): with AMX a bf16
product over k > 1,024 changes bits from some batch size on; with AVX-512 and bf16 or fp32 a *lone* row
differs from the same row in company; `F.linear` differs almost anywhere. So k is cut into slices that are
summed in fp32 from left to right, and a lone row is computed as two. That is an observation about a
library, not a promise by it: `kernels.probe` repeats it at load on the machine at hand.
"""

import attrs
import torch
from torch import Tensor

from kernels.op import Case, Op, normal

SLICE = 1024
"""Longest k in one product; the longest that stayed invariant on a Sapphire Rapids with AMX."""

_pack = torch.ops.mkldnn._reorder_linear_weight.default
_linear = torch.ops.mkldnn._linear_pointwise.default


def supports(dtype: torch.dtype) -> bool:
    """Whether this CPU can run prepacked linears in `dtype`: bf16 needs AVX-512 or AVX-NE-CONVERT."""
    return dtype is torch.float32 or (
        dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The specification: products and sums in double, one rounding."""
    wide = x.double() @ weight.double().T
    return (wide if bias is None else wide + bias.double()).to(x.dtype)


@attrs.frozen(eq=False)
class Linear:
    """Prepacked weights, sliced along k. Call it with x: [rows, k]; rows may be zero."""

    parts: tuple[Tensor, ...]
    """One packed [n, width] each; opaque to everything but oneDNN."""
    bias: Tensor | None
    width: int
    outputs: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, k], the dtype of the weights -> [rows, n]."""
        rows = len(x)
        if rows == 1:
            return self(torch.cat((x, x)))[:1]
        if rows == 0:
            return x.new_empty(0, self.outputs)
        if len(self.parts) == 1:
            return _linear(x, self.parts[0], self.bias, "none", [], "")
        return self._sliced(x)

    def _sliced(self, x: Tensor) -> Tensor:
        pieces = zip(x.split(self.width, dim=1), self.parts, strict=True)
        total: Tensor | None = None
        for piece, part in pieces:
            bias = self.bias if total is None else None
            partial = _linear(piece, part, bias, "none", [], "")
            total = partial.float() if total is None else total.add_(partial)
        assert total is not None
        return total.to(x.dtype)


def pack_linear(weight: Tensor, bias: Tensor | None = None, width: int = SLICE) -> Linear:
    """Prepack weight: [n, k] (bf16 or fp32) for `Linear`; copies it, so the original can go."""
    parts = tuple(_pack(part.contiguous(), None) for part in weight.split(width, dim=1))
    return Linear(parts, bias, width, len(weight))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Pack and apply, for tests."""
    return pack_linear(weight, bias)(x)


def _case(name: str, rows: int, k: int, n: int, biased: bool = False) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        weight = (torch.randn(n, k, generator=generator) / k**0.5).to(dtype)
        return normal(generator, dtype, rows, k), weight, normal(generator, dtype, n) if biased else None

    return Case(name, make, terms=k)


OP = Op(
    name="linear",
    reference=linear_reference,
    implementations={"torch": linear},
    cases=(
        _case("one element", 1, 1, 1),
        _case("one row", 1, 256, 512),
        _case("two rows", 2, 256, 512, biased=True),
        _case("odd sizes", 7, 97, 33, biased=True),
        _case("no rows", 0, 64, 32),
        _case("sliced", 17, 2500, 130, biased=True),
        _case("many rows", 200, 1100, 300, biased=True),
    ),
    roundings=4,
)
