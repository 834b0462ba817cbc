"""How much memory this process may still take, without guessing: the machine's and its control group's."""

import os
from pathlib import Path

import torch

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


def weights_bytes(shape: Shape, weights: Weights, dtype: torch.dtype, held: str) -> int:
    """Bytes that a model's weights take at the height of loading, beside the mapped files.

    The packed copies (one byte and a 2,000th for scales under `int8`, else the dtype's; a tied head is packed
    beside the embedding table), the table itself, and the two largest tensors in conversion. Files that have
    the dtype already are mapped: their pages are the kernel's to take back, so only what is converted counts.
    """
    sizes = {name: _elements(entry.shape) for name, entry in weights.entries.items()}
    table = sizes["model.embed_tokens.weight"]
    linears = sum(size for name, size in sizes.items() if len(weights.entries[name].shape) > 1)
    linears -= 0 if shape.tied else table
    each = 1.01 if held == "int8" else dtype.itemsize
    return int(linears * each) + (table + 2 * max(sizes.values())) * dtype.itemsize


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
