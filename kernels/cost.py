"""What a step must cost: bytes moved and operations done, per kernel, and the least time of a chip.

The model is a roofline (Williams, Waterman and Patterson, CACM 52/4, 2009): a kernel takes at least
max(bytes / bandwidth, operations / rate), and a step takes at least the sum over its kernels plus a
launch each, since each kernel waits for the one before. What the sum leaves out (tails, ramps, caches
that hold what was just written) makes real kernels slower or, for small activations, a little faster.

Weights, keys, values and activations are counted once per kernel that touches them; a batch reads each
weight once. Figures are exact counts, not estimates: a test compares them with the sizes of real tensors.
"""

from collections.abc import Iterable

import attrs


@attrs.frozen
class Chip:
    """A GPU by its data sheet: dense rates, no sparsity."""

    name: str
    bytes_per_s: float
    """Memory bandwidth."""
    flops: dict[int, float]
    """Matrix operations per second by bytes per operand: 2 is bf16, 1 is fp8 or int8."""
    launch_s: float = 1.3e-6
    """One kernel of a replayed graph ("Look Ma, No Bubbles", Hazy Research 2025, H100)."""


CHIPS = (
    Chip("A100", 2.039e12, {2: 312e12, 1: 624e12}),
    Chip("H100", 3.35e12, {2: 989e12, 1: 1979e12}),
    Chip("H200", 4.8e12, {2: 989e12, 1: 1979e12}),
    Chip("B200", 8.0e12, {2: 2250e12, 1: 4500e12}),
    Chip("MI300X", 5.3e12, {2: 1307e12, 1: 2615e12}),
)
"""A100 80 GB SXM (int8), H100 SXM, H200 SXM, B200 (HGX), MI300X: the makers' data sheets."""


@attrs.frozen
class Shape:
    """One dense decoder of the Llama family."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int

    @property
    def qkv_width(self) -> int:
        """Columns of the fused projection of queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_width


SHAPES = (
    Shape("1B", 16, 2048, 32, 8, 64, 8192, 128_256),
    Shape("8B", 32, 4096, 32, 8, 128, 14_336, 128_256),
)
"""Llama 3.2 1B and Llama 3.1 8B."""


@attrs.frozen
class Bytes:
    """How wide each kind of value is, in bytes; half a byte is int4."""

    weight: float = 2
    kv: float = 2
    activation: int = 2

    def kv_head(self, width: int) -> float:
        """A key or value of one head: with eight bits, an fp32 step beside it (`kernels.narrow_cache`)."""
        return width * self.kv + (4 if self.kv < 2 else 0)

    @property
    def operand(self) -> int:
        """What the matrix units multiply: narrow only if both sides are; int4 is widened first."""
        return 1 if self.weight == 1 else 2


@attrs.frozen
class Row:
    """One sequence's part of a step: `new` tokens are computed, `seen` were there before."""

    new: int
    seen: int

    @property
    def pairs(self) -> int:
        """(query, key) pairs under the causal mask."""
        return self.new * self.seen + self.new * (self.new + 1) // 2


@attrs.frozen
class Cost:
    """One launch: what it moves and multiplies."""

    name: str
    bytes_moved: float
    operations: float = 0.0
    operand: int = 2
    """Bytes per operand of its matrix units."""

    def floor_s(self, chip: Chip) -> float:
        """Least seconds on a chip, the launch apart."""
        return max(self.bytes_moved / chip.bytes_per_s, self.operations / chip.flops[self.operand])

    def limit(self, chip: Chip) -> str:
        """What holds it back on a chip."""
        by_memory = self.bytes_moved / chip.bytes_per_s >= self.operations / chip.flops[self.operand]
        return "memory" if by_memory else "arithmetic"


def linear(name: str, tokens: int, k: int, n: int, bytes_: Bytes) -> Cost:
    """A product of [tokens, k] and [k, n]: weights once, activations in and out."""
    moved = k * n * bytes_.weight + tokens * (k + n) * bytes_.activation
    return Cost(name, moved, 2.0 * tokens * k * n, bytes_.operand)


