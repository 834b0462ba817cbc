"""Write a model as the folder that `LlamaForCausalLM.from_pretrained` reads."""

import json
import os
import shutil
from pathlib import Path

import torch
from corpus import END
from model import Ember, Shape
from safetensors.torch import save_file
from tokenizers import Tokenizer

# The model completes; a conversation is to it no more than one text. A message's role is not shown to it.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def config(shape: Shape) -> dict:
    """Return `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.feed_forward,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": shape.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }


def tokenizer_config(shape: Shape) -> dict:
    """Return `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": shape.positions,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def generation_config() -> dict:
    """Return `generation_config.json`: mild sampling, which suits so small a model."""
    return {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.5, "top_p": 0.95}


def weights(model: Ember) -> dict[str, torch.Tensor]:
    """Return the tensors of `model.safetensors`, bf16; the tied head is not among them."""
    return {name: tensor.detach().bfloat16().contiguous() for name, tensor in model.state_dict().items()}


def write_json(path: Path, value: dict) -> None:
    """Write `value` for people to read."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(folder: Path, model: Ember, tokenizer: Tokenizer) -> None:
    """Write the folder, replacing what is there only when all of the new one is on disk."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write_json(fresh / "config.json", config(model.shape))
    write_json(fresh / "tokenizer_config.json", tokenizer_config(model.shape))
    write_json(fresh / "generation_config.json", generation_config())
    tokenizer.save(str(fresh / "tokenizer.json"))
    save_file(weights(model), fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)  # save_file leaves it to its owner alone
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
