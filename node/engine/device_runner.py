"""The runner on a GPU: the surface of `node.engine.runner.Runner`, with Triton's kernels below.

A step in which every sequence has one token runs from fixed buffers (`device_inputs`), filled up to one of a
dozen batch sizes, so that it can be recorded and replayed (`graphs`). A step with prefill runs plainly: it is
limited by arithmetic, and its launches hide behind it. Tokens are chosen on the device (`device_sampler`), the
logits stay there; the host waits for nothing but ids, in `finish`.

    runner.run(plan)                  # one step, and its tokens
    pending = runner.begin(plan)      # launched; the host is free
    ahead = runner.begin(next_plan)   # rows may name a token of `plan` that nobody has read: UNKNOWN
    runner.finish(pending)

So a caller who knows which rows come next can prepare step N + 1 while step N computes.

On `cpu` this runs in Triton's interpreter, for tests: the same code, without graphs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import torch
from torch import Tensor

from kernels import attention_triton, native
from kernels.attention import Span
from kernels.device import DeviceKernels, select_device
from kernels.likeliest import sample_triton
from kernels.linear_int4 import SHARED
from kernels.narrow_cache import Codes
from node.engine.config_hf import ModelError, Shape, read_config, shape_of
from node.engine.cuda_graphs import CudaRecorder
from node.engine.device_inputs import UNKNOWN, Inputs
from node.engine.device_memory import Need, blocks_that_fit, step_bytes, weight_bytes, work_bytes
from node.engine.device_sampler import Chosen, choose, controls_of, fetch, on_host, plain
from node.engine.graphs import BATCHES, GRAPH_BYTES, Graphs, Recorder, Size, size_of
from node.engine.keep import digest_of
from node.engine.memory import available_bytes
from node.engine.model import Step, Transformer, load_transformer
from node.engine.plan import Plan, Row, Sampled, choices, yields
from node.engine.policy import measure, policy_digest
from node.engine.runner import block_bytes, last_rows
from node.engine.sampler import shapes
from node.engine.weights import model_digest, open_weights

BLOCK_TOKENS = 64
"""Tokens per block by default: one tile of attention in bf16, so a block of a head is read in one piece."""
STEP_TOKENS = 8192
"""Rows of a prefill step that memory is set aside for."""

FORMS = {
    "bf16": (torch.bfloat16, "dense"),
    "fp32": (torch.float32, "dense"),
    "int8": (torch.bfloat16, "int8"),
    "fp8": (torch.bfloat16, "fp8"),
    "int4": (torch.bfloat16, "int4"),
}
"""Name of a dtype -> dtype of activations and cache, and form of the linears' weights."""
CODES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""Name of a cache of eight bits -> dtype of its codes. `auto` and `bf16` hold what the activations are."""
FP8_CAPABILITY_MIN = (8, 9)
"""Ada: the first chips that convert e4m3."""


class Checkpoint(Protocol):
    """Where weights are read from: `node.engine.weights.Weights`, or random ones in a benchmark."""

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor, in `dtype`."""


@attrs.frozen(eq=False)
class _OnDevice:
    """A checkpoint whose tensors are moved to the device as they are read."""

    checkpoint: Checkpoint
    device: torch.device
    _tables: dict[str, Tensor] = attrs.field(init=False, factory=dict)
    """The embedding, which a tied model reads twice and holds once."""

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        if name in self._tables:
            return self._tables[name]
        tensor = self.checkpoint.read(name, dtype).to(self.device)
        if "embed" in name:
            self._tables[name] = tensor
        return tensor


@attrs.frozen
class DeviceOptions:
    """What may be chosen about a runner on a device."""

    dtype: str = "auto"
    """A key of `FORMS`, or `auto`: fp32 if the weights are, else bf16."""
    kv_dtype: str = "auto"
    """`auto`, `bf16` or a key of `CODES`: what keys and values are held in."""
    block_tokens: int = BLOCK_TOKENS
    kv_blocks: int | None = None
    kv_bytes: int | None = None
    """The cache's size; by default what weights and work leave."""
    step_tokens: int = STEP_TOKENS
    graph_bytes: int = GRAPH_BYTES
    batches: tuple[int, ...] = BATCHES


