"""Log-probabilities of the chosen token and of the likeliest: what a response reports, and the whole sampler.

    log p_i = x_i - log(sum_j e^x_j)      from the raw logits x, before any control of `kernels.choose`

The likeliest tokens are those of the highest logits, the lower id first among equals (by logits, since
rounding may make equal what was not). The survey of `kernels.choose_triton` has left each group's largest
logit; this takes the best of those over and over, looking again at one group of 64 each time: `count` steps of one
program per row, limited by their latency, and launched only if a row asks.

logits: [rows, vocabulary] float, rows may have gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from kernels import choose
from kernels._triton import Launch, check, kernel
from kernels.choose import Control, Controls
from kernels.choose_triton import Survey, best_of, choose_launches, mass_of, ordered
from kernels.op import Build, Case, Op

if TYPE_CHECKING:
    import triton.language as tl

PLAIN = Control(0, temperature=0.0)
"""Greedy: a survey for nothing but a report."""


def likeliest_reference(logits: Tensor, count: int) -> Tensor:
    """Ids [rows, count] int64 of the highest logits, best first, the lower id first among equals."""
    return logits.float().sort(dim=-1, descending=True, stable=True).indices[:, :count]


def logprobs_reference(logits: Tensor, ids: Tensor) -> Tensor:
    """Natural logarithms [rows, ids per row] fp32 of the probabilities of ids: [rows, any], no control applied."""
    return torch.log_softmax(logits.double(), -1).gather(1, ids).float()


# fmt: off
@kernel("count")
def _likeliest(
    logits, levels, raw_tops, chosen, ids, logprobs, logits_stride, count,
    VOCABULARY: tl.constexpr, BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr, GROUPS: tl.constexpr,
    GROUPS_PADDED: tl.constexpr, GROUP: tl.constexpr, LEAST: tl.constexpr,
):
    """Of one row: the chosen token's log-probability, then the `count` likeliest tokens and theirs."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS_PADDED)
    at = (row * BLOCKS + block) * 5
    block_tops = tl.load(levels + at + 3, mask=block < BLOCKS, other=float("-inf"))
    sums = tl.load(levels + at + 4, mask=block < BLOCKS, other=0.0)
    top = tl.max(block_tops, axis=0)
    total = tl.sum(sums * mass_of(block_tops, top), axis=0).to(tl.float32)
    level = tl.log(total) + tl.where(tl.abs(top) == float("inf"), 0.0, top)
    line = logits + row * logits_stride
    tl.store(logprobs + row * (count + 1), tl.load(line + tl.load(chosen + row)).to(tl.float32) - level)
    group = tl.arange(0, GROUPS_PADDED)
    known = tl.load(raw_tops + row * GROUPS + group, mask=group < GROUPS, other=0.0)
    tops = tl.where(group < GROUPS, ordered(tl.where(known == 0.0, 0.0, known)), LEAST)
    last = tl.full([], 2147483647, tl.int32)
    last_token = tl.full([], -1, tl.int32)
    for i in range(count):
        _, place = best_of(tops, group)
        token = place * GROUP + tl.arange(0, GROUP)
        raw = tl.load(line + token, mask=token < VOCABULARY, other=0.0).to(tl.float32)
        raw = tl.where(raw != raw, float("inf"), raw)
        order = tl.where(token < VOCABULARY, ordered(tl.where(raw == 0.0, 0.0, raw)), LEAST)
        order = tl.where((order < last) | ((order == last) & (token > last_token)), order, LEAST)
        last, last_token = best_of(order, token)
        tl.store(ids + row * count + i, last_token.to(tl.int64))
        value = tl.where(last < 0, last ^ 0x7FFFFFFF, last).to(tl.float32, bitcast=True)
        tl.store(logprobs + row * (count + 1) + 1 + i, value - level)
        tops = tl.where(group == place, tl.max(tl.where(token == last_token, LEAST, order), axis=0), tops)


# fmt: on
@attrs.frozen(eq=False)
class Choice:
    """What came of a batch of rows."""

    ids: Tensor
    """[rows] int64"""
    best: Tensor
    """[rows] fp32: the chosen token's score. Not finite if no token of the row could be chosen."""
    likeliest: Tensor
    """[rows, count] int64: the tokens of the highest logits, best first."""
    logprobs: Tensor
    """[rows, 1 + count] fp32: the chosen token's log-probability, and theirs; before any control."""

    @classmethod
    def of(cls, rows: int, count: int, device: torch.device) -> Choice:
        """Allocate for so many rows, each reporting `count` likeliest tokens."""
        return cls(
            ids=torch.empty(rows, dtype=torch.int64, device=device),
            best=torch.empty(rows, dtype=torch.float32, device=device),
            likeliest=torch.empty(rows, count, dtype=torch.int64, device=device),
            logprobs=torch.empty(rows, count + 1, dtype=torch.float32, device=device),
        )


