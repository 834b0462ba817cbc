"""Triton, asked for late: a kernel is a plain function here, and becomes Triton's when it is first launched.

Importing Triton takes a third of a second, a CPU engine never needs it, and it may not be installed. So no
module of ours imports it at the top; `@kernel` keeps the function and `Kernel.made` gives it the language as
`tl`, in a copy of its globals. (A copy, because Triton's interpreter writes into them.)

What decides bits is pinned here for all kernels. They use no `@autotune` (a table by shape does not depend on
what else the chip was doing), no inline assembly and no `tl.extra` (neither runs in the interpreter).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from types import FunctionType

import attrs
import torch
from torch import Tensor

PINNED = {"enable_fp_fusion": False}
"""A product and a sum round twice, as on a CPU, whatever the compiler's version would fuse. Where one
rounding is meant, a kernel says `tl.fma`."""


class TritonMissing(ImportError):
    """Triton is not installed, and one of its kernels was to be made."""

    def __init__(self) -> None:
        super().__init__("Triton is not installed\nhint: pip install 'inferno-mesh[gpu]'")


def installed() -> bool:
    """Whether Triton can be imported; does not import it."""
    return find_spec("triton") is not None


def faults() -> tuple[type[Exception], ...]:
    """What may go wrong when a kernel is compiled or run: torch's and Python's errors, and Triton's own."""
    common = (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    )
    if not installed():
        return (*common, ImportError)
    from triton.errors import TritonError

    return (*common, ImportError, TritonError)


class Kernel:
    """A function in Triton's language that is compiled, or interpreted, from its first launch on."""

    def __init__(self, function: FunctionType, lengths: tuple[str, ...], needs: tuple[str, ...]) -> None:
        self.function = function
        self.name = function.__name__.strip("_")
        self.lengths = lengths
        """Integer parameters that change from step to step: no variant is compiled for special values."""
        self.needs = needs
        """What its machine code must contain: keys of `kernels.gate.NEEDS`."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, in order."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount]

    def of(self, arguments: dict[str, object]) -> dict[str, object]:
        """Those of the arguments that it takes, in its order."""
        return {name: arguments[name] for name in self.parameters}

    @cached_property
    def made(self):
        """Triton's own object. `TRITON_INTERPRET=1` decides when Triton is imported. `TritonMissing`."""
        if not installed():
            raise TritonMissing
        import triton
        import triton.language

        scope = {**self.function.__globals__, "tl": triton.language}
        called = {name: scope[name] for name in self.function.__code__.co_names if name in scope}
        scope |= {name: other.made for name, other in called.items() if isinstance(other, Kernel)}
        copy = FunctionType(self.function.__code__, scope, self.function.__name__)
        copy.__annotations__ = self.function.__annotations__
        return triton.jit(copy, do_not_specialize=self.lengths)


def kernel(*lengths: str, needs: tuple[str, ...] = ()) -> Callable[[FunctionType], Kernel]:
    """Declare a Triton kernel. lengths: parameters not to specialise on; needs: see `Kernel.needs`."""
    return lambda function: Kernel(function, lengths, needs)


@attrs.frozen(eq=False)
class Launch:
    """A kernel with its arguments, decided but not run: the gate compiles what the launchers launch."""

    kernel: Kernel
    grid: tuple[int, ...]
    arguments: dict[str, object]
    """By parameter, in the kernel's order; those in capitals are compiled in."""
    warps: int = 4
    stages: int = 1
    """Tiles being read and used at once, in kernels that loop over tiles."""
    tile_bytes: int = 0
    """What one such tile takes: the gate sees whether the compiler keeps `stages - 1` of them in flight."""
    waves: int = 0
    """Warps on AMD, where one has 64 threads, if not as many."""

    def run(self) -> None:
        """Launch on the current device; an empty grid is nothing to do."""
        if 0 not in self.grid:
            options = self.options(amd=torch.version.hip is not None)
            self.kernel.made[self.grid](**self.arguments, **options)

    def options(self, *, amd: bool) -> dict[str, object]:
        """What the compiler is told."""
        warps = self.waves or self.warps if amd else self.warps
        return {"num_warps": warps, "num_stages": self.stages, **PINNED}


def power_of_two(length: int) -> int:
    """The least power of two that is at least `length` (Triton's blocks have no other sizes)."""
    return 1 << max(0, length - 1).bit_length()


def check(name: str, tensor: Tensor, *dtypes: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError, the caller's mistake, unless a tensor's dtype and shape fit; None fits any length."""
    fits = tensor.dim() == len(shape) and all(
        want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
    )
    if not fits or tensor.dtype not in dtypes:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        kinds = " or ".join(map(str, dtypes))
        got = f"{list(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"`{name}` is {got}, but must be [{sizes}] of {kinds}")


def check_dense(name: str, tensor: Tensor, dims: int) -> None:
    """Raise ValueError unless the last `dims` dimensions lie in memory without gaps."""
    span = 1
    for size, stride in zip(tensor.shape[-dims:][::-1], tensor.stride()[-dims:][::-1], strict=True):
        if size > 1 and stride != span:
            raise ValueError(f"`{name}` has strides {tensor.stride()}, so its last {dims} dims are not dense")
        span *= max(1, size)


FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""What kernels read and write; inside they compute in fp32."""
