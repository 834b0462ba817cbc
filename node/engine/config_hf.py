"""A model's shape, read from a Hugging Face `config.json`.

Invariant: what this file cannot run faithfully it refuses by the name of the setting. A configuration that is
silently half understood would produce fluent nonsense.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import attrs

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Read, run and compared with transformers by tests/node/engine/test_parity.py."""

LAYERS_MAX = 1024
"""Eight times as many as the deepest model of the family (Llama 3.1 405B has 126): a bound on what a
damaged file can make us try to build."""


class ModelError(Exception):
    """A model directory that cannot be run. The message is one line; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


@attrs.frozen
class Llama3Scaling:
    """Llama 3.1's stretching of low frequencies (arXiv 2407.21783, section 3.4.2; `rope_type` "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@attrs.frozen
class Shape:
    """One decoder of the Llama family, as data."""

    architecture: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    norm_eps: float
    rope_theta: float
    context_max: int
    tied: bool
    """Whether the embedding is the output head too."""
    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    """Whether each query and key head is RMS-normalised before RoPE (Qwen3)."""
    dtype: str
    """The dtype in which the weights were published: `bfloat16`, `float16` or `float32`."""
    scaling: Llama3Scaling | None = None
    end_ids: tuple[int, ...] = ()
    """Token ids that end a text, as far as config.json says."""


def read_config(directory: Path) -> dict[str, object]:
    """The parsed `config.json` of a model directory, or a `ModelError` if there is none to parse."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"`{directory}` is no model: it has no config.json",
            "name a directory in Hugging Face format (config.json, *.safetensors, tokenizer.json)",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", "download it again") from None
    if not isinstance(config, dict):
        raise ModelError(f"`{path}` is not a JSON object", "download it again")
    return config


def shape_of(config: Mapping[str, object]) -> Shape:
    """Turn a parsed config.json into a `Shape`; `ModelError` names what is missing or not supported."""
    architecture = _architecture(config)
    rope = _rope(config)
    _refuse_unsupported(config, rope)
    heads, width = _integer(config, "num_attention_heads"), _integer(config, "hidden_size")
    qwen2 = architecture == "Qwen2ForCausalLM"
    bias = bool(config.get("attention_bias", False)) and not qwen2
    shape = Shape(
        architecture=architecture,
        vocabulary=_integer(config, "vocab_size"),
        width=width,
        layers=_integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", heads),
        head_width=_integer(config, "head_dim", width // heads),
        feed_forward=_integer(config, "intermediate_size"),
        norm_eps=_number(config, "rms_norm_eps", 1e-6),
        rope_theta=_number(rope, "rope_theta", 10_000.0),
        context_max=_integer(config, "max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bias or qwen2,
        o_bias=bias,
        qk_norm=architecture == "Qwen3ForCausalLM",
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        scaling=_scaling(rope),
        end_ids=_end_ids(config.get("eos_token_id")),
    )
    _check_sizes(shape)
    return shape


def _architecture(config: Mapping[str, object]) -> str:
    names = config.get("architectures") or ["none named"]
    name = names[0] if isinstance(names, list) else names
    if name not in ARCHITECTURES:
        raise ModelError(
            f"architecture `{name}` is not supported",
            f"supported are {', '.join(ARCHITECTURES)}",
        )
    return str(name)


def _rope(config: Mapping[str, object]) -> dict[str, object]:
    """RoPE's settings: `rope_parameters` (transformers 5), or `rope_scaling` beside `rope_theta`."""
    settings: dict[str, object] = {"rope_theta": config.get("rope_theta", 10_000.0)}
    for name in ("rope_scaling", "rope_parameters"):
        found = config.get(name)
        if isinstance(found, dict):
            settings.update(found)
    return settings


def _scaling(rope: Mapping[str, object]) -> Llama3Scaling | None:
    if _rope_type(rope) == "default":
        return None
    return Llama3Scaling(
        factor=_number(rope, "factor"),
        low_freq_factor=_number(rope, "low_freq_factor"),
        high_freq_factor=_number(rope, "high_freq_factor"),
        original_positions=_integer(rope, "original_max_position_embeddings"),
    )


def _rope_type(rope: Mapping[str, object]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _refuse_unsupported(config: Mapping[str, object], rope: Mapping[str, object]) -> None:
    """Settings that change the arithmetic in ways that this engine does not compute."""
    expected = {
        "hidden_act": (config.get("hidden_act", "silu"), ("silu", "swish")),
        "rope_type": (_rope_type(rope), ("default", "llama3")),
        "partial_rotary_factor": (
            rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)),
            (1.0,),
        ),
        "use_sliding_window": (bool(config.get("use_sliding_window", False)), (False,)),
        "mlp_bias": (bool(config.get("mlp_bias", False)), (False,)),
        "quantization_config": (config.get("quantization_config"), (None,)),
    }
    for name, (value, supported) in expected.items():
        if value not in supported:
            raise ModelError(
                f"config.json sets `{name}` to `{value}`, which this engine does not compute",
                f"it runs {' or '.join(f'`{one}`' for one in supported)}; serve this model by an upstream engine",
            )


def _check_sizes(shape: Shape) -> None:
    """Bounds, and relations between sizes without which the tensors cannot be cut into heads."""
    if shape.layers > LAYERS_MAX:
        raise _broken("num_hidden_layers", shape.layers, f"at most {LAYERS_MAX}")
    if shape.heads % shape.kv_heads:
        raise ModelError(
            f"`num_attention_heads` {shape.heads} is no multiple of `num_key_value_heads` {shape.kv_heads}",
            "the config.json is damaged; download it again",
        )
    if shape.head_width % 2:
        raise ModelError(
            f"`head_dim` {shape.head_width} is odd", "RoPE turns pairs; download config.json again"
        )


def _end_ids(value: object) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) is int for one in ids):
        raise _broken("eos_token_id", value, "a token id or a list of them")
    return tuple(ids)


def _integer(config: Mapping[str, object], name: str, default: int | None = None) -> int:
    """A positive integer setting."""
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise _broken(name, value, "a positive integer")
    return value


def _number(config: Mapping[str, object], name: str, default: float | None = None) -> float:
    """A positive finite number."""
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise _broken(name, value, "a positive number")
    return float(value)


def _broken(name: str, value: object, expected: str) -> ModelError:
    if value is None:
        return ModelError(f"config.json lacks `{name}`", f"it must be {expected}; download config.json again")
    return ModelError(
        f"config.json sets `{name}` to `{value}`", f"it must be {expected}; download config.json again"
    )