def sample_launches(logits: Tensor, controls: Controls, choice: Choice) -> tuple[Launch, Launch, Launch]:
    """Survey, choose, and report: the last may be left out if no row wants log-probabilities."""
    rows, vocabulary = logits.shape
    count = choice.likeliest.shape[1]
    check("likeliest", choice.likeliest, torch.int64, shape=(rows, min(count, vocabulary)))
    check("logprobs", choice.logprobs, torch.float32, shape=(rows, count + 1))
    survey = Survey.of(rows, vocabulary, logits.device)
    first, second = choose_launches(logits, controls, survey, choice.ids, choice.best)
    arguments = {"logits": logits, "logits_stride": logits.stride(0), "VOCABULARY": vocabulary}
    arguments |= survey.arguments() | {"chosen": choice.ids, "ids": choice.likeliest, "LEAST": -(2**31)}
    arguments |= {"logprobs": choice.logprobs, "count": count}
    return first, second, Launch(_likeliest, (rows,), _likeliest.of(arguments))


def sample_triton(logits: Tensor, controls: Controls, count: int | None = None) -> Choice:
    """Choose a token per row; nothing of the caller's is overwritten.

    count: how many likeliest tokens to report, at most the vocabulary; none: no log-probabilities at all, and those
    of the result are not written. ValueError, before anything is launched, if a tensor does not fit.
    """
    choice = Choice.of(len(logits), count or 0, logits.device)
    launches = sample_launches(logits, controls, choice)
    for launch in launches if count is not None else launches[:2]:
        launch.run()
    return choice


def likeliest_triton(logits: Tensor, count: int) -> Tensor:
    """As `likeliest_reference`."""
    controls = Controls.of([PLAIN] * len(logits), logits.device)
    return sample_triton(logits, controls, count).likeliest


def logprobs_triton(logits: Tensor, ids: Tensor) -> Tensor:
    """As `logprobs_reference`, for ids: [rows, 1], as if a kernel had chosen them."""
    choice = Choice.of(len(logits), 0, logits.device)
    controls = Controls.of([PLAIN] * len(logits), logits.device)
    survey, _, report = sample_launches(logits, controls, choice)
    choice.ids.copy_(ids[:, 0])
    survey.run()
    report.run()
    return choice.logprobs


def _build(dtype: torch.dtype) -> tuple[Launch, ...]:
    logits = torch.empty(8, 128_256, dtype=dtype, device="meta")
    controls = Controls.of([PLAIN] * 8, "meta")
    return sample_launches(logits, controls, Choice.of(8, 20, logits.device))[2:]


def _reported(
    name: str, rows: int, vocabulary: int, last: Callable[[Tensor], object], steps: float = 0
) -> Case:
    plain = choose.case(name, vocabulary, *(PLAIN,) * rows, steps=steps)

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[object, ...]:
        logits, _ = plain.make(generator, dtype)
        return logits, last(logits)

    return attrs.evolve(plain, make=make, terms=vocabulary)


OP = Op(
    name="likeliest",
    reference=likeliest_reference,
    implementations={"triton": likeliest_triton},
    cases=(
        _reported("one row", 1, 300, lambda _: 5),
        _reported("one token", 2, 1, lambda _: 1),
        _reported("odd vocabulary", 3, 97, lambda _: 20),
        _reported("all tokens, many ties", 2, 70, lambda _: 70, steps=1.0),
        _reported("many tokens", 3, 2100, lambda _: 20),
        Case("infinities", lambda generator, dtype: (choose.odd_values(generator, dtype)[0], 20)),
        _reported("no rows", 0, 64, lambda _: 5),
    ),
    builds=(Build("bf16, 20 of 128 256", lambda: _build(torch.bfloat16)),),
    exact=True,
)
LOGPROBS_OP = Op(
    name="logprobs",
    reference=logprobs_reference,
    implementations={"triton": logprobs_triton},
    cases=(
        _reported("one row", 1, 300, lambda _: torch.tensor([[7]])),
        _reported("one token", 2, 1, lambda _: torch.zeros(2, 1, dtype=torch.int64)),
        _reported("odd vocabulary", 3, 97, lambda _: torch.tensor([[0], [96], [50]])),
        _reported("many tokens", 2, 5000, lambda logits: logits.argmax(-1, keepdim=True)),
        _reported("no rows", 0, 64, lambda _: torch.zeros(0, 1, dtype=torch.int64)),
    ),
    builds=(Build("fp32, 20 of 128 256", lambda: _build(torch.float32)),),
)
