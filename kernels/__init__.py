"""Kernels beside their references. `select` chooses once, at start-up, what this machine will run.

The model is handed a frozen `Kernels`; there is no global switch. Adding a kernel is one file and one entry
in `OPS`: parity test, bench and docs walk over it.
"""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from kernels import (
    attention,
    attention_triton,
    choose_triton,
    likeliest,
    linear,
    linear_int4,
    linear_scaled,
    linear_triton,
    probe,
    rms_norm,
    rope,
    sample,
    swiglu,
)
from kernels.attention import Batch, Geometry, Span
from kernels.linear import Linear
from kernels.op import Op

OPS: tuple[Op, ...] = (
    rms_norm.OP,
    rms_norm.ADD_OP,
    rope.OP,
    swiglu.OP,
    swiglu.GEGLU_OP,
    linear_triton.OP,
    linear_scaled.OP,
    linear_int4.OP,
    attention_triton.OP,
    attention_triton.LOOK_OP,
    sample.OP,
    choose_triton.OP,
    likeliest.OP,
    likeliest.LOGPROBS_OP,
)

ROWS_MULTIPLES = (4, 8, 16)
"""Fillings of attention's rows to try, cheapest first. Four pass on AVX-512, AMX asks for eight in fp32."""
WIDTHS = {torch.bfloat16: (linear.SLICE,), torch.float32: (1 << 30, linear.SLICE)}
"""Lengths of a linear's slices to try, cheapest first: fp32 needs none where it was measured."""


@attrs.frozen(eq=False)
class Kernels:
    """The callables that a transformer runs through, and the facts about them that decide bits."""

    name: str
    dtype: torch.dtype
    exact: bool
    """Whether every probe of row independence passed on this machine."""
    slice_width: int
    geometry: Geometry
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    rope_angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rope_store: Callable[..., Tensor]
    swiglu: Callable[[Tensor], Tensor]
    attend: Callable[[Tensor, Tensor, Sequence[Batch], float], Tensor]
    gumbel: Callable[[Tensor, int], Tensor]

    def pack_linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Prepack a weight [n, k] and bias [n] in this record's slice width; dtype must be `dtype`."""
        return linear.pack_linear(weight, bias, self.slice_width)

    def plan_attention(self, spans: Sequence[Span]) -> tuple[Batch, ...]:
        """Cut one step's rows into batches for `attend`; spans of one row stand first."""
        return attention.plan_attention(spans, self.geometry)

    def facts(self) -> dict[str, object]:
        """What is declared about the arithmetic, for the numerical policy."""
        return {
            "kernels": self.name,
            "dtype": str(self.dtype),
            "slice_width": self.slice_width,
            "attention": attrs.asdict(self.geometry, filter=lambda field, _: field.name != "dtype"),
        }


def select(dtypes: Sequence[torch.dtype], heads: int, kv_heads: int, width: int, block: int) -> Kernels:
    """Choose torch's fast paths on this CPU by probing them; about a tenth of a second per dtype.

    `dtypes` is the order of preference: the first whose probes pass is taken. If none passes, the first that
    this CPU can run at all is taken and `exact` is false: answers are right, but their last bits depend on
    the batch. fp32 runs everywhere; without it, ValueError if no dtype can run.

    Triton's kernels are not chosen here, since none has run on a GPU yet (docs/explanation/kernels.md). Their
    place is beside this: the same record with their launchers, `attention_triton.plan_work` for the plan,
    and the same probes run on the device.
    """
    runnable = [dtype for dtype in dtypes if linear.supports(dtype)]
    if not runnable:
        raise ValueError(f"this CPU runs none of {', '.join(map(str, dtypes))}")
    first = _probed(runnable[0], Geometry(heads, kv_heads, width, block, runnable[0], 0))
    others = (_probed(dtype, Geometry(heads, kv_heads, width, block, dtype, 0)) for dtype in runnable[1:])
    return first if first.exact else next((kernels for kernels in others if kernels.exact), first)


def _probed(dtype: torch.dtype, geometry: Geometry) -> Kernels:
    slices = (w for w in WIDTHS[dtype] if probe.linear_is_exact(dtype, w))
    fillings = (attrs.evolve(geometry, rows_multiple=m) for m in ROWS_MULTIPLES)
    geometries = (g for g in fillings if probe.attention_is_exact(dtype, g))
    slice_width, filled = next(slices, 0), next(geometries, None)
    return Kernels(
        name="torch",
        dtype=dtype,
        exact=bool(slice_width) and filled is not None,
        slice_width=slice_width or linear.SLICE,
        geometry=filled or attrs.evolve(geometry, rows_multiple=ROWS_MULTIPLES[-1]),
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope_angles=rope.rope_angles,
        rope_store=rope.rope_store,
        swiglu=swiglu.swiglu,
        attend=attention.attend,
        gumbel=sample.gumbel,
    )
