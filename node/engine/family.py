"""The families of decoders that are run, as data: where they differ from Llama.

A row here, a case in tests/node/engine/oracle_transformers.py, and a family is in. What needs arithmetic of its
own (Gemma's norms of both sides, mixtures of experts) is a field of `Shape` first, a branch in `model.py` second.
"""

from collections.abc import Callable, Mapping

import attrs

from node.engine.setting import broken, integer

Config = Mapping[str, object]


@attrs.frozen
class Family:
    """What an architecture's config.json leaves unsaid."""

    qkv_bias: bool = False
    """Whether queries, keys and values always have a bias (Qwen2)."""
    attention_bias: bool = True
    """Whether the setting `attention_bias` counts."""
    mlp_bias: bool = False
    """Whether the setting `mlp_bias` counts."""
    qk_norm: bool = False
    """Whether query and key heads are normalised (Qwen3)."""
    fused: bool = False
    """Whether the checkpoint holds `qkv_proj` and `gate_up_proj` as one tensor each (Phi-3)."""
    windows: Callable[[Config, int], tuple[int, ...]] = lambda _config, layers: (0,) * layers
    """(config, layers) -> how far each layer looks back, in tokens; 0 is all."""
    turns: Callable[[Config, int], tuple[bool, ...]] = lambda _config, layers: (True,) * layers
    """(config, layers) -> whether each layer's heads turn with the position."""


def everywhere(config: Config, layers: int) -> tuple[int, ...]:
    """`sliding_window` in every layer; without one, none (arXiv 2310.06825, section 2)."""
    window = config.get("sliding_window")
    return (0 if window is None else integer(config, "sliding_window"),) * layers


def above(config: Config, layers: int) -> tuple[int, ...]:
    """`sliding_window` in the layers from `max_window_layers` on, if `use_sliding_window` says so (Qwen)."""
    if not _slides(config):
        return (0,) * layers
    first = config.get("max_window_layers", 28)
    if type(first) is not int:
        raise broken("max_window_layers", first, "a number of layers")
    return _by_types(config, layers) or _windowed(config, [layer >= first for layer in range(layers)])


def unturned(config: Config, layers: int) -> tuple[int, ...]:
    """`sliding_window` in the layers that do not turn, if `use_sliding_window` says so (SmolLM3)."""
    if not _slides(config):
        return (0,) * layers
    return _by_types(config, layers) or _windowed(config, [not turn for turn in listed(config, layers)])


def _slides(config: Config) -> bool:
    return bool(config.get("use_sliding_window", False)) and config.get("sliding_window") is not None


def _by_types(config: Config, layers: int) -> tuple[int, ...]:
    """`sliding_window` where `layer_types` names it; () if the setting is not there."""
    types = config.get("layer_types")
    if types is None:
        return ()
    known = ("full_attention", "sliding_attention")
    if not isinstance(types, list) or len(types) != layers or not all(one in known for one in types):
        raise broken("layer_types", types, f"{layers} of {' and '.join(known)}")
    return _windowed(config, [one == "sliding_attention" for one in types])


def _windowed(config: Config, layers: list[bool]) -> tuple[int, ...]:
    window = integer(config, "sliding_window")
    return tuple(window if slides else 0 for slides in layers)


def listed(config: Config, layers: int) -> tuple[bool, ...]:
    """`no_rope_layers` (1 turns, 0 does not), or each but every `no_rope_layer_interval`th (SmolLM3)."""
    given = config.get("no_rope_layers")
    if given is None:
        interval = integer(config, "no_rope_layer_interval", 4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if not isinstance(given, list) or len(given) != layers or not all(one in (0, 1) for one in given):
        raise broken("no_rope_layers", given, f"{layers} of 0 and 1")
    return tuple(bool(one) for one in given)


FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family(mlp_bias=True),
    "MistralForCausalLM": Family(attention_bias=False, windows=everywhere),
    "Qwen2ForCausalLM": Family(qkv_bias=True, attention_bias=False, windows=above),
    "Qwen3ForCausalLM": Family(qk_norm=True, windows=above),
    "Phi3ForCausalLM": Family(attention_bias=False, fused=True, windows=everywhere),
    "SmolLM3ForCausalLM": Family(mlp_bias=True, windows=unturned, turns=listed),
}
"""By the name in config.json's `architectures`; each is compared with transformers by
tests/node/engine/test_model_parity.py. SmolLM and SmolLM2 say `LlamaForCausalLM`."""
