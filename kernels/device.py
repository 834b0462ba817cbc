"""Triton's kernels as the record that a model runs through on a device, chosen and probed at start-up.

Beside `kernels.select`, which chooses among torch's paths on a CPU. `DeviceKernels` has the members of
`kernels.Kernels` that a model uses, so the model does not know where it runs; a plan of attention is an
`attention_triton.Work` in place of the CPU's batches.

Whether a row's bits depend on its company is not promised by a chip: `select_device` repeats on it what the
tests repeat in the interpreter. With the interpreter (`TRITON_INTERPRET=1`) the device is `cpu`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import attrs
import torch
from torch import Tensor

from kernels import attention_triton, choose_triton, linear_int4, linear_scaled, linear_triton, narrow_cache
from kernels._triton import PINNED, installed
from kernels.attention import Span
from kernels.attention_triton import Work, attend_triton, plan_work
from kernels.narrow_cache import Codes
from kernels.op import normal
from kernels.rms_norm import add_rms_norm_triton, rms_norm_triton
from kernels.rope import rope_angles, rope_store_triton
from kernels.swiglu import swiglu_triton

CAPABILITY_MIN = (8, 0)
"""Ampere: bf16 matrix instructions. The gate compiles for nothing older."""
TRITON_MIN = (3, 6)
"""The oldest version that the kernels were compiled with."""
DTYPES = (torch.bfloat16, torch.float32)
SEED = 20260726

Linear = Callable[[Tensor], Tensor]


def objection(device: str | torch.device = "cuda") -> str:
    """Why Triton's kernels cannot run on a device, in one line; empty if they can. Does not import Triton."""
    if not installed():
        return "Triton is not installed (pip install 'inferno-mesh[gpu]')"
    if triton_version() < TRITON_MIN:
        return f"Triton {version('triton')} is older than {TRITON_MIN[0]}.{TRITON_MIN[1]}"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        return f"there is no GPU {index}, only {torch.cuda.device_count()}"
    capability = torch.cuda.get_device_capability(index)
    if capability < CAPABILITY_MIN:
        name, (major, minor) = torch.cuda.get_device_name(index), CAPABILITY_MIN
        return f"{name} has compute capability {capability[0]}.{capability[1]}, below {major}.{minor}"
    return ""


def triton_version() -> tuple[int, ...]:
    """Major and minor version of the installed Triton; (0, 0) if it does not say."""
    try:
        parts = version("triton").split(".")[:2]
    except PackageNotFoundError:
        return 0, 0
    return tuple(int(part) for part in parts)


@attrs.frozen(eq=False)
class DeviceKernels:
    """The callables that a transformer runs through on a device, and what decides their bits."""

    device: torch.device
    dtype: torch.dtype
    weights: str
    """How linears hold their weights: a key of `PACKERS`."""
    exact: bool
    """Whether every probe of row independence passed on this device."""
    heads: int
    kv_heads: int
    width: int
    kv: torch.dtype | None = None
    """int8 or e4m3 if keys and values are held in codes (`kernels.narrow_cache`); None is `dtype`."""
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm_triton
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = add_rms_norm_triton
    rope_angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = rope_angles
    rope_store: Callable[..., Tensor] = rope_store_triton
    swiglu: Callable[[Tensor], Tensor] = swiglu_triton
    attend: Callable[..., Tensor] = attend_triton
    joins: bool = False

    def pack_linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Hold a weight [n, k] and bias [n] of `dtype` on the device, in this record's form."""
        on_device = None if bias is None else bias.to(self.device)
        return PACKERS[self.weights](weight.to(self.device), on_device)

    def hold(self, cache: Tensor) -> Tensor | Codes:
        """A layer's keys and values of `dtype`, as `attend` reads them."""
        return cache if self.kv is None else Codes(*narrow_cache.narrow(cache, self.kv))

    def plan_attention(self, spans: Sequence[Span]) -> Work:
        """Cut one step's rows into programs for `attend`; spans of one row stand first."""
        return plan_work(spans, self.heads // self.kv_heads, self.width, self.device)

    def facts(self) -> dict[str, object]:
        """What is declared about the arithmetic, for the numerical policy."""
        return {
            "kernels": "triton",
            "triton": ".".join(map(str, triton_version())),
            "chip": _chip(self.device),
            "dtype": str(self.dtype),
            "weights": self.weights,
            "kv": str(self.kv or self.dtype),
            "choose": (choose_triton.GROUP, choose_triton.BLOCK),
            "linear": (linear_triton.SLICE, linear_triton.DEPTH_BYTES, linear_triton.ROWS),
            "attention": (attention_triton.CHUNK, attention_triton.TILE_BYTES),
            **PINNED,
        }


def _chip(device: torch.device) -> str:
    if device.type == "cpu":
        return "interpreter"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} {major}.{minor}"


