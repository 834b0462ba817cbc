"""The numerical policy: everything that decides a token's bits, declared and measured, as one digest.

Declared facts (dtypes, chunk sizes, versions, instruction set) can be incomplete without anyone noticing, so
the digest also covers the bits of logits that the loaded weights yield for a fixed canary text. The canary is
run in several company: whole, in chunks, token by token, beside others, on one thread and on two. If the bits
differ anywhere the engine is not exact and says so. It is the warm-up as well.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from kernels.probe import threads as on_threads
from node.engine.plan import Plan, Row, Sampling

LENGTH = 40
"""Tokens of the canary, unless the context is shorter."""
TIMED = 12
"""One-row steps that are timed per number of threads; their median is compared."""
GREEDY = Sampling(seed=0, temperature=0.0)

Logits = Callable[[Plan], Tensor]


@attrs.frozen
class Canary:
    """What the canary showed."""

    bits: str
    """sha256 of the logits' bytes, hex."""
    exact: bool
    threads: int
    """How many threads to run: as asked, or the number that was fastest for a single row."""


def policy_digest(facts: dict[str, object], bits: str) -> str:
    """sha256 over the declared facts and the measured bits, hex."""
    declared = {
        **facts,
        "torch": torch.__version__,
        "build": torch.__config__.show(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "draw": "murmur3-fmix64 gumbel 1",
        "grammar": "llguidance " + importlib.metadata.version("llguidance"),
        "logits": bits,
    }
    return hashlib.sha256(json.dumps(declared, sort_keys=True, default=str).encode()).hexdigest()


def measure(
    logits: Logits,
    vocabulary: int,
    block_tokens: int,
    context_max: int,
    blocks: int,
    threads: int | None,
    counts: tuple[int, ...] = (1, 2),
) -> Canary:
    """Run the canary through a loaded model. Overwrites the first blocks of its cache.

    counts: the numbers of threads that must agree; a device has one.
    """
    length = min(LENGTH, context_max, block_tokens)
    ids = tuple(index * 7919 % vocabulary for index in range(length))
    with on_threads(1):
        whole = logits(Plan((_row(0, ids, 0, 0),)))
    exact = all(_agrees(logits, ids, whole, count, blocks) for count in counts)
    bits = hashlib.sha256(whole.contiguous().numpy().tobytes()).hexdigest()
    return Canary(bits, exact, threads or _fastest(logits, ids))


def _row(sequence: int, ids: tuple[int, ...], start: int, block: int) -> Row:
    return Row(sequence=sequence, ids=ids, start=start, blocks=(block,), sample=True, sampling=GREEDY)


def _agrees(logits: Logits, ids: tuple[int, ...], whole: Tensor, count: int, blocks: int) -> bool:
    """Chunked and decoded, alone and beside strangers: the same last logits."""
    cut, last = len(ids) // 3, len(ids) - 1
    with on_threads(count):
        if last == 0:
            return torch.equal(logits(Plan((_row(0, ids, 0, 0),))), whole)
        for start, end in ((0, cut), (cut, last)):
            if end > start:
                logits(Plan((_row(0, ids[start:end], start, 0),)))
        decoded = logits(Plan((_row(0, ids[last:], last, 0),)))
        strangers = tuple(_row(1 + n, ids[: 1 + 2 * n], 0, 1 + n) for n in range(min(3, blocks - 1)))
        beside = logits(Plan((*strangers, _row(0, ids[last:], last, 0))))
    return torch.equal(decoded, whole) and torch.equal(beside[-1:], whole)


def _fastest(logits: Logits, ids: tuple[int, ...]) -> int:
    """The number of threads with the least median time of a one-row step."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores]
    return min(candidates, key=lambda count: _median_step(logits, ids, count))


def _median_step(logits: Logits, ids: tuple[int, ...], count: int) -> float:
    plan = Plan((_row(0, ids[-1:], len(ids) - 1, 0),))
    times = []
    with on_threads(count):
        logits(plan)
        for _ in range(TIMED):
            began = time.perf_counter()
            logits(plan)
            times.append(time.perf_counter() - began)
    return sorted(times)[TIMED // 2]
