"""`linear_scaled` in int8 through torch's CPU operators, for machines without the compiled kernels.

An int8 product of 127^2 k may not fit the 16 bits that some instruction sets add up in (vpmaddubsw saturates),
and which form of oneDNN's product is fast differs from chip to chip: signed activations with AMX, unsigned ones
with a zero point of 128 with VNNI. So every form is tried at load against int64 with the largest values there
are, and the fastest of those that are exact is taken. The scales are multiplied on afterwards, here: a
library's epilogue rounds in an order of its own.
"""

import time
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from kernels.linear_scaled import quantise

Product = Callable[[Tensor, Tensor], Tensor]
"""(q [rows, k] int8, what its `Form` packed) -> the integer sums, [rows, n] fp32."""


@attrs.frozen
class Form:
    """A way of multiplying bytes."""

    name: str
    pack: Callable[[Tensor], Tensor]
    """[n, k] int8 -> what `product` takes."""
    product: Product


def _onednn(q: Tensor, packed: Tensor, zero_point: int) -> Tensor:
    """In the packed weight's own form: a scale of one for each output."""
    n = packed.shape[1]
    scale, zeros = torch.ones(n), torch.zeros(n, dtype=torch.int64)
    output = (1.0, 0, torch.float32, "none", [], "")
    return torch.ops.onednn.qlinear_pointwise(q, 1.0, zero_point, packed, scale, zeros, None, *output)


def _signed(q: Tensor, packed: Tensor) -> Tensor:
    return _onednn(q, packed, 0)


def _unsigned(q: Tensor, packed: Tensor) -> Tensor:
    return _onednn((q.to(torch.int16) + 128).to(torch.uint8), packed, 128)


def _prepack(weight: Tensor) -> Tensor:
    return torch.ops.onednn.qlinear_prepack(weight, None)


def _plain(q: Tensor, weight: Tensor) -> Tensor:
    """fp32 products of slices so short that their sums are exact: 1,024 * 127^2 < 2^24."""
    total = torch.zeros(len(q), len(weight), dtype=torch.int32)
    for left, right in zip(q.split(1024, 1), weight.split(1024, 1), strict=True):
        total += (left.float() @ right.float().T).to(torch.int32)
    return total.float()


FORMS = (
    Form("signed", _prepack, _signed),
    Form("unsigned", _prepack, _unsigned),
    Form("plain", lambda weight: weight, _plain),
)
"""`plain` is right everywhere and slow."""


@attrs.frozen(eq=False)
class Int8Linear:
    """Call it with x: [rows, k]; the bits of `linear_scaled`'s specification before its last rounding in fp32."""

    form: Form
    packed: Tensor
    scale: Tensor
    """[n] fp32"""
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, k] float -> [rows, n], x's dtype."""
        if not len(x):
            return x.new_empty(0, len(self.scale))
        q, scale = quantise(x, torch.int8)
        y = self.form.product(q, self.packed).mul_(scale[:, None]).mul_(self.scale)
        return (y if self.bias is None else y.add_(self.bias.float())).to(x.dtype)


def pack_int8(weight: Tensor, bias: Tensor | None, form: Form) -> Int8Linear:
    """Quantise weight: [n, k] float for each output and pack it."""
    narrow, scale = quantise(weight, torch.int8)
    return Int8Linear(form, form.pack(narrow), scale, bias)


def is_exact(form: Form, k: int = 2100, n: int = 18) -> bool:
    """Whether the form's sums are those of int64 on this machine, in batches of one to 17 rows."""
    generator = torch.Generator().manual_seed(20260726)
    q = torch.randint(-127, 128, (17, k), dtype=torch.int8, generator=generator)
    weight = torch.randint(-127, 128, (n, k), dtype=torch.int8, generator=generator)
    q[0], q[1], weight[0], weight[1] = 127, -127, 127, -127
    expected = (q.long() @ weight.long().T).float()
    packed = form.pack(weight)
    try:
        return all(torch.equal(form.product(q[:rows], packed), expected[:rows]) for rows in (1, 2, 17))
    except RuntimeError:  # no such product on this CPU
        return False


def fastest() -> Form:
    """The fastest exact form here for a single row; a tenth of a second."""
    exact = [form for form in FORMS if is_exact(form)]
    return min(exact, key=_seconds)


def _seconds(form: Form, k: int = 512, n: int = 512) -> float:
    packed, q = form.pack(torch.ones(n, k, dtype=torch.int8)), torch.ones(1, k, dtype=torch.int8)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        form.product(q, packed)
        times.append(time.perf_counter() - began)
    return min(times)
