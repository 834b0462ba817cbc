"""What eight bits cost on the embedded model: bits per byte, and divergence from bf16, each with a bound."""

import inspect
import math
import statistics
import textwrap
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from tokenizers import Tokenizer

import kernels
from node.engine.plan import Plan
from node.engine.runner import Runner
from tests.node.engine.tiny import row

EMBER = Path(__file__).parents[3] / "node" / "models" / "ember-py"
TEXTS = [inspect.getsource(module)[:5000] for module in (textwrap, statistics)]
BITS_PER_BYTE_MORE = 0.005
"""int8 may cost this much more than bf16, as a fraction. Measured: -0.0002."""
DIVERGENCE_NATS = 0.04
"""Mean of KL(bf16 || int8) per token. Measured 0.024 from fp32, of which bf16 itself is 0.005 away."""


def log_probabilities(runner: Runner) -> list[tuple[torch.Tensor, list[int], int]]:
    """For each text: [tokens, vocabulary] after each token, its ids, and its bytes."""
    tokenizer, found = Tokenizer.from_file(str(EMBER / "tokenizer.json")), []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids[: runner.context_max]
        rows = [row(ids, blocks=range(-(-len(ids) // runner.block_tokens)))]
        runner.logits(Plan(tuple(rows)))  # clears the blocks
        with torch.inference_mode():
            hidden = runner._model.forward(runner._step(rows), runner._pages)
            logits = runner._model.logits(hidden)
        found.append((logits.double().log_softmax(-1), ids, len(tokenizer.decode(ids).encode())))
    return found


def bits_per_byte(found: list[tuple[torch.Tensor, list[int], int]]) -> float:
    nats = sum(-float(logs[range(len(ids) - 1), ids[1:]].sum()) for logs, ids, _ in found)
    return nats / math.log(2) / sum(size for _, _, size in found)


def divergence(
    from_: list[tuple[torch.Tensor, list[int], int]], to: list[tuple[torch.Tensor, list[int], int]]
):
    pairs = [(p, q) for (p, _, _), (q, _, _) in zip(from_, to, strict=True)]
    return sum(float((p.exp() * (p - q)).sum()) for p, q in pairs) / sum(len(p) for p, _ in pairs)


def load(dtype: str) -> Runner:
    return Runner(EMBER, dtype=dtype, threads=1, kv_blocks=8)


@pytest.fixture(scope="module")
def wide() -> list[tuple[torch.Tensor, list[int], int]]:
    return log_probabilities(load("bf16"))


def test_eight_bits_cost_next_to_nothing(wide: list[tuple[torch.Tensor, list[int], int]]):
    narrow = log_probabilities(load("int8"))
    assert bits_per_byte(narrow) <= bits_per_byte(wide) * (1 + BITS_PER_BYTE_MORE)
    assert 0 < divergence(wide, narrow) <= DIVERGENCE_NATS


def test_the_bounds_object_to_four_bits(
    wide: list[tuple[torch.Tensor, list[int], int]], monkeypatch: pytest.MonkeyPatch
):
    honest: Callable[..., kernels.Kernels] = kernels.select

    def coarse(weight: torch.Tensor) -> torch.Tensor:
        step = weight.float().abs().amax(-1, keepdim=True) / 7
        return ((weight / step).round() * step).to(weight.dtype)

    def select(*arguments: object) -> kernels.Kernels:
        chosen = honest(*arguments)
        return attrs.evolve(
            chosen,
            joins=False,
            pack_linear=lambda weight, bias=None: chosen.pack_linear(coarse(weight), bias),
        )

    monkeypatch.setattr(kernels, "select", select)
    narrow = log_probabilities(load("int8"))
    assert bits_per_byte(narrow) > bits_per_byte(wide) * (1 + BITS_PER_BYTE_MORE)
    assert divergence(wide, narrow) > DIVERGENCE_NATS
