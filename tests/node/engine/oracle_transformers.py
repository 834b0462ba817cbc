"""What transformers says of random checkpoints. Run as a program: `python oracle_transformers.py DIRECTORY`.

Its own process, because transformers takes any importable `kernels` for the Hugging Face package of that name.
For each case it leaves fp32/ and bf16/ (checkpoints with one set of weights, rounded to bf16) and answers.safetensors.
"""

import sys

sys.modules["kernels"] = None  # to transformers: not installed

from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

POSITIONS, PROMPT, GENERATED = 512, 40, 256
SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 352,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,
    "eos_token_id": None,
    "bos_token_id": None,
    "attn_implementation": "sdpa",
}
PADLESS = {"pad_token_id": None}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 50_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 20_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 128,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0 + 0.1 * pair for pair in range(12)],
    "long_factor": [2.0 + pair for pair in range(12)],
    "original_max_position_embeddings": 768,
}
CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3, attention_bias=True)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=48, tie_word_embeddings=True)),
    "linear": (
        LlamaForCausalLM,
        LlamaConfig(
            **SIZES,
            mlp_bias=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
        ),
    ),
    "yarn": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32, rope_parameters=YARN)),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=32, sliding_window=100)),
    "qwen2 sliding": (
        Qwen2ForCausalLM,
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=70, max_window_layers=1),
    ),
    "phi3": (Phi3ForCausalLM, Phi3Config(**SIZES | PADLESS, sliding_window=300)),
    "phi3 longrope": (
        Phi3ForCausalLM,
        Phi3Config(**SIZES | PADLESS, rope_parameters=LONG, original_max_position_embeddings=768),
    ),
    "smollm3": (
        SmolLM3ForCausalLM,
        SmolLM3Config(
            **SIZES | PADLESS, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=60
        ),
    ),
}


def answer(name: str, directory: Path) -> None:
    make, config = CASES[name]
    torch.manual_seed(len(name))
    model = make(config).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or "norm" in key:
            parameter.add_(torch.randn_like(parameter) * 0.2)
        parameter.copy_(parameter.bfloat16())  # not model.bfloat16(): that would round RoPE's frequencies too
    model.save_pretrained(directory / "fp32")
    make.from_pretrained(directory / "fp32", dtype=torch.bfloat16).save_pretrained(directory / "bf16")
    low = make.from_pretrained(directory / "bf16", dtype=torch.bfloat16).eval()
    ids = torch.randint(0, config.vocab_size, (1, POSITIONS))
    answers = {
        "ids": ids[0],
        "fp32": model(ids).logits[0],
        "bf16": low(ids).logits[0].float(),
        "states": model.model(ids).last_hidden_state[0],
        "greedy": greedy(model, ids[:, :PROMPT]),
    }
    save_file({key: value.contiguous() for key, value in answers.items()}, directory / "answers.safetensors")


def greedy(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """GENERATED ids after a prompt, one at a time with transformers' own cache."""
    step, cache, out = ids, None, []
    for _ in range(GENERATED):
        result = model(step, past_key_values=cache, use_cache=True)
        step, cache = result.logits[:, -1:].argmax(-1), result.past_key_values
        out.append(int(step))
    return torch.tensor(out)


if __name__ == "__main__":
    with torch.no_grad():
        for case in CASES:
            answer(case, Path(sys.argv[1]) / case)
