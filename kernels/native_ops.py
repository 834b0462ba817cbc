"""The compiled kernels as the model calls them: torch tensors in, torch tensors out.

The layouts are those of `kernels/cpu`: weights in panels of 64 outputs, pages in the order in which attention
reads them. Whoever stores into a page with `rope_store` here must attend with `attend` here. Threads are
torch's number of the moment.
"""

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from kernels.attention import EVERYTHING, Look, Span
from kernels.native import Native, pointer

PANEL = 64
"""Outputs side by side in a packed weight."""
ROWS = 6
"""Folded query rows per tile of attention; C's constant of that name."""
BLOCK_MAX, WIDTH_MAX = 512, 256


def fits(heads_width: int, block: int) -> bool:
    """Whether the compiled attention takes heads of this width and pages of this many tokens."""
    return heads_width % 16 == 0 and heads_width <= WIDTH_MAX and block % 16 == 0 and block <= BLOCK_MAX


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


@attrs.frozen(eq=False)
class Bf16Linear:
    """y = x @ weight.T + bias in bf16 with fp32 sums. Call it with x: [rows, k], contiguous."""

    native: Native
    packed: Tensor
    bias: Tensor | None
    """[outputs filled up] fp32"""
    width: int
    outputs: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, k] bf16 -> [rows, n] bf16."""
        rows, (p, y) = len(x), (pointer, x.new_empty(len(x), self.outputs))
        if x.shape[1] != self.width:
            x = torch.nn.functional.pad(x, (0, self.width - x.shape[1]))
        sizes = (rows, self.width, self.outputs, 0, torch.get_num_threads())
        self.native.linear_bf16(p(x), p(self.packed), p(self.bias), p(y), *sizes)
        return y


@attrs.frozen(eq=False)
class Int8Linear:
    """As `linear_scaled` in int8, to the bit. Call it with x: [rows, k] bf16, contiguous."""

    native: Native
    packed: Tensor
    """[panels, k / 4, 64, 4] int8, k filled up"""
    scale: Tensor
    """[panels * 64] fp32"""
    sums: Tensor
    """[panels * 64] int32: 128 times the sum of each output's weights"""
    bias: Tensor | None
    width: int
    outputs: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, k] bf16 -> [rows, n] bf16."""
        rows, (p, y) = len(x), (pointer, x.new_empty(len(x), self.outputs))
        work = torch.empty(rows * (self.width + 8), dtype=torch.uint8)
        sizes = (rows, self.width, self.outputs, 0, torch.get_num_threads())
        weights = (p(self.packed), p(self.sums), p(self.scale), p(self.bias))
        self.native.linear_int8(p(x), *weights, p(y), p(work), *sizes)
        return y


def pack_bf16(native: Native, weights: Sequence[Tensor], bias: Tensor | None = None) -> Bf16Linear:
    """Pack weights [n_i, k] bf16, one below the other, without joining them first."""
    outputs, width = sum(map(len, weights)), _up(weights[0].shape[1], 2)
    packed = torch.zeros(_up(outputs, PANEL), width, dtype=torch.bfloat16)
    first = 0
    for weight in weights:
        part = _filled(weight, width)
        sizes = (len(part), width, first, torch.get_num_threads())
        native.pack_bf16(pointer(part), pointer(packed), *sizes)
        first += len(part)
    return Bf16Linear(native, packed, _filled_bias(bias, outputs), width, outputs)


def pack_int8(native: Native, weights: Sequence[Tensor], bias: Tensor | None = None) -> Int8Linear:
    """Quantise weights [n_i, k] bf16 for each output and pack them, one below the other."""
    outputs, width = sum(map(len, weights)), weights[0].shape[1]
    high, threads = _up(outputs, PANEL), torch.get_num_threads()
    packed = torch.zeros(high, _up(width, 4), dtype=torch.int8)
    scale, sums = torch.zeros(high), torch.zeros(high, dtype=torch.int32)
    work = torch.empty(threads * PANEL * _up(width, 4), dtype=torch.uint8)
    first = 0
    for weight in weights:
        places = map(pointer, (_filled(weight, width), packed, scale, sums, work))
        native.pack_int8(*places, len(weight), width, first, threads)
        first += len(weight)
    return Int8Linear(native, packed, scale, sums, _filled_bias(bias, outputs), width, outputs)


def int8_parts(layer: Int8Linear) -> tuple[Tensor, Tensor, Tensor]:
    """What a packed linear is made of beside its bias, for `int8_of`: packed, scale, sums."""
    return layer.packed, layer.scale, layer.sums


def int8_of(
    native: Native, parts: tuple[Tensor, ...], bias: Tensor | None, width: int, outputs: int
) -> Int8Linear:
    """The linear of `int8_parts` again, without packing. ValueError if they are not of this size."""
    packed, scale, sums = parts
    high = _up(outputs, PANEL)
    if (packed.numel(), len(scale), len(sums)) != (high * _up(width, 4), high, high):
        raise ValueError(f"packed weights are not those of {outputs} outputs of {width}")
    return Int8Linear(native, packed, scale, sums, _filled_bias(bias, outputs), width, outputs)


def _filled(weight: Tensor, width: int) -> Tensor:
    if weight.shape[1] != width:
        weight = torch.nn.functional.pad(weight, (0, width - weight.shape[1]))
    return weight.contiguous()


def _filled_bias(bias: Tensor | None, outputs: int) -> Tensor | None:
    if bias is None:
        return None
    return torch.nn.functional.pad(bias.float(), (0, _up(outputs, PANEL) - outputs))


def rms_norm(native: Native, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise rows of x: [..., width] bf16; weight: [width], or [lanes, width] for x: [rows, lanes, width]."""
    x = x.contiguous()
    if weight.dim() == 1:
        return _norm(native, x, None, weight, eps)
    return _norm(native, x, None, torch.ones_like(weight[0]), eps).mul_(weight)


