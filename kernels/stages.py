"""The stages of `python -m kernels.bench`: ceilings, parity, independence of rows, then times beside peers.

Correctness comes first: a kernel that disagrees with its specification is named, and what is timed after it
is known to be worthless. Ceilings are probed in the same run, on random data (zeros multiply faster), and
every time is held against the floor of `kernels.cost` by them. Peers are torch's own: SDPA, FlexAttention and
cuBLAS; the invariance that ours keep they do not promise.
"""

import os
from collections.abc import Callable
from functools import partial

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import cost
from kernels._triton import installed
from kernels.attention import Span
from kernels.attention_triton import attend_triton, plan_work
from kernels.choose import Control, Controls
from kernels.cost import Bytes, Row, Shape
from kernels.device import (
    TRIALS,
    DeviceKernels,
    attention_is_exact,
    linears_are_exact,
    objection,
    triton_version,
)
from kernels.likeliest import sample_triton
from kernels.parity import TABLE, Job, Parity, jobs, verdicts
from kernels.record import Ceilings, Figure, Record
from kernels.rms_norm import add_rms_norm_triton
from kernels.rope import rope_angles, rope_store_triton
from kernels.swiglu import swiglu_triton

PAGE = 64
PARITY_WORKERS = 8
"""Processes that compile and judge cases; each has a context on the device, of half a gigabyte."""


@attrs.frozen
class Sizes:
    """How large the shapes are: a real run's, or a dry one's."""

    copy_bytes: int
    square: int
    """Side of the square product."""
    shape: Shape
    decode: tuple[tuple[int, int], ...]
    """(sequences, context)"""
    mixed: tuple[int, int, int]
    """One context, beside how many of which."""
    prefill: tuple[int, ...]
    skinny: tuple[int, ...]
    narrow: tuple[int, ...]
    """Rows of products with narrow weights."""
    rows: int
    batches: tuple[int, ...]
    vocabulary: int
    parity_every: int
    """Of the parity cases, one in so many."""


REAL = Sizes(
    copy_bytes=4 << 30,
    square=8192,
    shape=cost.SHAPES[1],
    decode=((1, 131_072), (8, 32_768), (64, 8192), (256, 2048)),
    mixed=(131_072, 31, 4096),
    prefill=(2048, 8192, 16_384),
    skinny=(1, 16, 64, 512),
    narrow=(1, 64),
    rows=8192,
    batches=(1, 64, 256),
    vocabulary=128_256,
    parity_every=1,
)
TINY = Sizes(
    copy_bytes=1 << 16,
    square=160,
    shape=Shape("tiny", 2, 128, 4, 2, 32, 256, 300),
    decode=((1, 600), (2, 100)),
    mixed=(600, 2, 70),
    prefill=(70,),
    skinny=(1, 65),
    narrow=(1,),
    rows=5,
    batches=(1, 3),
    vocabulary=1100,
    parity_every=7,
)


def sizes_of(record: Record) -> Sizes:
    """The sizes of a run."""
    return TINY if record.dry else REAL


def ceilings_of(record: Record) -> Ceilings:
    """What the device reached in this run; before that was probed, its data sheet's H200."""
    copy, product = record.find("copy", "torch"), record.find("square product", "torch")
    chip = next(chip for chip in cost.CHIPS if chip.name == "H200")
    return Ceilings(
        copy.bytes_per_s if copy else chip.bytes_per_s, product.flops if product else chip.flops[2]
    )


def machine(record: Record) -> None:
    """Note where this runs."""
    record.facts |= {"torch": torch.__version__, "triton": ".".join(map(str, triton_version()))}
    record.facts |= {"device": str(record.device), "cuda": torch.version.cuda or torch.version.hip}
    if record.device.type == "cuda":
        properties = torch.cuda.get_device_properties(record.device)
        record.facts |= {"chip": properties.name, "multiprocessors": properties.multi_processor_count}
        record.facts |= {"memory": properties.total_memory, "driver": _driver()}


def _driver() -> str:
    """The kernel driver's version, as it says it; empty where it does not."""
    try:
        with open("/proc/driver/nvidia/version") as file:
            return file.readline().strip()
    except OSError:
        return ""


