"""Keys and values of eight bits, int8 or fp8 (e4m3), with a step for each token and kv head.

    step_tg = max_d |x_tgd| / LIMIT,   code_tgd = round(x_tgd / step_tg)    for a key or value x, as `linear_scaled`

cache: [blocks, 2, kv_heads, block, d] of codes; scales: [blocks, 2, kv_heads, block] fp32, the steps.

Why a step per token and kv head: what is written for a token then depends on that token alone. A step per page
would have to grow when a later token is larger, so codes would be rewritten, and their bits would depend on how
much of the page was there when: a resumed request, which is prefilled where it had been decoded, would read
other keys. A step per model, as others calibrate for fp8, must leave room for the worst text. The price is 4
bytes beside d: a row of 128 takes 132 of 256 (0.52), one of 64 takes 68 of 128 (0.53).

Why a tensor of their own: codes keep rows of d bytes on 16-byte boundaries, and the steps of a tile of keys lie side
by side, one load for 64 of them. Both have the same first dim, so a block is moved by two copies.

Attention multiplies codes in q's dtype, where each is exact (eight bits are enough for bf16's mantissa), and takes
the key's step into the score and the value's into the weight, in fp32, before that is rounded to q's dtype. So
nothing wider than a code is ever stored, and the sums keep `kernels.attention_triton`'s order.

The values that are quantised are those that a cache of qkv's dtype would hold. Half the bytes per decoded
token: limited by memory. Prefill converts each tile of keys and values once per 64 rows or more.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from kernels import attention, attention_triton, rope
from kernels.attention import EVERYTHING, Look, Span, attention_reference
from kernels.attention_triton import Work, attend_triton, plan_work
from kernels.linear_scaled import NARROW, quantise
from kernels.op import Build, Case, Op
from kernels.rope import rope_store_launch, rope_store_reference

NAMES = {torch.int8: "int8", torch.float8_e4m3fn: "e4m3"}
FP8_CHIPS = ("sm_90", "sm_100")
"""Of the gate's chips, those that convert e4m3."""


@attrs.frozen(eq=False)
class Codes:
    """One layer's cache of eight bits, as a model hands it to `store` and `attend`."""

    codes: Tensor
    """[blocks, 2, kv_heads, block, d] int8 or e4m3"""
    steps: Tensor
    """[blocks, 2, kv_heads, block] fp32"""


def store(qkv: Tensor, cos: Tensor, sin: Tensor, pages: Codes, page: Tensor, slot: Tensor) -> Tensor:
    """As `rope.rope_store_triton`, into codes."""
    return rope_store_narrow_triton(qkv, cos, sin, pages.codes, pages.steps, page, slot)


def attend(q: Tensor, pages: Codes, work: Work, scale: float, look: Look = EVERYTHING) -> Tensor:
    """As `attention_triton.attend_triton`, over codes."""
    return attend_triton(q, pages.codes, work, scale, look, pages.steps)


