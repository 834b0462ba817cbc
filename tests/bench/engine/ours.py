"""Our engine measured in a process of its own: `python -m tests.bench.engine.ours WHAT ...` prints JSON.

speed DTYPE THREADS RUNS     ceilings of the machine, prefill, decode, sixteen streams
attention THREADS RUNS       paged attention in GB/s and TFLOP/s, torch's beside it
batch DTYPE SECONDS          decode four streams until the time is over; steps and seconds
first DIRECTORY DTYPE        load and produce one token
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

import kernels
from kernels import Span, attention, linear_int8, native, native_ops
from node.engine.plan import Plan, Row, Sampling
from node.engine.runner import Runner
from tests.bench.engine import material

GREEDY = Sampling(seed=0, temperature=0.0)
BLOCK = 256
Figures = dict[str, list[float]]


def seconds_of(compute: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run, after one that warms up."""
    compute()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return times


def ceilings(runs: int) -> Figures:
    """What this machine reads and multiplies at best, by the fastest means at hand. GB/s, TOPS and TFLOP/s."""
    whole = torch.ones(1 << 28)
    read = [whole.nbytes / second / 1e9 for second in seconds_of(whole.sum, runs)]
    rows, k, n = 512, 2048, 2048  # fits a cache: arithmetic alone
    x, weight = torch.randn(rows, k).bfloat16(), torch.randn(n, k).bfloat16()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    wide = {"onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")}
    library = native.load()
    if library is not None:
        wide["compiled"] = partial(native_ops.pack_bf16(library, [weight]), x)
        narrow = {"compiled": partial(native_ops.pack_int8(library, [weight]), x)}
    else:
        form = linear_int8.fastest()
        narrow = {form.name: partial(linear_int8.pack_int8(weight, None, form), x)}
    best = {name: _most(forms, 2 * rows * k * n, runs) for name, forms in (("bf16", wide), ("int8", narrow))}
    return {"read GB/s": read, "bf16 TFLOP/s": best["bf16"], "int8 TOPS": best["int8"]}


def _most(forms: dict[str, Callable[[], object]], operations: int, runs: int) -> list[float]:
    rates = ([operations / s / 1e12 for s in seconds_of(form, 3 * runs)] for form in forms.values())
    return max(rates, key=statistics.median)


def row(sequence: int, ids: Sequence[int], start: int, blocks: Sequence[int], sample: bool = True) -> Row:
    """One sequence's share of a step."""
    return Row(sequence, tuple(ids), start, tuple(blocks), sample, GREEDY)


def speed(dtype: str, threads: int, runs: int, contexts: Sequence[int]) -> Figures:
    """Tokens per second of the 1B shape."""
    figures = ceilings(runs)
    runner = Runner(material.model(), dtype=dtype, threads=threads, kv_blocks=16 * 3)
    figures["exact"] = [float(runner.exact)]
    figures["prefill"] = [512 / s for s in seconds_of(lambda: prefill(runner, 512), runs)]
    runner.run(Plan((row(0, range(8), 0, (0,)),)))
    step = Plan((row(0, (5,), 8, (0,)),))
    figures["decode"] = [8 / s for s in seconds_of(lambda: [runner.run(step) for _ in range(8)], runs)]
    for context in contexts:
        streams = Plan(tuple(row(i, (5,), context, range(3 * i, 3 * i + 3)) for i in range(16)))
        times = seconds_of(lambda streams=streams: [runner.run(streams) for _ in range(3)], runs)
        figures[f"16 streams at {context}"] = [3 * 16 / s for s in times]
    return figures


def prefill(runner: Runner, count: int) -> None:
    """Read a prompt of `count` tokens in chunks of 256."""
    for start in range(0, count, BLOCK):
        ids = [(7919 * place + start) % 100_000 for place in range(min(BLOCK, count - start))]
        runner.run(Plan((row(0, ids, start, range(3), start + BLOCK >= count),)))


def paged_attention(threads: int, runs: int) -> Figures:
    """The 1B shape's attention on a cache too large for any processor's: 16 streams at 2,048, prefill of 2,048."""
    torch.set_num_threads(threads)
    heads, kv_heads, width, context, streams = 32, 8, 64, 2048, 16
    depth = context // BLOCK
    library = native.load()
    chosen = kernels.select((torch.bfloat16,), heads, kv_heads, width, BLOCK, library=library)
    cache = torch.randn(streams * depth, 2, kv_heads, BLOCK, width).bfloat16()
    spans = [Span(context - 1, 1, tuple(range(depth * s, depth * s + depth))) for s in range(streams)]
    whole = [Span(0, context, tuple(range(depth)))]
    geometry = attention.Geometry(heads, kv_heads, width, BLOCK, torch.bfloat16, 8)
    paths = {
        "": (chosen.plan_attention, chosen.attend),
        " torch": (lambda spans: attention.plan_attention(spans, geometry), attention.attend),
    }
    flops = 4 * heads * width * context * (context + 1) / 2
    figures: Figures = {}
    for name, (plan, attend) in paths.items():
        few, many = (
            torch.randn(streams, heads, width).bfloat16(),
            torch.randn(context, heads, width).bfloat16(),
        )
        ready, long = plan(spans), plan(whole)
        decode = seconds_of(lambda a=attend, p=ready, q=few: a(q, cache, p, 0.125), 3 * runs)
        figures[f"decode GB/s{name}"] = [cache.nbytes / s / 1e9 for s in decode]
        times = seconds_of(lambda a=attend, p=long, q=many: a(q, cache, p, 0.125), runs)
        figures[f"prefill TFLOP/s{name}"] = [flops / s / 1e12 for s in times]
    return figures


def batch(dtype: str, seconds: float) -> Figures:
    """Four streams at context 128, for a while: tokens per second. A line on stdin begins it, for all at once."""
    runner = Runner(material.model(), dtype=dtype, kv_blocks=4)
    for stream in range(4):
        runner.run(Plan((row(stream, range(128), 0, (stream,)),)))
    step = Plan(tuple(row(stream, (5,), 128, (stream,)) for stream in range(4)))
    print("ready", flush=True)
    sys.stdin.readline()
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        runner.run(step)
        steps += 1
    return {"tokens/s": [4 * steps / (time.monotonic() - began)]}


def first(directory: str, dtype: str) -> Figures:
    """The first token of a short prompt."""
    runner = Runner(Path(directory), dtype=dtype)
    runner.run(Plan((row(0, range(3, 11), 0, (0,)),)))
    return {}


def main(words: list[str]) -> None:
    """Measure what is asked."""
    match words:
        case ["speed", dtype, threads, runs, contexts]:
            figures = speed(dtype, int(threads), int(runs), [*map(int, contexts.split(","))])
        case ["attention", threads, runs]:
            figures = paged_attention(int(threads), int(runs))
        case ["batch", dtype, seconds]:
            os.nice(5)  # as an engine process
            figures = batch(dtype, float(seconds))
        case ["first", directory, dtype]:
            figures = first(directory, dtype)
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