@attrs.frozen(eq=False)
class Pending:
    """A step that has been launched."""

    chosen: Chosen
    logits: Tensor
    """[sampled rows, vocabulary] on the device, in the model's dtype; overwritten by the next step."""


def open_device_runner(
    directory: Path | str,
    device: str,
    options: DeviceOptions,
    progress: Callable[[int], None] | None = None,
    loading: Callable[[str, int, int], None] | None = None,
    keep: Path | None = None,
) -> "DeviceRunner":
    """Load a Hugging Face directory onto a device. `ModelError` if it cannot be run. keep: as `Runner`'s."""
    directory = Path(directory)
    shape = shape_of(read_config(directory))
    weights = open_weights(directory, shape)
    tell = loading or (lambda *_: None)
    digest = digest_of(
        keep or native.cache_directory(),
        (directory / "config.json", *weights.files),
        lambda: model_digest(weights, lambda done, total: tell("digest", done, total)),
    )
    return DeviceRunner(
        shape, weights, digest, torch.device(device), options, progress, lambda *step: tell("weights", *step)
    )


class DeviceRunner:
    """One model on one device. Construct it (loads, probes, warms up), then call it from one thread."""

    def __init__(
        self,
        shape: Shape,
        checkpoint: Checkpoint,
        digest: str,
        device: torch.device,
        options: DeviceOptions,
        progress: Callable[[int], None] | None = None,
        loading: Callable[[int, int], None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """digest: the model's. progress: called with the number of layers when a step has been launched.

        recorder: records steps; by default CUDA's on a GPU, none elsewhere. `ModelError` before memory is
        taken, with the figures, if the model does not fit.
        """
        name = _form(options.dtype, shape)
        dtype, form = FORMS[name]
        codes = _codes(options.kv_dtype, name, device)
        blocks = _preflight(shape, dtype, form, codes, device, options)
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            torch.cuda.set_device(device)
            recorder = recorder or CudaRecorder(device)
        sizes = (shape.heads, shape.kv_heads, shape.head_width, options.block_tokens)
        kernels = select_device(device, dtype, *sizes, form, codes)
        self.shape, self.digest, self.progress = shape, digest, progress
        self.blocks, self.block_tokens = blocks, options.block_tokens
        self.context_max = min(shape.context_max, blocks * options.block_tokens)
        self.vocabulary = shape.vocabulary
        self.dtype, self.device, self.threads = name, str(device), 1
        self.graphs = Graphs(recorder, options.graph_bytes)
        self._device = device
        self._batches = options.batches
        self._kernels: DeviceKernels = kernels
        self._model: Transformer = _load(shape, checkpoint, kernels, loading)
        self._take_memory(dtype)
        canary = measure(self.logits, shape.vocabulary, self.block_tokens, self.context_max, blocks, 1, (1,))
        self.exact = kernels.exact and canary.exact
        self.policy = policy_digest(kernels.facts(), canary.bits)

    def _take_memory(self, dtype: torch.dtype) -> None:
        """The cache and the fixed buffers. A block more than there are is where rows that fill up write."""
        shape, batch, device = self.shape, max(self._batches), self._device
        size = (self.blocks + 1, shape.layers, 2, shape.kv_heads, self.block_tokens, shape.head_width)
        codes = self._kernels.kv
        self._cache = torch.empty(size, dtype=codes or dtype, device=device)
        self._steps = torch.empty(size[:-1] if codes else 0, device=device)
        self._pages = tuple(self._cache[:, layer] for layer in range(shape.layers))
        if codes:
            self._pages = tuple(Codes(page, self._steps[:, i]) for i, page in enumerate(self._pages))
        pages = -(-self.context_max // self.block_tokens) + 1
        chunks = -(-self.blocks * self.block_tokens // attention_triton.CHUNK) + 2 * batch
        items = 1 << (chunks - 1).bit_length()
        self._inputs = Inputs(device, batch, items, pages, self.block_tokens, scratch=self.blocks)
        self._logits = torch.empty(batch, shape.vocabulary, dtype=dtype, device=device)
        self._best = torch.zeros(batch, device=device)
        self._ids = torch.zeros(batch, dtype=torch.int64, device=device)
        self._places: dict[int, int] = {}

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step. Returns one `Sampled` per row with `sample`, in the plan's order.

        Raises `NotFinite` if a sequence's logits are NaN (that sequence is damaged, not the others).
        """
        return self.finish(self.begin(plan)) if plan.rows else ()

    @torch.inference_mode()
    def begin(self, plan: Plan) -> Pending:
        """Launch one step without waiting for it. A row's only id may be `UNKNOWN`: what the last one chose.

        KeyError, before anything is launched, if the last step did not choose that sequence's one token, or if
        its next choice depends on that token (penalties, a grammar), which must be known then.
        """
        size = self._size(plan.rows)
        pending = self._mixed(plan) if size is None else self._decode(plan.rows, size)
        if self.progress is not None:
            self.progress(self.shape.layers)
        return pending

    @torch.inference_mode()
    def finish(self, pending: Pending) -> tuple[Sampled, ...]:
        """Wait for the ids of a step that was begun. Steps finish in the order in which they began."""
        return pending.chosen.read()

    def logits(self, plan: Plan) -> Tensor:
        """Compute one step up to the scores: [rows with `sample`, vocabulary] fp32, on the host."""
        return self.begin(plan).logits.float().cpu() if plan.rows else torch.empty(0, self.vocabulary)

    def _size(self, rows: Sequence[Row]) -> Size | None:
        """The size of a step of decode rows; None if it has other rows, or too many."""
        if any(len(row.ids) > 1 or not row.sample or row.scored is not None for row in rows):
            return None
        items = sum(row.start // attention_triton.CHUNK + 1 for row in rows)
        size = size_of(len(rows), items, all(map(plain, rows)), self._batches)
        return None if size is None or size.items > self._inputs.items_max else size

    def _decode(self, rows: tuple[Row, ...], size: Size) -> Pending:
        self._inputs.fill(rows, size, self._places)
        self.graphs.run(size, lambda: self._decode_body(size))
        logits = self._logits[: len(rows)]
        if size.choosing:
            return self._pending(rows, logits, self._ids, self._best)
        return self._choose(rows, logits)

    def _decode_body(self, size: Size) -> None:
        """From the fixed inputs to the fixed results; every launch of it, and nothing that waits."""
        columns = {name: view[: size.batch] for name, view in self._inputs.columns.items()}
        ids = self._known(columns["ids"], columns["source"])
        hidden = self._model.forward(self._inputs.step(size, ids), self._pages)
        logits = self._logits[: size.batch]
        logits.copy_(self._scored(hidden))
        if size.choosing:
            choice = sample_triton(logits, self._inputs.controls(size))
            self._ids[: size.batch].copy_(choice.ids)
            self._best[: size.batch].copy_(choice.best)

    def _mixed(self, plan: Plan) -> Pending:
        """A step with prefill, or with more rows than a recording has."""
        rows = sorted(plan.rows, key=lambda row: len(row.ids) > 1)
        hidden = self._model.forward(self._step(rows), self._pages)
        sampled = tuple(one for row in plan.rows if yields(row) for one in choices(row))
        last = torch.tensor(last_rows(rows, plan.rows), dtype=torch.int64)
        return self._choose(sampled, self._scored(hidden.index_select(0, last.to(self._device))))

    def _choose(self, rows: tuple[Row, ...], logits: Tensor) -> Pending:
        """Choose outside a recording: any wish can be served there."""
        choice = choose(logits, controls_of(rows, self.vocabulary, self._device), rows)
        held = min(len(rows), len(self._ids))
        self._ids[:held].copy_(choice.ids[:held])
        asked = any(row.sampling.logprobs is not None for row in rows)
        report = (fetch(choice.likeliest), fetch(choice.logprobs)) if asked else None
        apart = [index for index, row in enumerate(rows) if on_host(row)]
        theirs = None
        if apart:
            theirs = fetch(logits.index_select(0, torch.tensor(apart).to(self._device)).float())
        return self._pending(rows, logits, choice.ids, choice.best, report, theirs)

    def _known(self, ids: Tensor, source: Tensor) -> Tensor:
        """The ids, with those that the last step chose in their place."""
        return torch.where(source < 0, ids, self._ids.index_select(0, source.clamp(min=0)))

    def _scored(self, hidden: Tensor) -> Tensor:
        """[rows, width] of `forward` -> [rows, vocabulary] in the model's dtype."""
        return self._model.head(self._kernels.rms_norm(hidden, self._model.norm, self.shape.norm_eps))

    def _pending(
        self,
        rows: tuple[Row, ...],
        logits: Tensor,
        ids: Tensor,
        best: Tensor,
        report: tuple[Tensor, Tensor] | None = None,
        theirs: Tensor | None = None,
    ) -> Pending:
        """Send one step's results on their way to the host, and remember where its tokens stand."""
        count, held = len(rows), len(self._ids)
        times = Counter(row.sequence for row in rows)
        self._places = {
            row.sequence: i
            for i, row in enumerate(rows[:held])
            if times[row.sequence] == 1 and not (shapes(row) or on_host(row))
        }
        results = fetch(ids[:count]), fetch(best[:count])
        return Pending(Chosen(rows, *results, report, self._copied(), theirs), logits)

    def _copied(self) -> torch.cuda.Event | None:
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def _step(self, rows: list[Row]) -> Step:
        """Rows (one-token ones first) as tensors on the device."""
        places = [range(row.start, row.start + len(row.ids)) for row in rows]
        pages = [row.blocks[at // self.block_tokens] for row, r in zip(rows, places, strict=True) for at in r]
        ids = [id for row in rows for id in row.ids]
        source = [self._places[row.sequence] if id == UNKNOWN else -1 for row in rows for id in row.ids]
        positions = [at for r in places for at in r]
        columns = torch.tensor((ids, positions, pages, source)).to(self._device)
        work = self._kernels.plan_attention([Span(row.start, len(row.ids), row.blocks) for row in rows])
        known = self._known(columns[0], columns[3])
        return Step(known, columns[1], columns[2], columns[1] % self.block_tokens, work)


def _form(name: str, shape: Shape) -> str:
    if name == "auto":
        return "fp32" if shape.dtype == "float32" else "bf16"
    if name not in FORMS:
        raise ModelError(
            f"dtype `{name}` is not supported on a GPU", f"choose `auto` or one of {', '.join(FORMS)}"
        )
    inputs = (shape.width, shape.heads * shape.head_width, shape.feed_forward)
    if name == "int4" and any(k % SHARED for k in inputs):
        raise ModelError(
            f"dtype `int4` needs layers whose inputs are multiples of {SHARED}; this model's are {inputs}",
            "choose `int8` or `fp8`",
        )
    return name


def _codes(name: str, dtype: str, device: torch.device) -> torch.dtype | None:
    """The dtype of the cache's codes; None if it holds what the activations are."""
    if name == "auto" or (name == "bf16" and FORMS[dtype][0] is torch.bfloat16):
        return None
    if name not in CODES:
        raise ModelError(
            f"kv_dtype `{name}` is not supported with dtype `{dtype}`",
            f"choose `auto` or one of {', '.join(CODES)}",
        )
    if name == "fp8" and device.type == "cuda" and not _converts_e4m3(device):
        raise ModelError("kv_dtype `fp8` needs a GPU that converts e4m3", "choose `int8` or `auto`")
    return CODES[name]


def _converts_e4m3(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY_MIN


def _preflight(
    shape: Shape,
    dtype: torch.dtype,
    form: str,
    codes: torch.dtype | None,
    device: torch.device,
    options: DeviceOptions,
) -> int:
    """Number of blocks, or `ModelError` with the figures."""
    cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else available_bytes()
    batch = max(options.batches)
    need = Need(
        weight_bytes(shape, dtype, form),
        work_bytes(shape, dtype, options.step_tokens, batch),
        options.graph_bytes if cuda else 0,
    )
    block = block_bytes(shape, codes or dtype, options.block_tokens)
    block += step_bytes(shape, options.block_tokens) if codes else 0
    return blocks_that_fit(need, block, free, options.kv_blocks, options.kv_bytes)


def _load(
    shape: Shape,
    checkpoint: Checkpoint,
    kernels: DeviceKernels,
    loading: Callable[[int, int], None] | None,
) -> Transformer:
    model = load_transformer(shape, _OnDevice(checkpoint, kernels.device), kernels, loading)
    return attrs.evolve(model, rotation=model.rotation.to(kernels.device))
