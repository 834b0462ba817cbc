"""One transformer of the Llama family, described by a `Shape`, running through a `Kernels` record.

The step's rows are all sequences' tokens, concatenated: linears and norms see [rows, ...] and know nothing of
sequences; attention walks each sequence's pages by a plan made once per step. Nothing here keeps state: the
key and value cache is an argument.
"""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from kernels import Kernels, Linear
from kernels.attention import EVERYTHING, Look
from node.engine.config_hf import Shape
from node.engine.rotation import Rotation, rotation_of
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
    look: Look
    turns: bool
    """Whether its heads turn with the position."""


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
    rotation: Rotation
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
        turning, still = self._angles(step.positions)
        eps, add_norm = self.shape.norm_eps, self.kernels.add_rms_norm
        x = self.embedding.index_select(0, step.ids)  # [rows, width], the residual
        made: Tensor | None = None  # by the last sublayer, to be added to x where it is normed
        for index, (layer, pages) in enumerate(zip(self.layers, cache, strict=True)):
            by = layer.input_norm
            normed = self.kernels.rms_norm(x, by, eps) if made is None else add_norm(made, x, by, eps)
            made = self._attention(layer, normed, step, pages, turning if layer.turns else still)
            made = self._feed_forward(layer, add_norm(made, x, layer.post_norm, eps))
            if progress is not None:
                progress(index + 1)
        return x if made is None else x.add_(made)

    def _angles(self, positions: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """cos and sin of the rows, [rows, 1, d] fp32 each, for layers that turn and for those that do not."""
        cos, sin = self.kernels.rope_angles(positions, self.rotation.frequencies)
        still = (cos, sin)
        if not all(self.shape.turns):
            still = torch.ones_like(cos), torch.zeros_like(sin)
        if self.rotation.gains is not None:
            cos, sin = cos * self.rotation.gains, sin * self.rotation.gains
        return (cos, sin), still

    def logits(self, x: Tensor) -> Tensor:
        """x: [rows, width] of `forward` -> [rows, vocabulary] fp32."""
        return self.head(self.normed(x)).float()

    def normed(self, x: Tensor) -> Tensor:
        """x: [rows, width] of `forward` -> the same after the last norm."""
        return self.kernels.rms_norm(x, self.norm, self.shape.norm_eps)

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
        scale = shape.head_width**-0.5
        o = kernels.attend(q, pages, step.batches, scale, layer.look)  # [rows, heads, head_width]
        return layer.o(o.reshape(len(x), -1))

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        return layer.down(self.kernels.swiglu(layer.gate_up(x)))


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
    rotation = rotation_of(shape.rope, shape.head_width)
    layers = []
    for index in range(shape.layers):
        layers.append(_load_layer(shape, index, weights, kernels, rotation.order, packed))
        if progress is not None:
            progress(index + 1, shape.layers)
    embedding = weights.read("model.embed_tokens.weight", kernels.dtype)
    head = "model.embed_tokens.weight" if shape.tied else "lm_head.weight"
    return Transformer(
        shape=shape,
        kernels=kernels,
        embedding=embedding,
        rotation=rotation,
        layers=tuple(layers),
        norm=weights.read("model.norm.weight", kernels.dtype),
        head=packed("head", lambda: [weights.read(head, kernels.dtype)], None),
    )


def _load_layer(
    shape: Shape, index: int, weights: Weights, kernels: Kernels, order: Tensor | None, pack: Pack
) -> Layer:
    prefix = f"model.layers.{index}."

    def read(name: str) -> Tensor:
        return weights.read(prefix + name, kernels.dtype)

    def part(name: str, what: str) -> Tensor:
        found = read(f"{name}.{what}")
        turning = TURNING.get(name)
        return found if order is None or turning is None else _turned(found, turning(shape), order)

    def linear(name: str, *names: str, biased: bool = False) -> Linear:
        bias = torch.cat([part(one, "bias") for one in names]) if biased else None
        return pack(prefix + name, lambda: [part(one, "weight") for one in names], bias)

    inward, upward = INWARD[shape.fused], UPWARD[shape.fused]
    window = shape.windows[index]
    return Layer(
        input_norm=read("input_layernorm.weight"),
        qkv=linear("self_attn.q_k_v_proj", *inward, biased=shape.qkv_bias),
        q_norm=_head_norms(shape, read, order) if shape.qk_norm else None,
        o=linear("self_attn.o_proj", "self_attn.o_proj", biased=shape.o_bias),
        post_norm=read("post_attention_layernorm.weight"),
        gate_up=linear("mlp.gate_up_proj", *upward, biased=shape.mlp_bias),
        down=linear("mlp.down_proj", "mlp.down_proj", biased=shape.mlp_bias),
        look=Look(window) if window else EVERYTHING,
        turns=shape.turns[index],
    )


INWARD = {
    False: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    True: ("self_attn.qkv_proj",),
}
UPWARD = {False: ("mlp.gate_proj", "mlp.up_proj"), True: ("mlp.gate_up_proj",)}
"""Tensors that make one linear, by whether the checkpoint has joined them."""


TURNING: dict[str, Callable[[Shape], int]] = {
    "self_attn.q_proj": lambda shape: shape.heads,
    "self_attn.k_proj": lambda shape: shape.kv_heads,
    "self_attn.qkv_proj": lambda shape: shape.heads + shape.kv_heads,
}
"""How many of a tensor's first heads turn."""


def _turned(rows: Tensor, turning: int, order: Tensor) -> Tensor:
    """rows: [heads * d, ..]: elements of the first `turning` heads in the order that the kernels turn."""
    heads = rows.unflatten(0, (-1, len(order)))
    return torch.cat((heads[:turning].index_select(1, order), heads[turning:])).flatten(0, 1)


def _head_norms(shape: Shape, read: Callable[[str], Tensor], order: Tensor | None) -> Tensor:
    """Query norm for each query head, key norm for each key head: one multiplication serves both."""
    q, k = read("self_attn.q_norm.weight"), read("self_attn.k_norm.weight")
    if order is not None:
        q, k = q.index_select(0, order), k.index_select(0, order)
    return torch.cat((q.expand(shape.heads, -1), k.expand(shape.kv_heads, -1)))