def _dense(weight: Tensor, bias: Tensor | None) -> Linear:
    return partial(linear_triton.linear_triton, weight=weight.contiguous(), bias=bias)


def _scaled(dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> Linear:
    narrow, scale = linear_scaled.quantise(weight, dtype)
    return partial(linear_scaled.linear_scaled_triton, weight=narrow, w_scale=scale, bias=bias)


def _int4(weight: Tensor, bias: Tensor | None) -> Linear:
    packed, scales = linear_int4.pack_int4(weight)
    return partial(linear_int4.linear_int4_triton, weight=packed, scales=scales, bias=bias)


PACKERS: dict[str, Callable[[Tensor, Tensor | None], Linear]] = {
    "dense": _dense,
    "int8": partial(_scaled, torch.int8),
    "fp8": partial(_scaled, torch.float8_e4m3fn),
    "int4": _int4,
}
"""How weights may be held; all but the first are quantised as they are packed."""


@attrs.frozen
class Trial:
    """How large a probe of linears is: enough rows for both forms of the kernel, k of several slices."""

    k: int
    n: int
    rows: int
    sizes: tuple[int, ...]


TRIALS = {
    "cuda": Trial(2560, 6144, 600, (1, 2, 8, 16, 63, 64, 65, 128, 129, 300, 512)),
    "cpu": Trial(1152, 132, 132, (1, 65)),
}
"""By type of device. 6,144 columns and 600 rows are more tiles than any chip has multiprocessors; the
interpreter, three orders slower, has four programs."""


def select_device(
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    width: int,
    block: int,
    weights: str = "dense",
    kv: torch.dtype | None = None,
) -> DeviceKernels:
    """Take Triton's kernels for a device and measure whether rows are independent there.

    Compiles the kernels that it runs: seconds, the first time on a machine. `exact` is false if a probe
    failed: answers are right then, but their last bits depend on the batch. kv: int8 or e4m3 for a cache of
    codes. ValueError for an unknown dtype or form of weights.
    """
    if dtype not in DTYPES or weights not in PACKERS:
        raise ValueError(f"`{dtype}` with `{weights}` weights is none of {DTYPES}, {tuple(PACKERS)}")
    chosen = DeviceKernels(device, dtype, weights, False, heads, kv_heads, width)
    if kv is not None:
        chosen = attrs.evolve(chosen, kv=kv, rope_store=narrow_cache.store, attend=narrow_cache.attend)
    exact = linears_are_exact(chosen) and attention_is_exact(chosen, block)
    return attrs.evolve(chosen, exact=exact)


def linears_are_exact(kernels: DeviceKernels) -> bool:
    """Whether a linear gives each row the same bits in any company, in the forms for few and many rows."""
    trial = TRIALS[kernels.device.type]
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.randn(trial.n, trial.k, generator=generator) / trial.k**0.5
    layer = kernels.pack_linear(weight.to(kernels.dtype))
    x = normal(generator, kernels.dtype, trial.rows, trial.k).to(kernels.device)
    return _rows_agree(layer, x, trial.sizes)


def _rows_agree(compute: Linear, x: Tensor, sizes: Iterable[int]) -> bool:
    whole = compute(x)
    return all(
        torch.equal(compute(x[first : first + size]), whole[first : first + size])
        for size in sizes
        for first in sorted({0, (len(x) - size) // 2, len(x) - size})
    )


def attention_is_exact(kernels: DeviceKernels, block: int) -> bool:
    """Whether decode alone, decode in company and prefill in chunks agree with a whole prefill, bit for bit."""
    chunk = attention_triton.CHUNK
    length = 2 * chunk + 9
    pages = tuple(reversed(range(-(-length // block))))
    generator = torch.Generator().manual_seed(SEED)
    shape = (len(pages), 2, kernels.kv_heads, block, kernels.width)
    cache = kernels.hold(normal(generator, kernels.dtype, *shape).to(kernels.device))
    q = normal(generator, kernels.dtype, length, kernels.heads, kernels.width).to(kernels.device)

    def rows(*cuts: tuple[int, int]) -> Tensor:
        work = kernels.plan_attention([Span(start, count, pages) for start, count in cuts])
        chosen = torch.cat([q[start : start + count] for start, count in cuts])
        return kernels.attend(chosen, cache, work, kernels.width**-0.5)

    whole = rows((0, length))
    singles = (0, chunk - 1, chunk, 2 * chunk - 1, 2 * chunk, length - 1)
    together = rows(*((position, 1) for position in singles))
    alone = torch.cat([rows((position, 1)) for position in singles])
    pieces = [(0, chunk + 1), (chunk - 1, 3), (chunk + 1, length - chunk - 1)]
    same = torch.equal(together, whole[list(singles)]) and torch.equal(alone, together)
    return same and all(torch.equal(rows(cut), whole[cut[0] : sum(cut)]) for cut in pieces)