def add_rms_norm(native: Native, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """residual += x, in place; return its norm. All [..., width] bf16, contiguous."""
    return _norm(native, residual, x.contiguous(), weight, eps)


def _norm(native: Native, x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    y, width = torch.empty_like(x), x.shape[-1]
    sizes = (x.numel() // width, width, eps, torch.get_num_threads())
    native.rms_norm(*map(pointer, (x, added, weight, y)), *sizes)
    return y


def swiglu(native: Native, x: Tensor) -> Tensor:
    """silu(gate) * up on x: [rows, 2 * width] bf16, contiguous."""
    rows, width = len(x), x.shape[1] // 2
    y = x.new_empty(rows, width)
    native.swiglu(pointer(x), pointer(y), rows, width, torch.get_num_threads())
    return y


def rope_store(
    native: Native, qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """Turn q and k of qkv: [rows, heads + 2 kv_heads, d] in place; store k and v in the pages' order."""
    rows, lanes, width = qkv.shape
    kv_heads, block = cache.shape[2:4]
    sizes = (rows, lanes - 2 * kv_heads, kv_heads, width, block, cache.stride(0), torch.get_num_threads())
    native.rope_store(*map(pointer, (qkv, cos, sin, cache, page, slot)), *sizes)
    return qkv


@attrs.frozen(eq=False)
class Plan:
    """One step's spans as the compiled attention reads them."""

    spans: Tensor
    """[count, 5] int64: start, tokens, first row, first tile, first entry in `pages`"""
    pages: Tensor
    tiles: int
    look: Look


def plan_attention(group: int, spans: Sequence[Span], look: Look = EVERYTHING) -> Plan:
    """group: query heads per kv head."""
    rows, pages, first, tiles = [], [], 0, 0
    for span in spans:
        rows.append((span.start, span.count, first, tiles, len(pages)))
        pages.extend(span.pages)
        first += span.count
        tiles += -(-span.count * group // ROWS)
    return Plan(torch.tensor(rows, dtype=torch.int64).view(-1, 5), torch.tensor(pages), tiles, look)


def attend(native: Native, q: Tensor, cache: Tensor, plan: Plan, scale: float) -> Tensor:
    """q: [rows, heads, d] bf16, heads side by side, cache: one layer's pages -> [rows, heads, d]."""
    rows, heads, width = q.shape
    kv_heads, block = cache.shape[2:4]
    out, look = q.new_empty(rows, heads, width), plan.look
    sizes = (len(plan.spans), plan.tiles, heads, kv_heads, width, block, cache.stride(0), q.stride(0))
    rest = (scale, look.cap, look.window, pointer(look.sinks), torch.get_num_threads())
    native.attend(*map(pointer, (q, out, cache, plan.spans, plan.pages)), *sizes, *rest)
    return out


def store(cache: Tensor, pages: Tensor) -> None:
    """Copy pages [blocks, 2, kv_heads, block, d] into `cache` in the compiled kernels' order, for tests."""
    blocks, _, kv_heads, block, width = pages.shape
    keys = pages[:, 0].reshape(blocks, kv_heads, block // 16, 16, width // 2, 2).transpose(3, 4)
    values = pages[:, 1].reshape(blocks, kv_heads, block // 2, 2, width).transpose(3, 4)
    cache[:, 0] = keys.reshape(blocks, kv_heads, block, width)
    cache[:, 1] = values.reshape(blocks, kv_heads, block, width)
