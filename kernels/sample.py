"""The keyed draw: which token wins is a pure function of (seed, position, token id) and the scores.

Gumbel-max: token i wins if score_i + g_i is largest, where g_i = -log(e_i) and e_i is exponential; it then
wins with probability softmax(score)_i (Gumbel 1954; Maddison et al., arXiv 1411.0030, section 2). There is
no stream of random state: e_i comes from hashing a counter,
    h_i = mix(key + i * GOLDEN),  key = mix(seed + mix(position + GOLDEN)),  all modulo 2^64,
    u_i = ((h_i >> 11) + 1/2) / 2^53 rounded to fp32, at most 1 - 2^-24,   e_i = -log1p(-u_i),
where `mix` is MurmurHash3's 64-bit finaliser. Small e_i decide the draw, and there fp32 keeps its full
relative precision down to 2^-54, so tokens of very small probability are drawn as often as they should be.

scores: [rows, vocabulary] fp32; keys: [rows] int64. About twenty passes over the row: limited by memory
when the vocabulary is large.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels._triton import Launch, check, check_dense, kernel
from kernels.op import Build, Case, Op

if TYPE_CHECKING:
    import triton.language as tl

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd: consecutive ids land far apart (Knuth, volume 3, section 6.4)."""
MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
"""MurmurHash3's fmix64 multipliers (Appleby, public domain)."""
BLOCK = 1024
"""Tokens per program of the Triton kernel."""
_MASK = (1 << 64) - 1


def draw_key(seed: int, position: int) -> int:
    """The draw's key for one position of one request, as a signed 64-bit integer."""
    key = mix((seed + mix(position + GOLDEN)) & _MASK)
    return _signed(key)


def mix(value: int) -> int:
    """MurmurHash3's finaliser on an unsigned 64-bit integer."""
    value &= _MASK
    for factor in MIX:
        value = ((value ^ (value >> 33)) * factor) & _MASK
    return value ^ (value >> 33)


def gumbel_reference(keys: Tensor, vocabulary: int) -> Tensor:
    """The specification, in Python integers and double. keys: [rows] int64 -> [rows, vocabulary] fp32."""
    rows = [[_noise(int(key), token) for token in range(vocabulary)] for key in keys]
    return torch.tensor(rows, dtype=torch.float32).view(len(keys), vocabulary)


def _noise(key: int, token: int) -> float:
    bits = mix(key + token * GOLDEN) >> 11
    u = min(_fp32(bits + 0.5) * 2.0**-53, 1 - 2.0**-24)
    return -math.log(-math.log1p(-u))


def _fp32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def gumbel(keys: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise for keys: [rows] int64 -> [rows, vocabulary] fp32; each row by itself."""
    return gumbel_at(keys.unsqueeze(-1), torch.arange(vocabulary))


def gumbel_at(key: Tensor | int, ids: Tensor) -> Tensor:
    """The noise of some tokens only. ids: [n] int64, key: one, or a tensor that broadcasts -> fp32."""
    h = ids * _signed(GOLDEN) + key
    for factor in MIX:
        h ^= _shifted(h)
        h *= _signed(factor)
    h ^= _shifted(h)
    bits = (h >> 11).bitwise_and_((1 << 53) - 1)
    u = bits.to(torch.float32).add_(0.5).mul_(2.0**-53).clamp_(max=1 - 2.0**-24)
    return u.neg_().log1p_().neg_().log_().neg_()


def _shifted(h: Tensor) -> Tensor:
    """h >> 33 as if unsigned: int64's shift copies the sign, so the top is cleared."""
    return (h >> 33).bitwise_and_((1 << 31) - 1)


def _signed(value: int) -> int:
    """An unsigned 64-bit integer as the signed one with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


# fmt: off
@kernel()
def noise_of(key, token, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """Standard Gumbel noise of tokens: any shape, in fp32. key: int64, one for all."""
    h = key.to(tl.uint64, bitcast=True) + token.to(tl.uint64) * GOLDEN
    h = (h ^ (h >> 33)) * FIRST
    h = (h ^ (h >> 33)) * SECOND
    h = h ^ (h >> 33)
    u = ((h >> 11).to(tl.int64).to(tl.float32) + 0.5) * 1.1102230246251565e-16  # 2^-53
    u = tl.minimum(u, 0.99999994)  # 1 - 2^-24
    rest = 1.0 - u
    known = tl.where(rest == 1.0, 1.0, tl.div_rn(u, tl.where(rest == 1.0, 1.0, 1.0 - rest)))
    return -tl.log(tl.where(rest == 1.0, u, -tl.log(rest) * known))


@kernel("vocabulary")
def _gumbel(
    keys, noise, vocabulary,
    GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    drawn = noise_of(tl.load(keys + row), token, GOLDEN, FIRST, SECOND)
    tl.store(noise + row * vocabulary + token, drawn, mask=token < vocabulary)


# fmt: on
def gumbel_launch(keys: Tensor, noise: Tensor) -> Launch:
    """One program per row and `BLOCK` tokens."""
    check("keys", keys, torch.int64, shape=(None,))
    check_dense("keys", keys, 1)
    vocabulary = noise.shape[1]
    arguments = {"keys": keys, "noise": noise, "vocabulary": vocabulary}
    arguments |= {"GOLDEN": GOLDEN, "FIRST": MIX[0], "SECOND": MIX[1], "BLOCK": BLOCK}
    return Launch(_gumbel, (len(keys), -(-vocabulary // BLOCK)), arguments)


def gumbel_triton(keys: Tensor, vocabulary: int) -> Tensor:
    """As `gumbel`, in one launch that writes each element once and reads nothing but the keys.

    log1p is Kahan's: for w = 1 - u in fp32, log1p(-u) = log(w) * u / (1 - w), and -u where w is 1. The
    rounding of w cancels (Higham, Accuracy and Stability, section 1.14.1).
    """
    noise = torch.empty(len(keys), vocabulary, device=keys.device)
    gumbel_launch(keys, noise).run()
    return noise


def _build() -> tuple[Launch]:
    keys = torch.empty(8, dtype=torch.int64, device="meta")
    return (gumbel_launch(keys, torch.empty(8, 128_256, device="meta")),)


def _case(name: str, rows: int, vocabulary: int) -> Case:
    def make(generator: torch.Generator, _dtype: torch.dtype) -> tuple[Tensor, int]:
        return torch.randint(-(2**62), 2**62, (rows,), generator=generator), vocabulary

    return Case(name, make)


def _extremes(_generator: torch.Generator, _dtype: torch.dtype) -> tuple[Tensor, int]:
    """Keys whose first token hashes to the least, the largest and other rare values."""
    hashes = (0, 1 << 11, 1 << 40, 1 << 63, _MASK - (1 << 40), _MASK - (1 << 41), _MASK)
    return torch.tensor([_signed(_unmixed(h)) for h in hashes]), 3


def _unmixed(value: int) -> int:
    """The inverse of `mix`: its shift undoes itself, since 33 is more than half of 64."""
    for factor in reversed(MIX):
        value = ((value ^ (value >> 33)) * pow(factor, -1, 1 << 64)) & _MASK
    return value ^ (value >> 33)


OP = Op(
    name="gumbel",
    reference=gumbel_reference,
    implementations={"torch": gumbel, "triton": gumbel_triton},
    cases=(
        _case("one token", 5, 1),
        _case("odd vocabulary", 3, 97),
        _case("no rows", 0, 16),
        _case("many tokens", 2, 4096),
        Case("rare hashes", _extremes),
    ),
    builds=(Build("128 256 tokens", _build),),
)
