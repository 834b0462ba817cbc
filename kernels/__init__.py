"""Kernels beside their references. `select` chooses once, at start-up, what this machine will run.

The model is handed a frozen `Kernels`; there is no global switch. Adding a kernel is one file and one entry
in `OPS`: parity test, bench and docs walk over it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor

from kernels import (
    attention,
    attention_look,
    attention_triton,
    choose_triton,
    likeliest,
    linear,
    linear_int4,
    linear_int8,
    linear_scaled,
    linear_triton,
    narrow_cache,
    native_ops,
    probe,
    rms_norm,
    rope,
    sample,
    swiglu,
)
from kernels.attention import EVERYTHING, Geometry, Look
from kernels.attention import Span as Span
from kernels.native import Native
from kernels.op import Op

OPS: tuple[Op, ...] = (
    rms_norm.OP,
    rms_norm.ADD_OP,
    rope.OP,
    rope.NORM_OP,
    narrow_cache.STORE_OP,
    swiglu.OP,
    swiglu.GEGLU_OP,
    linear_triton.OP,
    linear_scaled.OP,
    linear_int4.OP,
    attention_triton.OP,
    attention_look.OP,
    narrow_cache.OP,
    sample.OP,
    choose_triton.OP,
    likeliest.OP,
    likeliest.LOGPROBS_OP,
)

ROWS_MULTIPLES = (4, 8, 16)
"""Fillings of attention's rows to try, cheapest first. Four pass on AVX-512, AMX asks for eight in fp32."""
WIDTHS = {torch.bfloat16: (linear.SLICE,), torch.float32: (1 << 30, linear.SLICE)}
"""Lengths of a linear's slices to try, cheapest first: fp32 needs none where it was measured."""


WEIGHTS = ("dense", "int8")
"""How linears may hold their weights: in the working dtype, or quantised as they are packed."""

Linear = Callable[[Tensor], Tensor]
"""x: [rows, k] -> [rows, n], in x's dtype."""


@attrs.frozen(eq=False)
class Kernels:
    """The callables that a transformer runs through, and the facts about them that decide bits."""

    name: str
    dtype: torch.dtype
    weights: str
    """One of `WEIGHTS`."""
    exact: bool
    """Whether every probe of row independence passed on this machine."""
    declared: dict[str, object]
    """What else decides bits, for the numerical policy."""
    pack_linear: Callable[..., Linear]
    """(weight [n, k], bias [n] or None), both of `dtype` -> a linear."""
    joins: bool
    """Whether `pack_linear` takes a list of weights too, which lie one below the other."""
    plan_attention: Callable[..., object]
    """(spans, look=EVERYTHING): cut one step's rows for `attend`, for all layers that look alike; spans of one
    row stand first."""
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    rope_store: Callable[..., Tensor]
    swiglu: Callable[[Tensor], Tensor]
    attend: Callable[..., Tensor]
    restore_linear: Callable[..., Linear] | None = None
    """(parts, bias, k, n) -> the linear that was packed before; none if packing is not worth keeping."""
    rope_angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = rope.rope_angles
    gumbel: Callable[[Tensor, int], Tensor] = sample.gumbel

    def facts(self) -> dict[str, object]:
        """What is declared about the arithmetic, for the numerical policy."""
        return {
            "kernels": self.name,
            "dtype": str(self.dtype),
            "weights": self.weights,
            **self.declared,
        }


def select(
    dtypes: Sequence[torch.dtype],
    heads: int,
    kv_heads: int,
    width: int,
    block: int,
    weights: str = "dense",
    library: Native | None = None,
    windows: Sequence[int] = (0,),
) -> Kernels:
    """Choose the fast paths on this CPU by probing them; about a tenth of a second per dtype.

    `dtypes` is the order of preference: the first whose probes pass is taken. If none passes, the first that
    this CPU can run at all is taken and `exact` is false: answers are right, but their last bits depend on
    the batch. fp32 runs everywhere; without it, ValueError if no dtype can run.

    weights: one of `WEIGHTS`. library: the compiled kernels (`native.load`), taken for bf16 if they pass the
    probes and fit the shape; torch's operators otherwise. windows: how far the model's layers look back, for the
    probes.

    Triton's kernels are not chosen here but by `kernels.device`: they run on a GPU.
    """
    runnable = [dtype for dtype in dtypes if linear.supports(dtype)]
    if not runnable:
        raise ValueError(f"this CPU runs none of {', '.join(map(str, dtypes))}")
    geometry = Geometry(heads, kv_heads, width, block, runnable[0], 0)
    if library is not None and runnable[0] is torch.bfloat16 and native_ops.fits(width, block):
        compiled = _compiled(library, geometry, weights, windows)
        if compiled.exact:
            return compiled
    probed = (_probed(attrs.evolve(geometry, dtype=dtype), weights, windows) for dtype in runnable)
    first = next(probed)
    return first if first.exact else next((kernels for kernels in probed if kernels.exact), first)


