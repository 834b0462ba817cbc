"""The soak: `python -m tests.soak` (a million requests to the toy), or `--model DIR --seconds 600` (a real one).

Exit 1 with the broken promise, the seed and the request's number if one is broken. The toy runs in virtual time and
the same seed gives the same run everywhere.
"""

import argparse
import gc
import random
import resource
import sys
import time
import tracemalloc
from pathlib import Path

from node.engine.core import EngineCore, Options, describe
from node.engine.plan import Plan
from node.engine.scheduler import Limits
from node.engine.toy import ToyRunner, ToyText
from tests.soak.soak import Soak
from tests.soak.traffic import ModelTraffic, ToyTraffic

LIMITS = Limits(step_tokens=64, running_max=16, waiting_max=39, draft_rows=8)
TRACED = 10_000
"""Requests of the last part, in which every allocation is traced: a byte per request would be seen."""
GROWTH_BYTES = 64 * 1024
"""What traced memory may grow in that part."""
RSS_GROWTH_RATIO = 1.1
"""What the process may grow between the first tenth and the end."""


def toy_soak(seed: int) -> Soak:
    """Return a soak of the toy, with a memory that is too small for its crowd."""
    runner = ToyRunner(blocks=64, block_tokens=2, context_max=128)
    options = Options(runner.block_tokens, LIMITS)

    def spend(now_s: float, plan: Plan) -> float:
        return now_s + runner.step_cost_s(plan)

    def open_core() -> EngineCore:
        return EngineCore(options, ToyText(), describe("toy", runner, (), ToyText().digest))

    rng = random.Random(seed)
    return Soak(open_core, runner, ToyTraffic(rng), rng, spend)


def model_soak(directory: Path, dtype: str, seed: int) -> Soak:
    """Return a soak of a real model, on the wall clock."""
    from node.engine.runner import Runner
    from node.engine.tokenizer import ModelText

    text, runner = ModelText.load(directory), Runner(directory, dtype=dtype, block_tokens=16, kv_blocks=64)
    options = Options(runner.block_tokens, LIMITS)

    def open_core() -> EngineCore:
        return EngineCore(options, text, describe("soak", runner, (), text.digest))

    rng = random.Random(seed)
    began = time.monotonic()
    return Soak(
        open_core, runner, ModelTraffic(rng), rng, lambda *_: time.monotonic() - began, pause_every=100
    )


def traced_growth(soak: Soak, requests: int) -> int:
    """Serve requests with every allocation traced; return by how many bytes the second half of them grew."""
    tracemalloc.start()
    try:
        soak.run(requests // 2)
        before = tracemalloc.get_traced_memory()[0]
        soak.run(requests - requests // 2)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def rss_bytes() -> int:
    """Return the memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> int:
    """Run the soak; return the exit status."""
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, help="a model directory; else the toy")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long a real model is soaked")
    options = parser.parse_args()
    soak = model_soak(options.model, options.dtype, options.seed) if options.model else toy_soak(options.seed)
    try:
        grown = soak_model(soak, options.seconds) if options.model else soak_toy(soak, options.requests)
    except AssertionError as broken:
        print(f"broken at request {soak.counts['asked']} of seed {options.seed}: {broken}", file=sys.stderr)
        raise
    soak.count_life()
    print({name: soak.counts[name] for name in sorted(soak.counts)})
    print(grown)
    return 0


def soak_toy(soak: Soak, requests: int) -> str:
    """Serve the requests, the last of them traced; say how memory grew."""
    plain = max(requests - TRACED, requests // 2)
    part = -(-plain // 10)
    sizes = []
    for _ in range(10):
        soak.run(part)
        sizes.append(rss_bytes())
        show(soak)
    grown = traced_growth(soak, requests - plain)
    assert grown <= GROWTH_BYTES, f"{grown:,} bytes more after {(requests - plain) // 2} requests"
    return said(sizes) + f"; {grown:,} traced bytes more in the last {(requests - plain) // 2:,} requests"


def soak_model(soak: Soak, seconds: float) -> str:
    """Serve requests for a time; say how memory grew."""
    sizes = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        part = min(end, time.monotonic() + seconds / 10)
        soak.run(10**9, lambda part=part: time.monotonic() >= part)
        sizes.append(rss_bytes())
        show(soak)
    return said(sizes)


def said(sizes: list[int]) -> str:
    """Say how the process grew after its first two tenths; AssertionError if it is too much."""
    first, last = sizes[min(1, len(sizes) - 1)], sizes[-1]
    assert last <= RSS_GROWTH_RATIO * first, f"the process grew from {first:,} to {last:,} bytes"
    return f"the process held {first >> 20} MiB after two tenths, {last >> 20} MiB at the end"


def show(soak: Soak) -> None:
    """Say on standard error how far it is."""
    print(f"{soak.counts['asked']:>9,} requests, {soak.counts['tokens']:>11,} tokens", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
