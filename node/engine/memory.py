"""How much memory this process may still take, without guessing: the machine's and its control group's."""

import os
from pathlib import Path

import torch

from kernels import Kernels
from node.engine.config_hf import Shape
from node.engine.weights import Weights

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Bytes that can be taken: the kernel's estimate (it counts page cache as free), capped by cgroup v2."""
    free = _meminfo(meminfo)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    return free if limit is None else max(0, min(free, limit - (used or 0)))


def _meminfo(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _number(path: Path) -> int | None:
    """The integer in a file; None if there is no file or no number (`max`)."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def weights_bytes(shape: Shape, weights: Weights, chosen: Kernels) -> int:
    """Bytes that a model's weights take at the height of loading, the pages of mapped files that stay in use included.

    The packed copies (one byte and a hundredth for scales under `int8`, else the dtype's; a tied head is packed
    beside the embedding table) and the table itself, which is mapped if the file has the dtype. What is joined or
    converted on the way stands in memory twice, and leaves gaps in the heap: an eighth of the packed copies was
    seen. Loads of 125 million parameters peaked between 80 and 100 % of this (tests/node/engine/test_memory.py).
    """
    sizes = {name: _elements(entry.shape) for name, entry in weights.entries.items()}
    table = sizes["model.embed_tokens.weight"]
    linears = sum(size for name, size in sizes.items() if len(weights.entries[name].shape) > 1)
    linears -= 0 if shape.tied else table
    packed = int(linears * (1.01 if chosen.weights == "int8" else chosen.dtype.itemsize))
    converted = any(STORED[entry.dtype] is not chosen.dtype for entry in weights.entries.values())
    passing = 0
    if converted or not chosen.joins:
        widest = max(*sizes.values(), 2 * shape.feed_forward * shape.width)
        each = 8 if chosen.weights == "int8" else 0  # quantised in fp32
        passing = widest * (2 * chosen.dtype.itemsize + each) + packed // 8
    return packed + table * chosen.dtype.itemsize + passing


STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes as files name them."""


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
