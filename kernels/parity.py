"""Every Triton kernel against its specification, on a device: the same cases as in the interpreter, and larger.

Arguments are made on the CPU, where the specification computes in double, and copied with their gaps to the
device. Whatever a kernel leaves behind is compared: its result, and each argument that either side wrote.
Fresh memory on the device is full of NaN meanwhile, so an element that was not written shows.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import compress
from multiprocessing import get_context

import attrs
import torch
from torch import Tensor

from kernels import (
    OPS,
    attention,
    attention_triton,
    choose,
    choose_triton,
    likeliest,
    linear_triton,
    rms_norm,
    rope,
    swiglu,
)
from kernels._triton import faults
from kernels.attention import Look
from kernels.choose import Control
from kernels.op import Arguments, Case, Op, normal, tolerance

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SEED = 11


@attrs.frozen
class Parity:
    """One case of one kernel in one dtype."""

    op: str
    case: str
    dtype: str
    error: float
    """Largest error as a fraction of the largest expected magnitude; infinite for NaN or another shape."""
    allowed: float
    fault: str = ""
    """What was raised, if the kernel could not be run."""

    @property
    def holds(self) -> bool:
        """Whether the kernel agrees."""
        return not self.fault and self.error <= self.allowed


def judge(op: Op, case: Case, dtype: torch.dtype, device: torch.device) -> Parity:
    """Run a case on a device and by its specification. A kernel's refusal is a fault, not an exception."""
    inputs = case.make(torch.Generator().manual_seed(SEED), dtype)
    there = moved(inputs, device)
    name, allowed = str(dtype).removeprefix("torch."), tolerance(op, case, dtype)
    try:
        with poisoned():
            got = op.implementations["triton"](*there)
            wrote = [each is not got for each in there if isinstance(each, Tensor)]  # beside its result
        after = [each.cpu() for each in there if isinstance(each, Tensor)]
        got = got.cpu()
    except faults() as error:
        return Parity(op.name, case.name, name, math.inf, allowed, f"{type(error).__name__}: {error}"[:300])
    expected = op.reference(*inputs)
    before = [each for each in inputs if isinstance(each, Tensor)]
    pairs = [(got, expected), *compress(zip(after, before, strict=True), wrote)]
    return Parity(op.name, case.name, name, max(distance(g, e) for g, e in pairs), allowed)


Job = tuple[int, int, torch.dtype]
"""Of `TABLE`: which record, which case, and the dtype."""


def jobs(*, production: bool = True) -> list[Job]:
    """Every case of every record in every dtype, and production shapes in bf16."""
    found = []
    for place, (_, some, dtypes) in enumerate(TABLE if production else TABLE[: -len(PRODUCTION)]):
        found += [(place, index, dtype) for index in range(len(some)) for dtype in dtypes]
    return found


def verdicts(chosen: Sequence[Job], device: torch.device, workers: int = 1) -> list[Parity]:
    """Judge cases, in as many processes: most of the time goes into compiling, one case on one core."""
    run = partial(_judged, device)
    if workers == 1:
        return [run(job) for job in chosen]
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (2,)) as pool:
        return list(pool.map(run, chosen, chunksize=4))


def _judged(device: torch.device, job: Job) -> Parity:
    place, index, dtype = job
    op, some, _ = TABLE[place]
    return judge(op, some[index], dtype, device)


def distance(got: Tensor, expected: Tensor) -> float:
    """Largest error as a fraction of the largest expected magnitude. Equal NaN and infinities are equal."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return math.inf
    wide, there = expected.double(), got.double()
    differing = ~((wide == there) | (wide.isnan() & there.isnan()))
    if not differing.any():
        return 0.0
    if not (wide.isfinite() & there.isfinite())[differing].all():
        return math.inf
    largest = wide[wide.isfinite()].abs().max().clamp(min=1e-30)
    return float((there - wide).abs()[differing].max() / largest)


def moved(value: object, device: torch.device) -> object:
    """A value with every tensor in it copied to a device, strides and gaps included."""
    match value:
        case Tensor():
            out = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
            return out.copy_(value)
        case tuple():
            return tuple(moved(each, device) for each in value)
        case Look() | choose.Controls():
            fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
            return type(value)(**{name: moved(each, device) for name, each in fields.items()})
    return value


@contextmanager
def poisoned() -> Iterator[None]:
    """Let fresh memory be full of NaN."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _linear(rows: int, k: int, n: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Arguments:
        weight = (torch.randn(n, k, generator=generator) / k**0.5).to(dtype)
        return normal(generator, dtype, rows, k), weight

    return Case(f"{rows} rows, {k} x {n}", make, terms=k)


def _rope(rows: int, heads: int, kv_heads: int, width: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Arguments:
        positions = torch.arange(1000, 1000 + rows)
        frequencies = 500_000.0 ** -(torch.arange(0, width, 2) / width)
        cache = torch.zeros(-(-rows // 64), 2, kv_heads, 64, width, dtype=dtype)
        qkv, places = normal(generator, dtype, rows, heads + 2 * kv_heads, width), torch.arange(rows)
        return qkv, *rope.rope_angles(positions, frequencies), cache, places // 64, places % 64

    return Case(f"{rows} rows, {heads} + 2 * {kv_heads} heads of {width}", make)


def _rows(name: str, *shape: int, weighted: bool = False) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Arguments:
        x = normal(generator, dtype, *shape)
        return (x, normal(generator, dtype, shape[-1]), 1e-5) if weighted else (x,)

    return Case(name, make, terms=shape[-1] if weighted else 1)


def _logits(rows: int, vocabulary: int, count: int) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Arguments:
        return normal(generator, dtype, rows, vocabulary), count

    return Case(f"{rows} rows of {vocabulary}", make)


_LONG = ((3000, 1), (900, 1))
_WISHES = (Control(0, 0.8, top_p=0.95), Control(0, 1.0, top_k=50), Control(0), Control(0, 0.0))

PRODUCTION: tuple[tuple[Op, Sequence[Case]], ...] = (
    (
        linear_triton.OP,
        [_linear(rows, 4096, 6144) for rows in (1, 64, 65, 600)] + [_linear(16, 14_336, 4096)],
    ),
    (
        attention_triton.OP,
        [
            attention.case("8B decode", 32, 8, 128, 64, *_LONG),
            attention.case("8B prefill beside decode", 32, 8, 128, 64, (1500, 1), (700, 600)),
            attention.case("1B decode", 32, 8, 64, 64, *_LONG),
            attention.case("1B prefill", 32, 8, 64, 64, (0, 1100)),
        ],
    ),
    (rms_norm.OP, [_rows("300 rows of 4096", 300, 4096, weighted=True)]),
    (swiglu.OP, [_rows("300 rows of 14336", 300, 2 * 14_336)]),
    (rope.OP, [_rope(300, 32, 8, 128), _rope(300, 32, 8, 64)]),
    (choose_triton.OP, [choose.case("4 rows of 128256", 128_256, *_WISHES)]),
    (likeliest.OP, [_logits(4, 128_256, 20)]),
)

TABLE = (
    *((op, op.cases, DTYPES) for op in OPS if "triton" in op.implementations),
    *((op, some, DTYPES[-1:]) for op, some in PRODUCTION),
)
"""Records, cases and dtypes."""
