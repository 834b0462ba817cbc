"""What the bench computes with: one 1B shape with random weights, as safetensors and as GGUF, and llama.cpp.

Kept in `~/.cache/inferno/bench`, about 4 GB, made at the first run. The GGUF holds Q8_0 blocks of random bytes:
for speed it does not matter which.
"""

import json
import math
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from kernels.native import cache_directory, private
from node.engine.config_hf import shape_of
from node.engine.weights import expected_tensors

DIRECTORY = cache_directory() / "bench"
CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
"""Llama 3.2 1B's shape."""
READ_PER_TOKEN = 1_235_746_816
"""Weights that one decoded token reads: all linears and the tied head."""
PACKAGES = ("node-llama-cpp@3.22.1", "@node-llama-cpp/linux-x64@3.22.1")
"""llama.cpp built for each kind of processor; none is compiled here."""
BLOCK = 32
"""Weights per block of Q8_0."""
Q8_0, F32 = 8, 0


class MaterialError(Exception):
    """Something that the bench needs cannot be had here; says what."""


def model() -> Path:
    """The directory of the bf16 checkpoint, made if need be."""
    directory = DIRECTORY / "1b"
    if not (directory / "model.safetensors").exists():
        private(DIRECTORY)
        directory.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        tensors = {name: _random(name, size, generator) for name, size in shapes().items()}
        save_file(tensors, directory / "partial.safetensors")
        (directory / "config.json").write_text(json.dumps(CONFIG))
        (directory / "partial.safetensors").rename(directory / "model.safetensors")
    return directory


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the checkpoint's tensors."""
    return expected_tensors(shape_of(CONFIG))


def _random(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    return (torch.randn(size, generator=generator) * size[-1] ** -0.5).bfloat16()


def gguf() -> Path:
    """The same shape for llama.cpp, in Q8_0."""
    file = DIRECTORY / "1b-q8_0.gguf"
    if not file.exists():
        private(DIRECTORY)
        write_gguf(file.with_suffix(".partial"), CONFIG, shapes())
        file.with_suffix(".partial").rename(file)
    return file


def write_gguf(file: Path, config: dict[str, object], tensors: dict[str, tuple[int, ...]]) -> None:
    """Write a GGUF file, version 3 (ggml-org/ggml, docs/gguf.md): header, metadata, tensor table, data at 32s."""
    metadata = dict(_metadata(config))
    table, data, offset = [], [], 0
    for name, size in _gguf_names(tensors).items():
        kind = F32 if len(size) == 1 else Q8_0
        length = 4 * size[0] if kind == F32 else math.prod(size) // BLOCK * (BLOCK + 2)
        table.append(
            _text(name)
            + struct.pack(f"<I{len(size)}Q", len(size), *reversed(size))
            + struct.pack("<IQ", kind, offset)
        )
        data.append((kind, length))
        offset += -(-length // 32) * 32
    with file.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(metadata)))
        stream.writelines(_text(key) + value for key, value in metadata.items())
        stream.writelines(table)
        stream.write(bytes(-stream.tell() % 32))
        for kind, length in data:
            stream.write(_ones(length) if kind == F32 else _blocks(length))
            stream.write(bytes(-length % 32))


def _gguf_names(tensors: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {_gguf_name(name): size for name, size in tensors.items()}


def _gguf_name(name: str) -> str:
    """Hugging Face's name of a tensor as llama.cpp calls it."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *rest = name.split(".")
    words = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    return f"blk.{layer}.{words[rest[-2]]}.weight"


def _metadata(config: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    vocabulary = int(str(config["vocab_size"]))
    yield "general.architecture", _string("llama")
    yield "general.name", _string("bench")
    for key, name in {
        "max_position_embeddings": "context_length",
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "rope.dimension_count",
        "vocab_size": "vocab_size",
    }.items():
        yield f"llama.{name}", struct.pack("<II", 4, int(str(config[key])))
    yield "llama.attention.layer_norm_rms_epsilon", struct.pack("<If", 6, 1e-5)
    yield "llama.rope.freq_base", struct.pack("<If", 6, float(str(config["rope_theta"])))
    yield "general.file_type", struct.pack("<II", 4, 7)
    yield "tokenizer.ggml.model", _string("llama")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*special, *(f"w{number}" for number in range(vocabulary - len(special)))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (vocabulary - len(special))]
    yield "tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, vocabulary) + b"".join(map(_text, words))
    scores = struct.pack(f"<IIQ{vocabulary}f", 9, 6, vocabulary, *[0.0] * vocabulary)
    yield "tokenizer.ggml.scores", scores
    yield "tokenizer.ggml.token_type", struct.pack(f"<IIQ{vocabulary}i", 9, 5, vocabulary, *kinds)
    for name, token in {"bos": 1, "eos": 2, "unknown": 0}.items():
        yield f"tokenizer.ggml.{name}_token_id", struct.pack("<II", 4, token)


def _text(word: str) -> bytes:
    return struct.pack("<Q", len(word.encode())) + word.encode()


def _string(word: str) -> bytes:
    return struct.pack("<I", 8) + _text(word)


def _ones(length: int) -> bytes:
    return struct.pack("<f", 1.0) * (length // 4)


def _blocks(length: int) -> bytes:
    """Random bytes under a scale that gives weights of about a 45th."""
    blocks = torch.randint(0, 256, (length // (BLOCK + 2), BLOCK + 2), dtype=torch.uint8)
    scale = torch.tensor([3e-4], dtype=torch.float16).view(torch.uint8)
    blocks[:, :2] = scale
    return blocks.numpy().tobytes()


def llama_cpp() -> Path:
    """The folder in which `node llama.mjs` finds llama.cpp, installed through npm if need be."""
    directory = DIRECTORY / "llama"
    if (directory / "installed").exists():
        return directory
    missing = [word for word in ("node", "npm") if shutil.which(word) is None]
    if missing:
        raise MaterialError(f"`{missing[0]}` is missing: install Node.js 20 or later with npm")
    private(DIRECTORY)
    directory.mkdir(exist_ok=True)
    words = ["npm", "install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", *PACKAGES]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MaterialError(f"npm could not install {PACKAGES[0]}: {done.stderr.strip()[-300:]}")
    (directory / "installed").touch()
    return directory
