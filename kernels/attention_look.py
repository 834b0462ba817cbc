"""The record of attention that looks back in another way than causally: windows, caps, sinks.

`kernels.attention` specifies it, `kernels.attention_triton` computes it; these are its cases.
"""

import attrs
import torch

from kernels import attention, attention_triton
from kernels.attention import Look
from kernels.op import Build, Case, Op, normal


def _looking(name: str, heads: int, window: int, cap: float, sinks: bool, *spans: tuple[int, int]) -> Case:
    plain = attention.case(name, heads, heads // 2 or 1, 64, 32, *spans)

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[object, ...]:
        arguments = plain.make(generator, dtype)
        scores = normal(generator, torch.float32, heads) if sinks else None
        return *arguments, Look(window, cap, scores)

    return attrs.evolve(plain, make=make)


OP = Op(
    name="attention_look",
    reference=attention.attention_reference,
    implementations={"triton": attention_triton.attention_triton},
    cases=(
        _looking("first token, all at once", 1, 3, 5.0, True, (0, 1)),
        _looking("one decode row, window", 4, 33, 0.0, False, (1300, 1)),
        _looking("decode, window of a chunk", 4, 512, 0.0, False, (511, 1), (512, 1), (800, 1)),
        _looking("prefill, window within its rows", 4, 20, 0.0, False, (0, 97)),
        _looking("prefill, window before its rows", 4, 600, 0.0, False, (1100, 30)),
        _looking("window of one", 2, 1, 0.0, False, (40, 1), (3, 9)),
        _looking("cap", 4, 0, 2.0, False, (300, 1), (30, 33)),
        _looking("sinks", 4, 0, 0.0, True, (300, 1), (0, 1), (0, 33)),
        _looking("mixed step, all at once", 4, 40, 5.0, True, (600, 1), (3, 1), (0, 17), (170, 50)),
        _looking("no rows", 4, 8, 0.0, False),
    ),
    roundings=4,
    builds=(
        Build("bf16, 32 heads of 128, window", lambda: attention_triton.build(128, 32, 8, Look(4096))),
        Build("bf16, 32 heads of 64, all", lambda: attention_triton.build(64, 32, 8, _all_at_once(32))),
    ),
)


def _all_at_once(heads: int) -> Look:
    return Look(128, 30.0, torch.empty(heads, device="meta"))
