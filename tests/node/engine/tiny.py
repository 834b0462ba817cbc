"""Random-weight checkpoints in Hugging Face format, a moment to write, and ways to run them."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from kernels.linear import supports
from node.engine.config_hf import shape_of
from node.engine.plan import Plan, Row, Sampling
from node.engine.runner import Runner
from node.engine.weights import expected_tensors

LLAMA: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 160,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
QWEN3 = LLAMA | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 48}
LONG = LLAMA | {"intermediate_size": 1500, "tie_word_embeddings": False, "num_attention_heads": 2}
"""A feed-forward wider than one slice of a linear, and multi-head attention."""

LOW = "bf16" if supports(torch.bfloat16) else "fp32"
"""What the runner makes of bf16 weights on this machine."""
GREEDY = Sampling(seed=0, temperature=0.0)


def tensors_of(config: dict[str, object], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights, bf16, large enough for peaked distributions."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_tensors(shape_of(config))
    return {name: _random(name, size, generator).bfloat16() for name, size in shapes.items()}


def _random(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(size, generator=generator)
    return (
        1 + 0.2 * values if "norm" in name else values * (0.3 if "embed" in name else 1.5 * size[-1] ** -0.5)
    )


def write(directory: Path, config: dict[str, object], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Write config.json and model.safetensors; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors if tensors is not None else tensors_of(config), directory / "model.safetensors")
    return directory


def load(directory: Path, dtype: str = "bf16", **options: object) -> Runner:
    """A runner with a small cache and short blocks, so that few tokens cross many of them."""
    return Runner(directory, dtype=dtype, **{"block_tokens": 32, "kv_blocks": 96, "threads": 1} | options)


def row(
    ids: Sequence[int],
    start: int = 0,
    sequence: int = 0,
    blocks: Sequence[int] = tuple(range(32)),
    sampling: Sampling = GREEDY,
    sample: bool = True,
    prompt: Sequence[int] = (),
    produced: Sequence[int] = (),
) -> Row:
    return Row(sequence, tuple(ids), start, tuple(blocks), sample, sampling, prompt, produced)


Chunks = Callable[[int], Iterable[int]]
"""Prompt length -> sizes of the chunks in which it is prefilled."""


def whole(length: int) -> Iterable[int]:
    return (length,)


def by(size: int) -> Chunks:
    return lambda length: (min(size, length - start) for start in range(0, length, size))


def generate(
    runner: Runner,
    prompt: Sequence[int],
    count: int,
    sampling: Sampling = GREEDY,
    produced: Sequence[int] = (),
    chunks: Chunks = whole,
    beside: Callable[[int], Sequence[Row]] = lambda step: (),
    sequence: int = 0,
    blocks: Sequence[int] = tuple(range(32)),
) -> list[int]:
    """Continue prompt + produced by `count` ids, with strangers' rows beside each step."""
    known, out = [*prompt, *produced], list(produced)
    start = 0
    sizes = list(chunks(len(known)))
    for step, size in enumerate([*sizes, *([1] * (count - 1))]):
        ends = start + size == len(known)
        mine = row(known[start : start + size], start, sequence, blocks, sampling, ends, prompt, tuple(out))
        others = list(beside(step))
        results = {s.sequence: s.id for s in runner.run(Plan((*others[::2], mine, *others[1::2])))}
        start += size
        if ends:
            out.append(results[sequence])
            known.append(results[sequence])
    return out[len(produced) :]
