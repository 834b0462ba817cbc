"""The runner: a model directory on one side, `Plan` in and `Sampled` out on the other.

It owns the weights, the paged cache of keys and values, and the numerical policy; it has no opinion about who
runs when. Invariants: a step's result for a row depends on that row's tokens alone (measured at load, see
`policy`); nothing lives in module globals; memory is reckoned in bytes before it is taken.

The process must have `OMP_WAIT_POLICY=PASSIVE` in its environment before torch is imported: threads that spin
slow a small operator 31 times when neighbours are busy (8.4 ms for a linear of 0.27 ms was measured). The
engine's shell sets it.

    runner = Runner(Path("models/ember-py"))
    (sampled,) = runner.run(Plan((Row(sequence=0, ids=(1, 2, 3), start=0, blocks=(0,), sample=True, ...),)))
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import kernels
from kernels import native
from node.engine.config_hf import ModelError, Shape, read_config, shape_of
from node.engine.keep import Packed, digest_of
from node.engine.memory import available_bytes, weights_bytes
from node.engine.model import Step, Transformer, load_transformer
from node.engine.plan import Plan, Row, Sampled, choices, yields
from node.engine.policy import measure, policy_digest
from node.engine.pooled import pooled
from node.engine.sampler import sample
from node.engine.weights import Weights, model_digest, open_weights

DTYPES = {
    "bf16": (torch.bfloat16, torch.float32),
    "int8": (torch.bfloat16, torch.float32),
    "fp32": (torch.float32,),
}
"""Dtypes of what is computed and cached, in order of preference: fp32 is the way out where bf16 is not exact.
In `int8` the linears hold and multiply bytes."""
KV_BYTES = 1 << 30
"""Default size of the cache, if a quarter of the memory allows it."""


class Runner:
    """One model on one device. Construct it (loads, probes, warms up), then call `run` from one thread."""

    def __init__(
        self,
        directory: Path | str,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        block_tokens: int = 256,
        kv_blocks: int | None = None,
        kv_bytes: int | None = None,
        progress: Callable[[int], None] | None = None,
        loading: Callable[[str, int, int], None] | None = None,
        keep: Path | None = None,
    ) -> None:
        """Load a Hugging Face directory. `ModelError` if it cannot be run, before memory is taken.

        device: `auto` or `cpu`. dtype: `bf16`, `fp32`, `int8` (bf16 with linears in eight bits), or `auto`
        (fp32 only if the weights are fp32 or bf16 is not exact here). threads: torch's; None measures which
        of 1, 2, .. cores is fastest for one row.
        block_tokens: tokens per block of the cache, which is attention's chunk and so part of the policy.
        kv_blocks or kv_bytes: the cache's size; by default 1 GiB or a quarter of the memory at hand.
        progress: called with the number of each layer that a step has done.
        loading: called with (`what`, done, total) while loading; the units are bytes or layers.
        keep: directory for what makes the next start faster; by default the user's cache directory.
        """
        if device not in ("auto", "cpu"):
            raise ModelError(
                f"device `{device}` is not supported", "this engine runs on `cpu`; leave it at `auto`"
            )
        directory = Path(directory)
        say = loading or _silent
        shape = shape_of(read_config(directory))
        weights = open_weights(directory, shape)
        torch.set_num_threads(threads or 1)
        preferred, held = _preferred(dtype, shape), "int8" if dtype == "int8" else "dense"
        sizes = (shape.heads, shape.kv_heads, shape.head_width, block_tokens)
        windows = tuple(sorted(set(shape.windows)))
        chosen = kernels.looking(kernels.select(preferred, *sizes, held, native.load(keep), windows), windows)
        blocks = _preflight(shape, weights, chosen, block_tokens, kv_blocks, kv_bytes)
        self.progress = progress
        self.shape = shape
        keep = keep or native.cache_directory()
        self.digest = digest_of(
            keep,
            (directory / "config.json", *weights.files),
            lambda: model_digest(weights, lambda done, total: say("digest", done, total)),
        )
        packed = Packed.open(keep, self.digest, chosen)
        self._model: Transformer = load_transformer(
            shape, weights, chosen, lambda done, total: say("weights", done, total), packed.pack
        )
        packed.save()
        self._cache = _allocate(shape, chosen.dtype, blocks, block_tokens)
        self._pages = tuple(self._cache[:, layer] for layer in range(shape.layers))
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.context_max = min(shape.context_max, blocks * block_tokens)
        self.vocabulary = shape.vocabulary
        self.dtype = held if held == "int8" else "bf16" if chosen.dtype is torch.bfloat16 else "fp32"
        canary = measure(self.logits, shape.vocabulary, block_tokens, self.context_max, blocks, threads)
        torch.set_num_threads(canary.threads)
        self.threads = canary.threads
        self.exact = chosen.exact and canary.exact
        self.policy = policy_digest(chosen.facts(), canary.bits)

    embeds = True
    """Whether rows may be pooled."""
    guesses = True
    """Whether rows may hold guesses (`Row.drafts`): here the bits of a position do not depend on them."""

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step. Returns one `Sampled` per row with `sample` and one per guess, in the plan's order.

        Raises `NotFinite` if a sequence's logits are NaN (that sequence is damaged, not the others).
        """
        if not plan.rows:
            return ()
        drawn = tuple(row for row in plan.rows if not row.pooling)
        rows = [one for row in drawn if yields(row) for one in choices(row)]
        ordered, hidden = self._hidden(plan, self.progress)
        vectors = self._pooled(ordered, hidden)
        if not rows:
            return vectors
        logits = self._scored(hidden, last_rows(ordered, drawn))
        return (*sample(logits, rows, self._model.kernels.gumbel), *vectors)

    def _pooled(self, rows: list[Row], hidden: Tensor) -> tuple[Sampled, ...]:
        """What the rows that are pooled yield. rows: in the order of hidden: [tokens, width]."""
        wanted, first, states = [row for row in rows if row.pooling and yields(row)], 0, {}
        for row in rows:
            if row.pooling and yields(row):
                part = hidden[first : first + len(row.ids)]
                states[row.sequence] = self._model.normed(part)
            first += len(row.ids)
        return tuple(pooled(wanted, states))

    @torch.inference_mode()
    def logits(self, plan: Plan, progress: Callable[[int], None] | None = None) -> Tensor:
        """Compute one step up to the scores: [tokens to draw, vocabulary] fp32, in the plan's order."""
        if not plan.rows:
            return torch.empty(0, self.vocabulary)
        rows, hidden = self._hidden(plan, progress)
        return self._scored(hidden, last_rows(rows, plan.rows))

    def _hidden(self, plan: Plan, progress: Callable[[int], None] | None) -> tuple[list[Row], Tensor]:
        """Compute one step up to the last norm; return its rows in their order, and [tokens, width]."""
        rows = sorted(plan.rows, key=lambda row: len(row.ids) > 1)
        self._clear_fresh_blocks(rows)
        return rows, self._model.forward(self._step(rows), self._pages, progress)

    def _scored(self, hidden: Tensor, rows: list[int]) -> Tensor:
        return self._model.logits(hidden.index_select(0, torch.tensor(rows, dtype=torch.int64)))

    def _step(self, rows: list[Row]) -> Step:
        """Rows (one-token ones first) as tensors."""
        ids: list[int] = []
        positions: list[int] = []
        pages: list[int] = []
        for row in rows:
            ids.extend(row.ids)
            places = range(row.start, row.start + len(row.ids))
            positions.extend(places)
            pages.extend(row.blocks[place // self.block_tokens] for place in places)
        table = torch.tensor((ids, positions, pages))
        spans = [kernels.Span(row.start, len(row.ids), row.blocks) for row in rows]
        batches = self._model.kernels.plan_attention(spans)
        return Step(table[0], table[1], table[2], table[1] % self.block_tokens, batches)

    def _clear_fresh_blocks(self, rows: list[Row]) -> None:
        """Zero the blocks that this step starts to fill.

        Masked keys are read and multiplied by zero, and zero times a NaN that lay in the memory, or that an
        earlier tenant of the block left behind, is NaN.
        """
        for row in rows:
            first = -(-row.start // self.block_tokens)
            end = -(-(row.start + len(row.ids)) // self.block_tokens)
            for block in row.blocks[first:end]:
                self._cache[block].zero_()


def _silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


def last_rows(rows: list[Row], order: tuple[Row, ...]) -> list[int]:
    """Index, among the step's rows, of the last one of each sampled sequence, in the plan's order.

    Where there are guesses, that of the last known id, then those of the guesses; where the prompt is scored, all.
    """
    ends, end = {}, 0
    for row in rows:
        end += len(row.ids)
        ends[row.sequence] = end
    return [ends[row.sequence] - back for row in order for back in range(yields(row), 0, -1)]


def _preferred(dtype: str, shape: Shape) -> tuple[torch.dtype, ...]:
    if dtype == "auto":
        dtype = "fp32" if shape.dtype == "float32" else "bf16"
    if dtype not in DTYPES:
        raise ModelError(f"dtype `{dtype}` is not supported", "choose `auto`, `bf16`, `int8` or `fp32`")
    return DTYPES[dtype]


def block_bytes(shape: Shape, dtype: torch.dtype, block_tokens: int) -> int:
    """Bytes of one block of the cache: keys and values of `block_tokens` tokens in all layers."""
    return shape.layers * 2 * shape.kv_heads * block_tokens * shape.head_width * dtype.itemsize


def _preflight(
    shape: Shape,
    weights: Weights,
    chosen: kernels.Kernels,
    block_tokens: int,
    kv_blocks: int | None,
    kv_bytes: int | None,
) -> int:
    """Number of blocks, or `ModelError` with the figures if weights and cache do not fit into memory."""
    block = block_bytes(shape, chosen.dtype, block_tokens)
    have = available_bytes()
    budget = min(KV_BYTES, have // 4) if kv_bytes is None else kv_bytes
    blocks = budget // block if kv_blocks is None else kv_blocks
    if blocks < 1:
        raise ModelError(
            f"the cache of {budget:,} bytes is smaller than one block of {block:,}",
            f"give it at least {block:,} bytes",
        )
    need = weights_bytes(shape, weights, chosen) + blocks * block
    if need > have:
        raise ModelError(
            f"the model needs {need:,} bytes ({blocks:,} blocks of cache take {blocks * block:,}), {have:,} are free",
            "use a smaller model or fewer blocks, or free memory",
        )
    return blocks


def _allocate(shape: Shape, dtype: torch.dtype, blocks: int, block_tokens: int) -> Tensor:
    """[blocks, layers, 2, kv_heads, block_tokens, head_width]: a block is one piece, ready to be sent.

    Not initialised, so that memory is taken as it is used; a block is cleared when its first token comes.
    """
    size = (blocks, shape.layers, 2, shape.kv_heads, block_tokens, shape.head_width)
    return torch.empty(size, dtype=dtype)
