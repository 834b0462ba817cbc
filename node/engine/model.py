"""One transformer of the Llama family, described by a `Shape`, running through a `Kernels` record.

The step's rows are all sequences' tokens, concatenated: linears and norms see [rows, ...] and know nothing of
sequences; attention walks each sequence's pages by a plan made once per step. Nothing here keeps state: the
key and value cache is an argument.
"""

import math
from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from kernels import Kernels, Linear
from node.engine.config_hf import Llama3Scaling, Shape
from node.engine.weights import Weights


@attrs.frozen(eq=False)
class Layer:
    """One decoder layer's weights; projections that read the same input are fused."""

    input_norm: Tensor
    qkv: Linear
    q_norm: Tensor | None
    """[heads + kv_heads, head_width]: Qwen3's norms of query and key heads, one row per head."""
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear


@attrs.frozen(eq=False)
class Step:
    """The tensors of one plan. Rows of one-token spans stand first."""

    ids: Tensor
    """[rows] int64"""
    positions: Tensor
    """[rows] int64, absolute"""
    page: Tensor
    """[rows] int64: the block that receives the row's key and value"""
    slot: Tensor
    """[rows] int64: the place in that block"""
    batches: object
    """What `Kernels.plan_attention` made of the spans."""


@attrs.frozen(eq=False)
class Transformer:
    """Weights and kernels. `forward` yields hidden states, `logits` scores over the vocabulary."""

    shape: Shape
    kernels: Kernels
    embedding: Tensor
    frequencies: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear

    def forward(
        self, step: Step, cache: Sequence[Tensor], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Run the layers over a step and store its keys and values.

        cache: one [blocks, 2, kv_heads, block, head_width] per layer, written in place.
        progress: called with the number of each layer done. Returns [rows, width] before the last norm.
        """
        angles = self.kernels.rope_angles(step.positions, self.frequencies)
        eps, add_norm = self.shape.norm_eps, self.kernels.add_rms_norm
        x = self.embedding.index_select(0, step.ids)  # [rows, width], the residual
        made: Tensor | None = None  # by the last sublayer, to be added to x where it is normed
        for index, (layer, pages) in enumerate(zip(self.layers, cache, strict=True)):
            by = layer.input_norm
            normed = self.kernels.rms_norm(x, by, eps) if made is None else add_norm(made, x, by, eps)
            made = self._attention(layer, normed, step, pages, angles)
            made = self._feed_forward(layer, add_norm(made, x, layer.post_norm, eps))
            if progress is not None:
                progress(index + 1)
        return x if made is None else x.add_(made)

    def logits(self, x: Tensor) -> Tensor:
        """x: [rows, width] of `forward` -> [rows, vocabulary] fp32."""
        return self.head(self.kernels.rms_norm(x, self.norm, self.shape.norm_eps)).float()

    def _attention(
        self, layer: Layer, x: Tensor, step: Step, pages: Tensor, angles: tuple[Tensor, Tensor]
    ) -> Tensor:
        shape, kernels = self.shape, self.kernels
        qkv = layer.qkv(x).view(len(x), -1, shape.head_width)  # [rows, heads + 2 kv_heads, head_width]
        if layer.q_norm is not None:
            turning = qkv.narrow(1, 0, shape.heads + shape.kv_heads)
            turning.copy_(kernels.rms_norm(turning, layer.q_norm, shape.norm_eps))
        kernels.rope_store(qkv, *angles, pages, step.page, step.slot)
        q = qkv.narrow(1, 0, shape.heads)
        o = kernels.attend(q, pages, step.batches, shape.head_width**-0.5)  # [rows, heads, head_width]
        return layer.o(o.reshape(len(x), -1))

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        return layer.down(self.kernels.swiglu(layer.gate_up(x)))


def rope_frequencies(shape: Shape) -> Tensor:
    """RoPE's angle per position of each pair, [head_width / 2] fp32, scaled as the model asks.

    In transformers' own fp32 arithmetic: one more exact bit here is an angle that drifts from the reference
    with the position.
    """
    exponents = torch.arange(0, shape.head_width, 2).float() / shape.head_width
    frequencies = 1.0 / shape.rope_theta**exponents
    return frequencies if shape.scaling is None else _scaled(frequencies, shape.scaling)


def _scaled(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((scaling.original_positions / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


Pack = Callable[[str, Callable[[], Sequence[Tensor]], Tensor | None], Linear]
"""(name, what reads the weights that lie one below the other, bias) -> the packed linear. The name is the same at
each load."""


def pack_parts(kernels: Kernels, weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
    """Pack weights [n_i, k] as one linear, without joining them first where the kernels can."""
    if kernels.joins:
        return kernels.pack_linear(weights, bias)
    return kernels.pack_linear(weights[0] if len(weights) == 1 else torch.cat(tuple(weights)), bias)


def load_transformer(
    shape: Shape,
    weights: Weights,
    kernels: Kernels,
    progress: Callable[[int, int], None] | None = None,
    pack: Pack | None = None,
) -> Transformer:
    """Read, convert and pack all weights. `progress(done, total)` counts layers; `pack` may keep what it packs."""
    packed = pack or (lambda _name, read, bias: pack_parts(kernels, read(), bias))
    layers = []
    for index in range(shape.layers):
        layers.append(_load_layer(shape, weights, kernels, f"model.layers.{index}.", packed))
        if progress is not None:
            progress(index + 1, shape.layers)
    embedding = weights.read("model.embed_tokens.weight", kernels.dtype)
    head = "model.embed_tokens.weight" if shape.tied else "lm_head.weight"
    return Transformer(
        shape=shape,
        kernels=kernels,
        embedding=embedding,
        frequencies=rope_frequencies(shape),
        layers=tuple(layers),
        norm=weights.read("model.norm.weight", kernels.dtype),
        head=packed("head", lambda: [weights.read(head, kernels.dtype)], None),
    )


def _load_layer(shape: Shape, weights: Weights, kernels: Kernels, prefix: str, pack: Pack) -> Layer:
    def read(name: str) -> Tensor:
        return weights.read(prefix + name, kernels.dtype)

    def parts(pattern: str, *names: str) -> list[Tensor]:
        return [read(pattern.format(name)) for name in names]

    def linear(pattern: str, *names: str, biased: bool = False) -> Linear:
        bias = torch.cat(parts(f"{pattern}.bias", *names)) if biased else None
        name = prefix + pattern.format("_".join(names))
        return pack(name, lambda: parts(f"{pattern}.weight", *names), bias)

    return Layer(
        input_norm=read("input_layernorm.weight"),
        qkv=linear("self_attn.{}_proj", "q", "k", "v", biased=shape.qkv_bias),
        q_norm=_head_norms(shape, read) if shape.qk_norm else None,
        o=linear("self_attn.{}_proj", "o", biased=shape.o_bias),
        post_norm=read("post_attention_layernorm.weight"),
        gate_up=linear("mlp.{}_proj", "gate", "up"),
        down=linear("mlp.{}_proj", "down"),
    )


def _head_norms(shape: Shape, read: Callable[[str], Tensor]) -> Tensor:
    """Query norm for each query head, key norm for each key head: one multiplication serves both."""
    q, k = read("self_attn.q_norm.weight"), read("self_attn.k_norm.weight")
    return torch.cat((q.expand(shape.heads, -1), k.expand(shape.kv_heads, -1)))