def narrow(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x: [..., d] float -> (codes [..., d] of int8 or e4m3, steps [...] fp32)."""
    codes, steps = quantise(x.flatten(0, -2), dtype)
    return codes.view(x.shape), steps.view(x.shape[:-1])


def widen(cache: Tensor, scales: Tensor) -> Tensor:
    """Codes and steps -> what they stand for, in double."""
    return cache.double() * scales.double().unsqueeze(-1)


def rope_store_narrow_reference(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, scales: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """The specification: `rope_store`, and what it would have stored is quantised."""
    wide = torch.zeros(cache.shape, dtype=qkv.dtype)
    out = rope_store_reference(qkv, cos, sin, wide, page, slot)
    codes, steps = narrow(wide.permute(0, 3, 1, 2, 4)[page, slot], cache.dtype)  # [rows, 2, kv_heads, d]
    for row in range(len(qkv)):
        cache.view(torch.int8)[page[row], :, :, slot[row]] = codes[row].view(torch.int8)
        scales[page[row], :, :, slot[row]] = steps[row]
    return out


def rope_store_narrow_triton(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, scales: Tensor, page: Tensor, slot: Tensor
) -> Tensor:
    """As `rope.rope_store_triton`, into a cache of codes. Returns qkv, turned in place."""
    rope_store_launch(qkv, cos, sin, cache, page, slot, scales=scales).run()
    return qkv


def attention_narrow_reference(
    q: Tensor, cache: Tensor, scales: Tensor, spans: Sequence[Span], scale: float
) -> Tensor:
    """The specification: attention over what codes and steps stand for."""
    return attention_reference(q, widen(cache, scales), spans, scale)


def attention_narrow_triton(
    q: Tensor, cache: Tensor, scales: Tensor, spans: Sequence[Span], scale: float
) -> Tensor:
    """Plan and attend, for tests."""
    work = plan_work(spans, q.shape[1] // cache.shape[2], q.shape[2], q.device)
    return attend_triton(q, cache, work, scale, scales=scales)


def _named(plain: Case, dtype: torch.dtype) -> str:
    return plain.name if plain.name == "no rows" and dtype is torch.int8 else f"{plain.name}, {NAMES[dtype]}"


def _stored(plain: Case, dtype: torch.dtype) -> Case:
    def make(generator: torch.Generator, float_dtype: torch.dtype) -> tuple[Tensor, ...]:
        qkv, cos, sin, cache, page, slot = plain.make(generator, float_dtype)
        if len(qkv) > 1:
            qkv[1, -1] = 0.0  # a value without a largest element
        scales = torch.zeros(cache.shape[:4])
        return qkv, cos, sin, cache.to(dtype), scales, page, slot

    return attrs.evolve(plain, name=_named(plain, dtype), make=make)


STORE_OP = Op(
    name="rope_store_narrow",
    reference=rope_store_narrow_reference,
    implementations={"triton": rope_store_narrow_triton},
    cases=tuple(_stored(plain, dtype) for plain in rope.OP.cases for dtype in NARROW),
    builds=(
        Build("int8, 32 + 2 * 8 heads of 128", lambda: rope.build(narrow=torch.int8)),
        Build("e4m3, 32 + 2 * 8 heads of 128", lambda: rope.build(narrow=torch.float8_e4m3fn), FP8_CHIPS),
    ),
)


def _attended(plain: Case, dtype: torch.dtype) -> Case:
    def make(generator: torch.Generator, float_dtype: torch.dtype) -> tuple[object, ...]:
        q, cache, spans, scale = plain.make(generator, float_dtype)
        return q, *narrow(cache, dtype), spans, scale

    return attrs.evolve(plain, name=_named(plain, dtype), make=make)


OP = Op(
    name="attention_narrow",
    reference=attention_narrow_reference,
    implementations={"triton": attention_narrow_triton},
    cases=tuple(
        _attended(plain, dtype)
        for plain in (*attention.OP.cases, attention.case("five heads of a group", 5, 1, 96, 32, (40, 30)))
        for dtype in NARROW
    ),
    roundings=4,
    builds=(
        Build(
            "int8, 32 heads of 128 on 8",
            lambda: attention_triton.build(128, 32, 8, narrow=torch.int8),
            ("sm_80", "gfx942"),
        ),
        Build(
            "int8, 128 wide, large",
            lambda: attention_triton.build(128, 32, 8, narrow=torch.int8, large=True),
            ("sm_90", "sm_100"),
        ),
        Build("int8, 32 heads of 64 on 8", lambda: attention_triton.build(64, 32, 8, narrow=torch.int8)),
        Build(
            "e4m3, 32 heads of 128 on 8",
            lambda: attention_triton.build(128, 32, 8, narrow=torch.float8_e4m3fn, large=True),
            FP8_CHIPS,
        ),
    ),
)