def rms_norm(tokens: int, width: int, bytes_: Bytes) -> Cost:
    """Rows in, rows out, the weight once."""
    return Cost("rms_norm", (2 * tokens + 1) * width * bytes_.activation, 4.0 * tokens * width)


def rope_store(tokens: int, shape: Shape, bytes_: Bytes) -> Cost:
    """Queries, keys and values in; queries out, keys and values into their pages; fp32 cosines and sines."""
    queries = 2 * shape.heads * shape.head_width * bytes_.activation
    head = shape.head_width * bytes_.activation + bytes_.kv_head(shape.head_width)
    kv = 2 * shape.kv_heads * head
    return Cost("rope_store", tokens * (queries + kv + shape.head_width * 2 * 4))


def swiglu(tokens: int, shape: Shape, bytes_: Bytes) -> Cost:
    """Gate and up in, one out."""
    return Cost("swiglu", 3 * tokens * shape.feed_forward * bytes_.activation)


def attention(rows: Iterable[Row], shape: Shape, bytes_: Bytes) -> Cost:
    """Keys and values of each sequence once, queries in, outputs out; two products per (query, key) pair."""
    rows = tuple(rows)
    kv = sum(row.seen + row.new for row in rows) * 2 * shape.kv_heads * bytes_.kv_head(shape.head_width)
    queries = sum(row.new for row in rows) * 2 * shape.heads * shape.head_width * bytes_.activation
    pairs = sum(row.pairs for row in rows)
    return Cost("attention", kv + queries, 4.0 * pairs * shape.heads * shape.head_width)


def survey(sequences: int, shape: Shape) -> Cost:
    """The logits once, in fp32; the noise is hashed and never stored."""
    return Cost("survey", sequences * shape.vocabulary * 4)


def choose(sequences: int, shape: Shape) -> Cost:
    """A maximum per group of 64 logits; what is looked at again is a few of those groups."""
    return Cost("choose", sequences * -(-shape.vocabulary // 64) * 4)


def layer(rows: tuple[Row, ...], shape: Shape, bytes_: Bytes) -> list[Cost]:
    """The launches of one layer, in order."""
    tokens = sum(row.new for row in rows)
    attended = shape.heads * shape.head_width
    return [
        rms_norm(tokens, shape.width, bytes_),
        linear("linear qkv", tokens, shape.width, shape.qkv_width, bytes_),
        rope_store(tokens, shape, bytes_),
        attention(rows, shape, bytes_),
        linear("linear o", tokens, attended, shape.width, bytes_),
        rms_norm(tokens, shape.width, bytes_),
        linear("linear gate_up", tokens, shape.width, 2 * shape.feed_forward, bytes_),
        swiglu(tokens, shape, bytes_),
        linear("linear down", tokens, shape.feed_forward, shape.width, bytes_),
    ]


def step(rows: tuple[Row, ...], shape: Shape, bytes_: Bytes) -> list[Cost]:
    """Every launch of one step: all layers, the last norm, the head for each sequence's last token, the draw."""
    sequences = len(rows)
    tokens = sum(row.new for row in rows)
    head_bytes = attrs.evolve(bytes_, weight=max(bytes_.weight, 1))
    return [
        Cost("embed", 2 * tokens * shape.width * bytes_.activation),
        *layer(rows, shape, bytes_) * shape.layers,
        rms_norm(sequences, shape.width, bytes_),
        linear("linear head", sequences, shape.width, shape.vocabulary, head_bytes),
        survey(sequences, shape),
        choose(sequences, shape),
    ]


def floor_s(costs: Iterable[Cost], chip: Chip, launches: bool = True) -> float:
    """Least seconds of a step on a chip, with or without the launches."""
    return sum(cost.floor_s(chip) + chip.launch_s * launches for cost in costs)
