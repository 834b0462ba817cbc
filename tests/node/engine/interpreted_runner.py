"""The device's runner in Triton's interpreter, in a process of its own; see `test_device_runner.py`.

Chunks of attention have 32 keys here, so that short texts cross them. Only names, numbers and arrays pass
between the processes. With `device` set to a GPU the same functions check the same things on it.
"""

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from kernels import attention_triton
from node.engine.device_inputs import UNKNOWN
from node.engine.device_runner import DeviceOptions, DeviceRunner, open_device_runner
from node.engine.graphs import Body, Graphs
from node.engine.plan import NotFinite, Plan, Row, Sampled, Sampling
from tests.kernels import interpreted
from tests.node.engine import moves
from tests.node.engine.tiny import GREEDY, by, generate, row

BLOCK, BLOCKS = 16, 128
BATCHES = (1, 3)
DEVICE = "cpu"

_runners: dict[tuple[str, str], DeviceRunner] = {}


def prepare() -> None:
    """Choose the interpreter, and short chunks."""
    interpreted.prepare()
    attention_triton.CHUNK = 32
    overflow_unchecked()


def overflow_unchecked() -> None:
    """Spare the check of every sum of integers, a fifth of the time; each kernel's own cases have it."""
    from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

    interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)


class ReplayOnly:
    """Keeps the first body of a size and replays that: what a step was to read from elsewhere is stale."""

    def record(self, body: Body) -> tuple[Body, int]:
        return body, 1


def runner(directory: str, dtype: str) -> DeviceRunner:
    """A runner per model and dtype, kept for the life of the process. dtype: `bf16/int8` for codes of int8."""
    if (directory, dtype) not in _runners:
        name, _, kv = dtype.partition("/")
        options = DeviceOptions(name, kv or "auto", BLOCK, kv_blocks=BLOCKS, step_tokens=128, batches=BATCHES)
        made = open_device_runner(Path(directory), DEVICE, options)
        if DEVICE == "cpu":
            made.graphs = Graphs(ReplayOnly())
        _runners[directory, dtype] = made
    return _runners[directory, dtype]


def about(directory: str, dtype: str) -> dict[str, object]:
    """What the runner says of itself."""
    one = runner(directory, dtype)
    names = (
        "exact",
        "policy",
        "digest",
        "dtype",
        "device",
        "context_max",
        "vocabulary",
        "blocks",
        "block_tokens",
    )
    return {name: getattr(one, name) for name in names}


def graph_counts(directory: str, dtype: str) -> tuple[int, int, int]:
    graphs = runner(directory, dtype).graphs
    return graphs.plain, graphs.recorded, graphs.replays


def said(
    directory: str,
    dtype: str,
    prompt: Sequence[int],
    count: int,
    sampling: Sampling = GREEDY,
    produced: Sequence[int] = (),
    chunk: int = 10**6,
    strangers: int = 0,
    first_block: int = 0,
) -> list[int]:
    """Continue prompt + produced by `count` ids, among others that decode and prefill beside it."""
    return generate(
        runner(directory, dtype),
        prompt,
        count,
        sampling,
        produced,
        chunks=by(chunk),
        beside=lambda step: [stranger(number, step) for number in range(strangers)],
        blocks=range(first_block, first_block + 32),
    )


def stranger(number: int, step: int) -> Row:
    """Another sequence's row: decode in two steps of three, else five tokens of prefill; some are drawn."""
    size = 7 * number + 1 if step == 0 else 1 if (number + step) % 3 else 5
    start = step + 7 * number if step else 0
    ids = [(number * 31 + step + place) % 300 for place in range(size)]
    blocks = tuple(range(70 + 8 * number, 78 + 8 * number))
    return row(ids, start, 100 + number, blocks, Sampling(number, temperature=number % 3 / 2))


def logits(directory: str, dtype: str, ids: Sequence[int]) -> np.ndarray:
    one = row(ids, blocks=range(32))
    return runner(directory, dtype).logits(Plan((one,))).numpy()


def ahead(directory: str, dtype: str, prompt: Sequence[int], count: int, sampling: Sampling) -> list[int]:
    """As `said`, each step begun before the token of the one before it has been read."""
    one, blocks = runner(directory, dtype), range(32)
    length = len(prompt)
    pending = one.begin(Plan((row(prompt, 0, 1, blocks, sampling),)))
    out: list[int] = []
    for step in range(count - 1):
        unread = row([UNKNOWN], length + step, 1, blocks, sampling)
        beside = [stranger(0, step - step // 3 - 1)] if step % 3 else []  # alone, in company, beside prefill
        following = one.begin(Plan((*beside, unread)))
        out.append(one.finish(pending)[-1].id)
        pending = following
    return [*out, one.finish(pending)[-1].id]


def unread_of_nobody(directory: str, dtype: str) -> str:
    """The name of the error for a token that the last step did not choose."""
    try:
        runner(directory, dtype).begin(Plan((row([UNKNOWN], 3, 987),)))
    except KeyError as error:
        return f"KeyError {error}"
    return "none"


def poison(directory: str, dtype: str) -> None:
    """Fill the whole cache with NaN, as an earlier tenant might have left it; int8's steps, and largest codes."""
    one = runner(directory, dtype)
    one._steps.fill_(torch.nan)
    one._cache.fill_(torch.nan if one._cache.dtype.is_floating_point else 127)


def damaged(directory: str, dtype: str) -> str:
    """What is said of a sequence whose keys and values are NaN, beside a sound one."""
    one = runner(directory, dtype)
    one._cache[5].fill_(torch.nan)
    try:
        one.run(Plan((row([1], sequence=2, blocks=[0]), row([7], start=3, sequence=4, blocks=[5]))))
    except NotFinite as error:
        return str(error)
    return "nothing"


def leaky(directory: str) -> bool:
    """Whether a runner whose activation sees its batch calls itself exact."""
    options = DeviceOptions("fp32", block_tokens=BLOCK, kv_blocks=8, step_tokens=64, batches=BATCHES)
    honest = DeviceRunner._decode_body

    def spoiled(self: DeviceRunner, size: object) -> None:
        kernels = self._kernels
        leak = attrs.evolve(kernels, swiglu=lambda x: kernels.swiglu(x) * (1 + len(x) / 512))
        model, self._model = self._model, attrs.evolve(self._model, kernels=leak)
        try:
            honest(self, size)
        finally:
            self._model = model

    DeviceRunner._decode_body = spoiled
    try:
        return open_device_runner(Path(directory), DEVICE, options).exact
    finally:
        DeviceRunner._decode_body = honest


def leg(directory: str, dtype: str, emitted: Sequence[int], count: int) -> moves.Leg:
    """Serve the request of `moves` for some tokens."""
    return moves.serve(runner(directory, dtype), emitted, count)


def ran(directory: str, dtype: str, plans: Sequence[Plan]) -> list[tuple[Sampled, ...]]:
    """Run plans as they are."""
    return [runner(directory, dtype).run(plan) for plan in plans]
