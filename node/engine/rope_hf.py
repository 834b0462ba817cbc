"""A model's rotary positions, read from its config.json: what turns, how fast, and how it is stretched.

Invariant: an angle is a function of its position alone. Stretchings that look at the length of the text
(`dynamic`) would turn the keys of a cache again with every token, and are refused.
"""

import math
from collections.abc import Mapping

import attrs

from node.engine.setting import broken, integer, number, numbers, unsupported


@attrs.frozen
class LinearScaling:
    """All frequencies divided by `factor` (position interpolation, arXiv 2306.15595)."""

    factor: float


@attrs.frozen
class Llama3Scaling:
    """Llama 3.1's stretching of low frequencies (arXiv 2407.21783, section 3.4.2; `rope_type` "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@attrs.frozen
class YarnScaling:
    """Frequencies interpolated by how often they turn within the original context (YaRN, arXiv 2309.00071)."""

    factor: float
    fast: float
    """Pairs that turn more often than this are kept."""
    slow: float
    """Pairs that turn less often than this are divided by `factor`."""
    original_positions: int
    whole: bool
    """Whether the bounds of the ramp are rounded to whole pairs."""


@attrs.frozen
class ListedScaling:
    """A divisor for each pair (LongRoPE, arXiv 2402.13753): those for texts within the original context."""

    divisors: tuple[float, ...]


Scaling = LinearScaling | Llama3Scaling | YarnScaling | ListedScaling


@attrs.frozen
class Rope:
    """Rotary position embedding as data."""

    theta: float
    width: int
    """Elements of a head that turn, from its first; the others stay as they are. Even."""
    gain: float = 1.0
    """What cosines and sines are multiplied by."""
    scaling: Scaling | None = None
    positions_max: int = 0
    """Positions for which these frequencies are right, if fewer than the model's; 0 is all."""


KINDS = ("default", "linear", "llama3", "yarn", "longrope")


def rope_of(config: Mapping[str, object], head_width: int, positions: int) -> Rope:
    """Read RoPE from a parsed config.json. head_width: elements; positions: the model's longest text.

    `ModelError` names a setting that is broken or that cannot be computed.
    """
    settings = _settings(config)
    kind = _kind(config, settings)
    if kind not in KINDS:
        raise unsupported("rope_type", kind, KINDS)
    factor = number(settings, "partial_rotary_factor", 1.0)
    width = int(head_width * factor)
    if factor > 1 or width < 2 or width % 2:
        raise broken("partial_rotary_factor", factor, f"a share of `head_dim` {head_width} that is even")
    plain = Rope(number(settings, "rope_theta", 10_000.0), width)
    if kind == "default":
        return plain
    return READERS[kind](plain, settings, positions)


def _settings(config: Mapping[str, object]) -> dict[str, object]:
    """`rope_parameters` (transformers 5), or `rope_scaling` and its companions beside it."""
    outside = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    settings = {name: config[name] for name in outside if config.get(name) is not None}
    for name in ("rope_scaling", "rope_parameters"):
        found = config.get(name)
        if isinstance(found, dict):
            settings.update(found)
        elif found is not None:
            raise broken(name, found, "an object, or null")
    return settings


def _kind(config: Mapping[str, object], settings: Mapping[str, object]) -> str:
    kind = str(settings.get("rope_type") or settings.get("type") or "default")
    if kind == "su" or (kind == "yarn" and config.get("model_type") == "phi3"):
        return "longrope"  # as early Phi-3 files spell it
    return kind


def _linear(plain: Rope, settings: Mapping[str, object], _positions: int) -> Rope:
    return attrs.evolve(plain, scaling=LinearScaling(number(settings, "factor")))


def _llama3(plain: Rope, settings: Mapping[str, object], _positions: int) -> Rope:
    scaling = Llama3Scaling(
        factor=number(settings, "factor"),
        low_freq_factor=number(settings, "low_freq_factor"),
        high_freq_factor=number(settings, "high_freq_factor"),
        original_positions=integer(settings, "original_max_position_embeddings"),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise broken("high_freq_factor", scaling.high_freq_factor, "above `low_freq_factor`")
    return attrs.evolve(plain, scaling=scaling)


def _yarn(plain: Rope, settings: Mapping[str, object], positions: int) -> Rope:
    original = integer(settings, "original_max_position_embeddings")
    factor = number(settings, "factor", positions / original)
    if plain.theta <= 1:
        raise broken("rope_theta", plain.theta, "above 1")
    scaling = YarnScaling(
        factor=factor,
        fast=number(settings, "beta_fast", 32.0),
        slow=number(settings, "beta_slow", 1.0),
        original_positions=original,
        whole=bool(settings.get("truncate", True)),
    )
    gain = number(settings, "attention_factor", _yarn_gain(settings, factor))
    return attrs.evolve(plain, scaling=scaling, gain=gain)


def _yarn_gain(settings: Mapping[str, object], factor: float) -> float:
    """YaRN's softening of the scores, section 3.4; with DeepSeek's two scales where both are set."""
    scales = [settings.get(name) for name in ("mscale", "mscale_all_dim")]
    if not all(scales):
        return _softened(factor, 1.0)
    above, below = (number(settings, name) for name in ("mscale", "mscale_all_dim"))
    return _softened(factor, above) / _softened(factor, below)


def _softened(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _listed(plain: Rope, settings: Mapping[str, object], positions: int) -> Rope:
    """The divisors for short texts. Those for long ones would turn a short text's cached keys anew, so the
    model is served up to its original context, where transformers uses these too.
    """
    original = integer(settings, "original_max_position_embeddings", positions)
    if original < 2:
        raise broken("original_max_position_embeddings", original, "at least 2")
    factor = number(settings, "factor", positions / original)
    gain = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return attrs.evolve(
        plain,
        scaling=ListedScaling(numbers(settings, "short_factor", plain.width // 2)),
        gain=number(settings, "attention_factor", gain),
        positions_max=original,
    )


READERS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _listed}