def looking(chosen: Kernels, windows: Sequence[int]) -> Kernels:
    """The same kernels for a model whose layers look back through several windows.

    A step is planned once for each window, and `attend` takes a layer's look as its last argument.
    """
    looks = {window: Look(window) if window else EVERYTHING for window in windows}

    def plan(spans: Sequence[Span]) -> dict[int, object]:
        return {window: chosen.plan_attention(spans, look) for window, look in looks.items()}

    def attend(q: Tensor, cache: Tensor, plans: dict[int, object], scale: float, look: Look) -> Tensor:
        return chosen.attend(q, cache, plans[look.window], scale)

    return attrs.evolve(chosen, plan_attention=plan, attend=attend)


def _compiled(library: Native, geometry: Geometry, weights: str, windows: Sequence[int]) -> Kernels:
    """The record of the compiled kernels: bf16, with weights in bf16 or int8."""
    pack = native_ops.pack_int8 if weights == "int8" else native_ops.pack_bf16
    chosen = Kernels(
        name="compiled",
        dtype=torch.bfloat16,
        weights=weights,
        exact=False,
        declared={"library": library.digest, "block": geometry.block},
        pack_linear=lambda weight, bias=None: pack(
            library, [weight] if isinstance(weight, Tensor) else weight, bias
        ),
        joins=True,
        plan_attention=partial(native_ops.plan_attention, geometry.group),
        rms_norm=partial(native_ops.rms_norm, library),
        add_rms_norm=partial(native_ops.add_rms_norm, library),
        rope_store=partial(native_ops.rope_store, library),
        swiglu=partial(native_ops.swiglu, library),
        attend=partial(native_ops.attend, library),
        restore_linear=partial(native_ops.int8_of, library) if weights == "int8" else None,
    )
    linears = probe.packed_is_exact(chosen.pack_linear, chosen.dtype)
    plans = [partial(chosen.plan_attention, look=look) for look in probe.looks_of(windows, geometry.block)]
    attends = all(probe.attends_exactly(chosen.attend, plan, geometry) for plan in plans)
    return attrs.evolve(chosen, exact=linears and attends)


def _probed(geometry: Geometry, weights: str, windows: Sequence[int]) -> Kernels:
    """The record of torch's operators in the geometry's dtype."""
    dtype = geometry.dtype
    slice_width = next((w for w in WIDTHS[dtype] if probe.linear_is_exact(dtype, w)), 0)
    fillings = (attrs.evolve(geometry, rows_multiple=m) for m in ROWS_MULTIPLES)
    looks = probe.looks_of(windows, geometry.block)
    filled = next(
        (g for g in fillings if all(probe.attention_is_exact(dtype, g, look) for look in looks)), None
    )
    exact = bool(slice_width) and filled is not None
    cut, plan = (
        slice_width or linear.SLICE,
        filled or attrs.evolve(geometry, rows_multiple=ROWS_MULTIPLES[-1]),
    )
    pack: Callable[..., Linear] = lambda weight, bias=None: linear.pack_linear(weight, bias, cut)  # noqa: E731
    if weights == "int8":
        form = linear_int8.fastest()
        pack = lambda weight, bias=None: linear_int8.pack_int8(weight, bias, form)  # noqa: E731
    declared = attrs.asdict(plan, filter=lambda field, _: field.name != "dtype")
    return Kernels(
        name="torch",
        dtype=dtype,
        weights=weights,
        exact=exact,
        declared={"slice_width": cut, "attention": declared},
        pack_linear=pack,
        joins=False,
        plan_attention=lambda spans, look=EVERYTHING: attention.plan_attention(spans, plan, look),
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope_store=rope.rope_store,
        swiglu=swiglu.swiglu,
        attend=attention.attend,
    )
