"""Models of published shapes with random weights, made on the device: speed does not depend on their values."""

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from node.engine.config_hf import Shape, shape_of
from node.engine.device_runner import DeviceOptions, DeviceRunner
from node.engine.weights import expected_tensors

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 131_072,
    "torch_dtype": "bfloat16",
}
CONFIGS: Mapping[str, dict[str, object]] = {
    "1B": _LLAMA
    | {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True,
    },
    "8B": _LLAMA
    | {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 14_336, "vocab_size": 128_256, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Llama 3.2 1B and Llama 3.1 8B, without the stretching of RoPE, which costs nothing."""
TINY = _LLAMA | {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "intermediate_size": 128, "vocab_size": 200, "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}  # fmt: skip
"""What stands for both in a dry run."""


@attrs.frozen
class RandomWeights:
    """A checkpoint that is drawn as it is read: norms of one, the rest small."""

    shape: Shape
    device: torch.device

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor of the model's."""
        size = expected_tensors(self.shape)[name]
        out = torch.empty(size, dtype=dtype, device=self.device)
        return out.fill_(1.0) if "norm" in name else out.normal_(0.0, 0.02)


def config_of(name: str, dry: bool) -> dict[str, object]:
    """The config.json of a model, or the tiny one."""
    return TINY if dry else CONFIGS[name]


def runner_of(name: str, dtype: str, device: torch.device, dry: bool, tokens: int) -> DeviceRunner:
    """A runner with room for so many tokens, its cache zeroed, so that any context may be claimed."""
    shape = shape_of(config_of(name, dry))
    options = DeviceOptions("fp32" if dry else dtype, kv_blocks=-(-tokens // 64) + 4, step_tokens=8192)
    if dry:
        options = attrs.evolve(options, step_tokens=64, batches=(1, 2))
    runner = DeviceRunner(shape, RandomWeights(shape, device), "random", device, options)
    runner._cache.zero_()
    return runner
