"""A model's shape, read from a Hugging Face `config.json`.

Invariant: what this file cannot run faithfully it refuses by the name of the setting. A configuration that is
silently half understood would produce fluent nonsense.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from node.engine.family import FAMILIES
from node.engine.rope_hf import Rope, rope_of
from node.engine.setting import ModelError, broken, integer, number, unsupported

__all__ = ["LAYERS_MAX", "ModelError", "Shape", "read_config", "shape_of"]

PARAMETERS_MAX = 1 << 44
"""Some ten times the largest model there is: sizes are multiplied without fear of what a file says."""
CONFIG_BYTES_MAX = 1 << 20
"""A config.json is some kilobytes; longer ones are not parsed."""

LAYERS_MAX = 1024
"""Eight times as many as the deepest model of the family (Llama 3.1 405B has 126): a bound on what a
damaged file can make us try to build."""


@attrs.frozen
class Shape:
    """One decoder of the Llama family and its relatives, as data."""

    architecture: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    norm_eps: float
    rope: Rope
    context_max: int
    tied: bool
    """Whether the embedding is the output head too."""
    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    """Whether each query and key head is RMS-normalised before RoPE (Qwen3)."""
    dtype: str
    """The dtype in which the weights were published: `bfloat16`, `float16` or `float32`."""
    mlp_bias: bool
    fused: bool
    """Whether the checkpoint holds queries, keys and values in one tensor, gate and up in another (Phi-3)."""
    windows: tuple[int, ...]
    """How far each layer looks back, in tokens, its own included; 0 is all."""
    turns: tuple[bool, ...]
    """Whether each layer's heads turn with the position (SmolLM3 has layers that do not)."""
    end_ids: tuple[int, ...] = ()
    """Token ids that end a text, as far as config.json says."""


def read_config(directory: Path) -> dict[str, object]:
    """The parsed `config.json` of a model directory, or a `ModelError` if there is none to parse."""
    path = directory / "config.json"
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ModelError(
                f"`{path}` has {path.stat().st_size:,} bytes, more than {CONFIG_BYTES_MAX:,}",
                "this is no model's configuration; download it again",
            )
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"`{directory}` is no model: it has no config.json",
            "name a directory in Hugging Face format (config.json, *.safetensors, tokenizer.json)",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", "download it again") from None
    if not isinstance(config, dict):
        raise ModelError(f"`{path}` is not a JSON object", "download it again")
    return config


def shape_of(config: Mapping[str, object]) -> Shape:
    """Turn a parsed config.json into a `Shape`; `ModelError` names what is missing or not supported."""
    architecture = _architecture(config)
    family = FAMILIES[architecture]
    _refuse_unsupported(config)
    heads, width, layers = (integer(config, name) for name in SIZES)
    if layers > LAYERS_MAX:
        raise broken("num_hidden_layers", layers, f"at most {LAYERS_MAX}")
    head_width = integer(config, "head_dim", width // heads)
    positions = integer(config, "max_position_embeddings")
    rope = rope_of(config, head_width, positions)
    bias = family.attention_bias and bool(config.get("attention_bias", False))
    shape = Shape(
        architecture=architecture,
        vocabulary=integer(config, "vocab_size"),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=integer(config, "num_key_value_heads", heads),
        head_width=head_width,
        feed_forward=integer(config, "intermediate_size"),
        norm_eps=number(config, "rms_norm_eps", 1e-6),
        rope=rope,
        context_max=min(positions, rope.positions_max or positions),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bias or family.qkv_bias,
        o_bias=bias,
        qk_norm=family.qk_norm,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        mlp_bias=family.mlp_bias and bool(config.get("mlp_bias", False)),
        fused=family.fused,
        windows=tuple(0 if w >= positions else w for w in family.windows(config, layers)),
        turns=family.turns(config, layers),
        end_ids=_end_ids(config.get("eos_token_id")),
    )
    _check_sizes(shape)
    return shape


SIZES = ("num_attention_heads", "hidden_size", "num_hidden_layers")


def _architecture(config: Mapping[str, object]) -> str:
    names = config.get("architectures") or ["none named"]
    name = names[0] if isinstance(names, list) else names
    if not isinstance(name, str) or name not in FAMILIES:
        raise ModelError(
            f"architecture `{str(name)[:100]}` is not supported",
            f"supported are {', '.join(FAMILIES)}",
        )
    return name


def _refuse_unsupported(config: Mapping[str, object]) -> None:
    """Settings that change the arithmetic in ways that this engine does not compute."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise unsupported("hidden_act", config["hidden_act"], ("silu", "swish"))
    if config.get("quantization_config") is not None:
        raise unsupported("quantization_config", config["quantization_config"], (None,))


def _check_sizes(shape: Shape) -> None:
    """Bounds, and relations between sizes without which the tensors cannot be cut into heads."""
    if shape.heads % shape.kv_heads:
        raise ModelError(
            f"`num_attention_heads` {shape.heads} is no multiple of `num_key_value_heads` {shape.kv_heads}",
            "the config.json is damaged; download it again",
        )
    if shape.head_width % 2:
        raise ModelError(
            f"`head_dim` {shape.head_width} is odd", "RoPE turns pairs; download config.json again"
        )
    parameters = shape.vocabulary * shape.width + shape.layers * shape.width * shape.feed_forward
    if max(parameters, shape.heads * shape.head_width * shape.width) > PARAMETERS_MAX:
        raise ModelError(
            f"config.json describes more than {PARAMETERS_MAX:,} parameters", "download config.json again"
        )


def _end_ids(value: object) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) is int for one in ids):
        raise broken("eos_token_id", value, "a token id or a list of them")
    return tuple(ids)
