"""What a kernel file ends with: its name, its specification, its fast paths, and how to test them.

Invariant: `reference` is plain torch in fp32 (or wider) and *is* the specification; each entry of
`implementations` must agree with it on every case within `tolerance`.
"""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from kernels._triton import Launch

Arguments = tuple[object, ...]


@attrs.frozen
class Case:
    """One set of shapes for an op. `make(generator, dtype)` builds the arguments, seeded."""

    name: str
    make: Callable[[torch.Generator, torch.dtype], Arguments]
    terms: int = 1
    """How many products or addends one output element sums; the tolerance grows with its root."""


@attrs.frozen
class Build:
    """Production shapes of an op's Triton kernels, on meta tensors: what the ahead-of-time gate compiles."""

    name: str
    launches: Callable[[], tuple[Launch, ...]]
    chips: tuple[str, ...] = ()
    """Names of the gate's chips that have this form; all if empty (e4m3 is not on an A100 or MI300X)."""


@attrs.frozen
class Op:
    """A kernel's record: parity tests, the bench and the docs walk over `kernels.OPS`."""

    name: str
    reference: Callable[..., Tensor]
    implementations: dict[str, Callable[..., Tensor]]
    cases: tuple[Case, ...]
    roundings: int = 2
    """How many times a value is rounded to the working dtype on its way to the output."""
    builds: tuple[Build, ...] = ()
    exact: bool = False
    """Whether results are whole numbers, ids, that must be equal: their tolerance is none."""


def tolerance(op: Op, case: Case, dtype: torch.dtype) -> float:
    """Largest error allowed, as a fraction of the output's largest magnitude.

    Each rounding to `dtype` adds at most half an epsilon of the largest value. Sums are carried in fp32:
    `terms` of them add at most that many fp32 epsilons (Higham, Accuracy and Stability, section 4.2).
    """
    if op.exact:
        return 0.0
    return op.roundings * torch.finfo(dtype).eps / 2 + case.terms * torch.finfo(torch.float32).eps


def normal(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Seeded normal values, `shape`, with a heavy tail: what activations look like."""
    values = torch.randn(*shape, generator=generator)
    return (values * torch.exp(torch.randn(*shape, generator=generator))).to(dtype)
