"""RoPE's numbers for a model: frequencies and gains, and the order of a head's elements that fits the kernels.

The kernels turn the pairs (i, i + d/2) of a whole head. A model that turns only its first r elements, in pairs
(i, i + r/2), has the rows of its query and key projections put into another order when they are loaded: pairs
that turn first in each half, pairs that stay behind them, with frequency zero. A query's product with a key
does not depend on the order of the elements, and cos 0 = 1, sin 0 = 0 are exact, so nothing else changes.
"""

import math

import attrs
import torch
from torch import Tensor

from node.engine.rope_hf import LinearScaling, ListedScaling, Llama3Scaling, Rope, YarnScaling


@attrs.frozen(eq=False)
class Rotation:
    """How a model's heads turn with the position."""

    frequencies: Tensor
    """[d / 2] fp32, radians per position"""
    gains: Tensor | None
    """[d] fp32, what cosines and sines are multiplied by; none if all are one"""
    order: Tensor | None
    """[d] int64, where each element of a head comes from; none if the order stays"""

    def to(self, device: torch.device) -> "Rotation":
        """The same on a device; `order` is used on the host only."""
        gains = None if self.gains is None else self.gains.to(device)
        return attrs.evolve(self, frequencies=self.frequencies.to(device), gains=gains)


def rotation_of(rope: Rope, head_width: int) -> Rotation:
    """The numbers for heads of `head_width` elements."""
    half, turning = head_width // 2, rope.width // 2
    frequencies = torch.zeros(half)
    frequencies[:turning] = rope_frequencies(rope)
    gains = torch.ones(half)
    gains[:turning] = rope.gain
    return Rotation(
        frequencies,
        None if rope.gain == 1 else torch.cat((gains, gains)),
        None if turning == half else _order(rope.width, head_width),
    )


def _order(width: int, head_width: int) -> Tensor:
    first, second = torch.arange(width).chunk(2)
    still_first, still_second = torch.arange(width, head_width).chunk(2)
    return torch.cat((first, still_first, second, still_second))


def rope_frequencies(rope: Rope) -> Tensor:
    """RoPE's angle per position of each pair that turns, [width / 2] fp32, scaled as the model asks.

    In transformers' own fp32 arithmetic: one more exact bit here is an angle that drifts from the reference
    with the position.
    """
    periods = rope.theta ** (torch.arange(0, rope.width, 2).float() / rope.width)
    match rope.scaling:
        case None:
            return 1.0 / periods
        case LinearScaling(factor):
            return 1.0 / periods / factor
        case Llama3Scaling():
            return _llama3(1.0 / periods, rope.scaling)
        case YarnScaling():
            return _yarn(periods, rope, rope.scaling)
        case ListedScaling(divisors):
            return 1.0 / (torch.tensor(divisors) * periods)


def _llama3(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((scaling.original_positions / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(periods: Tensor, rope: Rope, scaling: YarnScaling) -> Tensor:
    """Pairs that turn often are kept, those that turn seldom stretched, with a ramp between (section 3.2)."""

    def pair(turns: float) -> float:
        """The pair, as a fraction, that turns so often within the original context."""
        length = scaling.original_positions / (turns * 2 * math.pi)
        return rope.width * math.log(length) / (2 * math.log(rope.theta))

    low, high = pair(scaling.fast), pair(scaling.slow)
    if scaling.whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.width - 1)
    high += 0.001 if low == high else 0
    kept = 1 - ((torch.arange(rope.width // 2).float() - low) / (high - low)).clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept
