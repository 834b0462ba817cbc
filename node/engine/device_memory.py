"""What a model takes of a device's memory, in bytes, before it is taken."""

import attrs
import torch

from node.engine.config_hf import ModelError, Shape
from node.engine.weights import expected_tensors

SHARE = 0.92
"""Of the free memory; the rest is for the driver, for compiled kernels and for what fragments."""
WEIGHT_BYTES = {"dense": None, "int8": 1.0, "fp8": 1.0, "int4": 0.53}
"""Bytes per weight of a linear, scales included; None is the dtype's own size."""


@attrs.frozen
class Need:
    """What a runner needs beside its cache."""

    weights: int
    work: int
    """Activations, logits and partial sums at their height."""
    graphs: int
    """Bound on what recorded steps may keep."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.work + self.graphs


def weight_bytes(shape: Shape, dtype: torch.dtype, weights: str) -> int:
    """Bytes of the weights on the device; the embedding stays in `dtype`, and is the head too if dense."""
    narrow = WEIGHT_BYTES[weights]
    per_weight = dtype.itemsize if narrow is None else narrow
    total = 0.0
    for name, size in expected_tensors(shape).items():
        count = torch.Size(size).numel()
        linear = len(size) == 2 and "embed" not in name
        total += count * (per_weight if linear else dtype.itemsize)
    if shape.tied and narrow is not None:
        total += shape.vocabulary * shape.width * per_weight
    return int(total)


def work_bytes(shape: Shape, dtype: torch.dtype, step_tokens: int, batch: int) -> int:
    """Bytes of activations and logits at their height.

    A step's widest moment is the feed-forward: gate and up, their product, and the residual twice. Logits are
    held twice in `dtype`, and as fp32 partial sums of each 1,024 of the width, for 64 rows at a time; a row that
    is penalised or biased has a table of each kind.
    """
    widest = 3 * shape.feed_forward + 4 * shape.width + (shape.heads + 2 * shape.kv_heads) * shape.head_width
    slices = -(-shape.width // 1024)
    logits = shape.vocabulary * (batch * (2 * 4 + 2 * dtype.itemsize) + 64 * slices * 4)
    partials = (
        step_tokens * slices * max(shape.width, 2 * shape.feed_forward) * 4 if step_tokens <= 1024 else 0
    )
    return step_tokens * widest * dtype.itemsize + logits + partials


def step_bytes(shape: Shape, block_tokens: int) -> int:
    """Bytes beside one block of codes: an fp32 step for each key and value of each kv head."""
    return shape.layers * 2 * shape.kv_heads * block_tokens * 4


def blocks_that_fit(
    need: Need, block: int, free: int, kv_blocks: int | None = None, kv_bytes: int | None = None
) -> int:
    """How many blocks of `block` bytes the cache has; one more is kept as scratch.

    free: bytes at hand on the device. By default the cache takes what weights and work leave of `SHARE`.
    `ModelError` with the figures if that is not one block, or if what was asked for does not fit.
    """
    usable = int(free * SHARE)
    left = usable - need.total - block
    blocks = kv_blocks if kv_blocks is not None else (left if kv_bytes is None else kv_bytes) // block
    wanted = need.total + (max(blocks, 1) + 1) * block
    if wanted > usable:
        raise ModelError(
            f"the model needs {wanted:,} bytes on the device (weights {need.weights:,}, work {need.work:,}, "
            f"graphs {need.graphs:,}, {max(blocks, 1):,} blocks of cache of {block:,}), {usable:,} of {free:,} "
            "free ones are usable",
            "use a smaller model, narrower weights or fewer blocks, or free memory on the device",
        )
    if blocks < 1:
        raise ModelError(
            f"the cache of {kv_bytes or 0:,} bytes is smaller than one block of {block:,}",
            f"give it at least {block:,} bytes",
        )
    return blocks