def ceilings(record: Record) -> None:
    """A large copy, and a square product in cuBLAS on random data."""
    sizes, device = sizes_of(record), record.device
    source = torch.empty(sizes.copy_bytes // 2, dtype=torch.bfloat16, device=device).normal_()
    target = torch.empty_like(source)
    record.time("ceilings", "copy", lambda: target.copy_(source), 2 * sizes.copy_bytes, by="torch")
    n = sizes.square
    x, y = _random(record, n, n), _random(record, n, n)
    record.time("ceilings", "square product", lambda: x @ y, 6 * n * n, 2 * n**3, by="torch")
    found = ceilings_of(record)
    record.say(f"  copy {found.bytes_per_s / 1e12:.2f} TB/s, product {found.flops / 1e12:.0f} TFLOP/s")


def parity(record: Record) -> None:
    """Every record's every case, and production shapes, against the specification in double."""
    chosen = jobs()
    if record.dry:
        chosen = [job for job in jobs(production=False) if job[2] is torch.float32 and not _misread(job)]
        chosen = chosen[:: sizes_of(record).parity_every]
    workers = min(PARITY_WORKERS, os.cpu_count() or 1) if record.device.type == "cuda" else 1
    found = verdicts(chosen, record.device, workers)
    wrong = [verdict for verdict in found if not verdict.holds]
    record.facts["parity"] = {"cases": len(found), "wrong": [attrs.asdict(v) for v in wrong]}
    record.promise("kernels agree with fp64", "wrong cases", 0, len(wrong), least=False, certain=True)
    for verdict in wrong:
        record.say(f"  WRONG: {_parity_line(verdict)}")
    record.say(f"  {len(found) - len(wrong)} of {len(found)} cases agree")


def _misread(job: Job) -> bool:
    """Whether a case writes e4m3, which Triton's interpreter rounds wrongly."""
    return "e4m3" in TABLE[job[0]][1][job[1]].name


def _parity_line(verdict: Parity) -> str:
    where = f"{verdict.op}, {verdict.case}, {verdict.dtype}"
    return f"{where}: {verdict.fault or f'{verdict.error:.2e} over {verdict.allowed:.2e}'}"


def independence(record: Record) -> None:
    """Whether a row's bits depend on its company: linears in every form, attention at both head widths."""
    shape = sizes_of(record).shape
    found = {}
    forms = ("dense",) if record.dry else ("dense", "int8", "fp8", "int4")
    for form in forms:
        kernels = _kernels(record, form, shape.head_width)
        found[f"linear, {form}"] = linears_are_exact(kernels)
    for width in (shape.head_width,) if record.dry else (64, 128):
        found[f"attention, heads of {width}"] = attention_is_exact(_kernels(record, "dense", width), PAGE)
    record.facts["independent rows"] = found | {"trial": attrs.asdict(TRIALS[record.device.type])}
    differing = [name for name, same in found.items() if not same]
    record.promise(
        "rows independent of company",
        "that differ",
        0,
        len(differing),
        least=False,
        note=", ".join(differing),
    )
    record.say(f"  {found}")


def _kernels(record: Record, form: str, width: int) -> DeviceKernels:
    shape = sizes_of(record).shape
    return DeviceKernels(record.device, _dtype(record), form, False, shape.heads, shape.kv_heads, width)


def _random(record: Record, *size: int) -> Tensor:
    return torch.randn(size, dtype=_dtype(record), device=record.device)


def _dtype(record: Record) -> torch.dtype:
    """bf16; in a dry run fp32, since Triton's interpreter computes bf16 wrongly."""
    return torch.float32 if record.dry else torch.bfloat16


def decode(record: Record) -> None:
    """Decode attention at long contexts, and one long row beside short ones."""
    sizes = sizes_of(record)
    for count, context in sizes.decode:
        _decode(record, f"decode {count} x {context}", [context] * count)
    long, count, short = sizes.mixed
    _decode(record, f"decode 1 x {long} + {count} x {short}", [long, *[short] * count])


def _decode(record: Record, name: str, contexts: list[int]) -> None:
    shape = sizes_of(record).shape
    cache, spans = _paged(record, [(context - 1, 1) for context in contexts])
    q = _random(record, len(contexts), shape.heads, shape.head_width)
    work = plan_work(spans, shape.heads // shape.kv_heads, shape.head_width, record.device)
    floor = cost.attention([Row(1, context - 1) for context in contexts], shape, Bytes())
    scale = shape.head_width**-0.5
    record.time(
        "decode", name, partial(attend_triton, q, cache, work, scale), floor.bytes_moved, floor.operations
    )
    if len(set(contexts)) == 1:  # torch has no pages: the same lengths, side by side
        keys = cache.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, : contexts[0] * len(contexts)]
        keys = keys.unflatten(2, (len(contexts), contexts[0])).permute(0, 2, 1, 3, 4).contiguous()
        peer = partial(
            F.scaled_dot_product_attention, q.unsqueeze(2), keys[0], keys[1], scale=scale, enable_gqa=True
        )
        record.time("decode", name, peer, floor.bytes_moved, floor.operations, by="SDPA")


def _paged(record: Record, cuts: list[tuple[int, int]]) -> tuple[Tensor, list[Span]]:
    """A cache of random pages in random order, and the spans (start, count) that they hold."""
    shape = sizes_of(record).shape
    depths = [-(-(start + count) // PAGE) for start, count in cuts]
    order = torch.randperm(sum(depths), generator=torch.Generator().manual_seed(1)).tolist()
    cache = _random(record, sum(depths), 2, shape.kv_heads, PAGE, shape.head_width)
    spans, used = [], 0
    for (start, count), depth in zip(cuts, depths, strict=True):
        spans.append(Span(start, count, tuple(order[used : used + depth])))
        used += depth
    return cache, spans


def prefill(record: Record) -> None:
    """Causal prefill of one long prompt, beside SDPA and FlexAttention."""
    sizes, shape = sizes_of(record), sizes_of(record).shape
    for length in sizes.prefill:
        cache, spans = _paged(record, [(0, length)])
        q = _random(record, length, shape.heads, shape.head_width)
        work = plan_work(spans, shape.heads // shape.kv_heads, shape.head_width, record.device)
        scale, floor = shape.head_width**-0.5, cost.attention([Row(length, 0)], shape, Bytes())
        name = f"prefill {length}"
        ours = partial(attend_triton, q, cache, work, scale)
        record.time("prefill", name, ours, floor.bytes_moved, floor.operations)
        for by, peer in _prefill_peers(record, q, scale, length == sizes.prefill[-1]):
            record.time("prefill", name, peer, floor.bytes_moved, floor.operations, by=by)


def _prefill_peers(
    record: Record, q: Tensor, scale: float, flex: bool
) -> list[tuple[str, Callable[[], object]]]:
    shape, length = sizes_of(record).shape, len(q)
    keys, values = (_random(record, 1, shape.kv_heads, length, shape.head_width) for _ in range(2))
    queries = q.transpose(0, 1).unsqueeze(0).contiguous()

    def sdpa() -> Tensor:
        return F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=True
        )

    def flexible() -> Tensor:
        return compiled(queries, keys, values, block_mask=mask, scale=scale, enable_gqa=True)

    if not flex or record.dry:
        return [("SDPA", sdpa)]
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=q.device)  # noqa: ARG005
    return [("SDPA", sdpa), ("FlexAttention", flexible)]


def products(record: Record) -> None:
    """The square product, and the layers of the 8B shape for few rows, beside cuBLAS; then narrow weights."""
    sizes, shape = sizes_of(record), sizes_of(record).shape
    n = sizes.square
    _product(record, "product of squares", n, n, n, "dense")
    for rows in sizes.skinny:
        _product(record, f"gate_up, {rows} rows", rows, shape.width, 2 * shape.feed_forward, "dense")
        _product(record, f"down, {rows} rows", rows, shape.feed_forward, shape.width, "dense")
    for form in ("int8", "fp8", "int4"):
        for rows in sizes.narrow:
            _product(record, f"gate_up, {rows} rows, {form}", rows, shape.width, 2 * shape.feed_forward, form)
    _product(record, "product of squares, fp8", n, n, n, "fp8")


WEIGHT_BYTES = {"dense": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5}


def _product(record: Record, name: str, rows: int, k: int, n: int, form: str) -> None:
    weight, x = _random(record, n, k), _random(record, rows, k)
    layer = _kernels(record, form, 64).pack_linear(weight)
    floor = cost.linear(name, rows, k, n, Bytes(weight=WEIGHT_BYTES[form]))
    work = floor.operations / (2 if form in ("int8", "fp8") else 1)  # against bf16's ceiling
    record.time("products", name, lambda: layer(x), floor.bytes_moved, work)
    if form == "dense":
        record.time("products", name, lambda: F.linear(x, weight), floor.bytes_moved, work, by="cuBLAS")


def others(record: Record) -> None:
    """Norm, rotation, activation and the choice of tokens: all limited by memory."""
    sizes, shape = sizes_of(record), sizes_of(record).shape
    rows, bytes_ = sizes.rows, Bytes()
    x, residual, weight = (_random(record, *size) for size in ((rows, shape.width),) * 2 + ((shape.width,),))
    moved = cost.rms_norm(rows, shape.width, bytes_).bytes_moved + 2 * rows * shape.width * 2
    record.time("others", "add_rms_norm", partial(add_rms_norm_triton, x, residual, weight, 1e-5), moved)
    gates = _random(record, rows, 2 * shape.feed_forward)
    record.time(
        "others", "swiglu", lambda: swiglu_triton(gates), cost.swiglu(rows, shape, bytes_).bytes_moved
    )
    _rope(record, rows)
    for batch in sizes.batches:
        logits = _random(record, batch, sizes.vocabulary)
        wishes = [Control(i, 0.8, top_p=0.95 if i % 2 else 1.0) for i in range(batch)]
        controls = Controls.of(wishes, record.device)
        call = partial(sample_triton, logits, controls)
        record.time("others", f"choose, {batch} rows", call, 2.0 * logits.numel())


def _rope(record: Record, rows: int) -> None:
    shape = sizes_of(record).shape
    qkv = _random(record, rows, shape.heads + 2 * shape.kv_heads, shape.head_width)
    cache = _random(record, -(-rows // PAGE), 2, shape.kv_heads, PAGE, shape.head_width)
    places = torch.arange(rows, device=record.device)
    frequencies = torch.rand(shape.head_width // 2, device=record.device)
    cos, sin = rope_angles(places, frequencies)
    page, slot = places // PAGE, places % PAGE
    moved = cost.rope_store(rows, shape, Bytes()).bytes_moved
    record.time("others", "rope_store", lambda: rope_store_triton(qkv, cos, sin, cache, page, slot), moved)


def kernel_goals(record: Record) -> None:
    """Hold what was measured against what was promised."""
    sizes, found = sizes_of(record), ceilings_of(record)
    count, context = sizes.decode[1]
    long, many, short = sizes.mixed
    mixed = record.find(f"decode 1 x {long} + {many} x {short}")
    last = record.find(f"prefill {sizes.prefill[-1]}")
    square = record.find("product of squares")
    skinny = [f for rows in sizes.skinny if rows <= 64 for f in _skinny(record, rows)]
    deep = record.find(f"decode {count} x {context}")
    slowest = min((f.bytes_per_s / found.bytes_per_s for f in skinny), default=None)
    work = square and square.flops / 1e12
    over = mixed and mixed.seconds * found.bytes_per_s / mixed.bytes_moved
    promise = record.promise
    promise("decode attention, long context", "TB/s", 4.1, deep and deep.bytes_per_s / 1e12)
    promise("one long row beside short ones", "x byte floor", 1.25, over, least=False)
    promise("prefill, causal, longest", "TFLOP/s", 500, last and last.flops / 1e12)
    promise("prefill, warp-specialised", "TFLOP/s", 620, None, note="no such kernel is chosen")
    promise("product of squares, invariant", "TFLOP/s", 650, work)
    promise("product of squares", "TFLOP/s", 700, work, note="the same kernel")
    promise("few rows, the slowest", "of bandwidth", 0.85, slowest)


def _skinny(record: Record, rows: int) -> list[Figure]:
    found = [record.find(f"{layer}, {rows} rows") for layer in ("gate_up", "down")]
    return [figure for figure in found if figure]


STAGES: tuple[tuple[str, float, Callable[[Record], None]], ...] = (
    ("machine", 0, machine),
    ("ceilings", 5, ceilings),
    ("parity", 20, parity),
    ("independence", 10, independence),
    ("decode", 10, decode),
    ("prefill", 10, prefill),
    ("products", 10, products),
    ("others", 5, others),
    ("goals of kernels", 0, kernel_goals),
)
"""Name, least seconds that must be left to begin it, and what it does."""


def runnable(dry: bool) -> str:
    """Why the stages cannot run here; empty if they can."""
    if not dry or not installed():
        return objection()
    from triton import knobs

    here = torch.cuda.is_available() or knobs.runtime.interpret
    return "" if here else "there is no GPU, and Triton does not interpret"
