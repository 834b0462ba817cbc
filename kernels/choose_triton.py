"""The sampler's Triton kernels: `kernels.choose` holds the order of steps, the specification and the controls.

Nothing of the vocabulary's size is written, and nothing is sorted.

1. `survey`: a program per row and block of `BLOCK` tokens reads the logits once, makes scores and noise of them, and
   leaves a few numbers: the block's winner, its largest score, its mass, and the largest score of each group of 64.
2. `choose`: a program per row merges the winners. Without filters that is the answer. Otherwise the winner w
   counts what ranks above it: it stays if fewer than k do, if their mass is below p of the total, and if
   its score is not under min_p's floor. If not, nothing that ranks below w can stay either (each filter keeps a
   prefix of the ranking), so the winner among those above w is next, until one stays.
   That one has the largest score plus noise of all that are kept, which is the definition. Only groups whose
   largest score reaches w's are read again, and scores and noise are made again from them.

`kernels.likeliest` reports log-probabilities, from the same survey.

How many winners are looked at: a winner falls on a token with its probability, and likelier tokens rank higher,
so its rank is at most as if drawn evenly from those left: 1 + ln(vocabulary / kept) looks are expected at most,
about one if what is kept holds most of the mass. (Rejection in place of sorting is FlashInfer's idea,
arXiv 2501.01005; here the noise is fixed per token, so the answer is one function of its inputs.)

The total of what top-k leaves, which top-p wants, needs the k-th score itself: it is found by bisection on the
scores' ordered bits, first among groups' maxima (the k-th of them bounds it from below), then among their tokens.

A row's sums run over blocks and groups in an order that depends on the vocabulary alone. Limited by memory:
reads rows * vocabulary logits once, marks and biases for rows that have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from kernels import choose
from kernels._triton import FLOATS, Launch, check, check_dense, kernel, power_of_two
from kernels.choose import PROMPT, Control, Controls
from kernels.op import Build
from kernels.sample import GOLDEN, MIX, noise_of

if TYPE_CHECKING:
    import triton.language as tl

GROUP = 64
"""Tokens that share one maximum: what is read again comes in pieces of this size."""
BLOCK = 1024
"""Tokens per program of the survey: 126 programs for a row of 128,256."""
TILE = 8
"""Groups that are read again at once."""
VOCABULARY_MAX = 1 << 20
"""A row's groups stand in registers together."""


# fmt: off
@kernel()
def _scores(
    logits, seen, bias, knobs, slots, row, logits_stride, token, inside,
    VOCABULARY: tl.constexpr, SEEN: tl.constexpr, BIASED: tl.constexpr, PROMPT: tl.constexpr,
):
    """(raw, score) of tokens of one row, fp32; minus infinity outside."""
    raw = tl.load(logits + row * logits_stride + token, mask=inside, other=float("-inf")).to(tl.float32)
    raw = tl.where(raw != raw, float("inf"), raw)
    x = raw
    if SEEN:
        slot = tl.load(slots + row * 2)
        at = seen + tl.maximum(slot, 0).to(tl.int64) * VOCABULARY
        mark = tl.load(at + token, mask=inside & (slot >= 0), other=0)
        by = tl.full(x.shape, tl.load(knobs + row * 5 + 1), tl.float32)
        x = tl.where(mark != 0, tl.where(x > 0.0, tl.div_rn(x, by), x * by), x)
        count = mark & (PROMPT - 1)
        less = count.to(tl.float32) * tl.load(knobs + row * 5 + 2) + tl.load(knobs + row * 5 + 3)
        x = tl.where(count > 0, x - less, x)
    if BIASED:
        slot = tl.load(slots + row * 2 + 1)
        at = bias + tl.maximum(slot, 0).to(tl.int64) * VOCABULARY
        added = tl.load(at + token, mask=inside & (slot >= 0), other=0.0)
        x = tl.where(added == float("-inf"), float("-inf"), x + added)
    temperature = tl.load(knobs + row * 5)
    score = tl.div_rn(x, tl.full(x.shape, tl.where(temperature > 0.0, temperature, 1.0), tl.float32))
    return raw, tl.where(score == 0.0, 0.0, score)  # of the two zeros one, for the ordered bits


@kernel()
def _drawn(scores, token, keys, knobs, row, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """Scores with the noise of their tokens; as they are in a greedy row."""
    drawn = scores
    if tl.load(knobs + row * 5) > 0.0:
        drawn = scores + noise_of(tl.load(keys + row), token, GOLDEN, FIRST, SECOND)
    return drawn


@kernel()
def best_of(values, token):
    """(largest, its lowest id) of a tile, over all of its dims."""
    top = tl.max(tl.ravel(values), axis=0)
    return top, tl.min(tl.ravel(tl.where(values == top, token, 2147483647)), axis=0)


@kernel()
def mass_of(scores, top):
    """e^(score - top), 1 at most; fp32 made wide, so that sums of them lose nothing."""
    anchor = tl.where(tl.abs(top) == float("inf"), 0.0, top)
    return tl.exp2((scores - anchor) * 1.4426950408889634).to(tl.float64)  # log2(e)


@kernel(needs=("wide loads",))
def _survey(
    logits, seen, bias, keys, knobs, slots, levels, masses, winners, tops, raw_tops, logits_stride,
    VOCABULARY: tl.constexpr, SEEN: tl.constexpr, BIASED: tl.constexpr, PROMPT: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr, GOLDEN: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr,
):
    """What is to be known of one block of one row.

    levels: largest score, the winner's score plus noise, its score; largest logit and the mass under it.
    """
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    group = block * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    raw, score = _scores(
        logits, seen, bias, knobs, slots, row, logits_stride, token, token < VOCABULARY,
        VOCABULARY, SEEN, BIASED, PROMPT,
    )
    group_tops = tl.max(score, axis=1)
    group_raws = tl.max(raw, axis=1)
    top = tl.max(group_tops, axis=0)
    raw_top = tl.max(group_raws, axis=0)
    best, winner = best_of(_drawn(score, token, keys, knobs, row, GOLDEN, FIRST, SECOND), token)
    own = tl.max(tl.ravel(tl.where(token == winner, score, float("-inf"))), axis=0)
    at = row * BLOCKS + block
    tl.store(tops + row * (BLOCKS * (BLOCK // GROUP)) + group, group_tops)
    tl.store(raw_tops + row * (BLOCKS * (BLOCK // GROUP)) + group, group_raws)
    tl.store(levels + at * 5, top)
    tl.store(levels + at * 5 + 1, best)
    tl.store(levels + at * 5 + 2, own)
    tl.store(levels + at * 5 + 3, raw_top)
    tl.store(levels + at * 5 + 4, tl.sum(tl.ravel(mass_of(raw, raw_top)), axis=0).to(tl.float32))
    tl.store(masses + at, tl.sum(tl.ravel(mass_of(score, top)), axis=0))
    tl.store(winners + at, winner)


@kernel()
def _listed(tops, least, hits):
    """Write the groups whose maximum is at least `least` to hits, in order; return how many."""
    hit = (tops >= least).to(tl.int32)
    place = tl.cumsum(hit, axis=0) - 1
    tl.debug_barrier()  # the last list has been read by all threads
    tl.store(hits + place, tl.arange(0, tops.shape[0]), mask=hit != 0)
    tl.debug_barrier()
    return tl.sum(hit, axis=0)


@kernel()
def _tile(hits, first, many, VOCABULARY: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr):
    """(tokens, which are there) of the listed groups from `first` on."""
    place = first + tl.arange(0, TILE)
    group = tl.load(hits + place, mask=place < many, other=0)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    return token, (place < many)[:, None] & (token < VOCABULARY)


@kernel()
def _above(
    logits, seen, bias, keys, knobs, slots, hits, row, logits_stride, many, top, floor, score, winner,
    VOCABULARY: tl.constexpr, SEEN: tl.constexpr, BIASED: tl.constexpr, PROMPT: tl.constexpr,
    GROUP: tl.constexpr, TILE: tl.constexpr, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
):
    """(count, mass, winner, its score) of what ranks above a winner; the next winner is not under the floor."""
    count = many * 0
    mass = count.to(tl.float64)
    best = tl.full([], float("-inf"), tl.float32)
    place = winner
    own = score
    for first in range(0, many, TILE):
        token, inside = _tile(hits, first, many, VOCABULARY, GROUP, TILE)
        _, some = _scores(
            logits, seen, bias, knobs, slots, row, logits_stride, token, inside,
            VOCABULARY, SEEN, BIASED, PROMPT,
        )
        above = inside & ((some > score) | ((some == score) & (token < winner)))
        count += tl.sum(tl.ravel(above.to(tl.int32)), axis=0)
        mass += tl.sum(tl.ravel(tl.where(above, mass_of(some, top), 0.0)), axis=0)
        drawn = _drawn(some, token, keys, knobs, row, GOLDEN, FIRST, SECOND)
        drawn = tl.where(above & (some >= floor), drawn, float("-inf"))
        tile_best, tile_place = best_of(drawn, token)
        tile_own = tl.max(tl.ravel(tl.where(token == tile_place, some, float("-inf"))), axis=0)
        place = tl.where(tile_best > best, tile_place, place)
        own = tl.where(tile_best > best, tile_own, own)
        best = tl.maximum(best, tile_best)
    return count, mass, place, own


@kernel()
def ordered(values):
    """fp32 without negative zero -> int32 in the same order."""
    bits = values.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@kernel()
def _mass_of_top_k(
    logits, seen, bias, knobs, slots, hits, row, logits_stride, tops, top, k,
    VOCABULARY: tl.constexpr, SEEN: tl.constexpr, BIASED: tl.constexpr, PROMPT: tl.constexpr,
    GROUP: tl.constexpr, TILE: tl.constexpr,
):
    """What the k highest scores weigh together. Both bisections keep: at least k values reach `low`."""
    order = ordered(tops)
    low = tl.min(order, axis=0).to(tl.int64)
    high = tl.max(order, axis=0).to(tl.int64)
    if k > tops.shape[0]:
        low = low * 0 - 2139095041  # minus infinity
        high = low
    while low < high:
        middle = low + (high - low + 1) // 2
        enough = tl.sum((order >= middle.to(tl.int32)).to(tl.int32), axis=0) >= k
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    many = _listed(order, low.to(tl.int32), hits)
    high = tl.max(order, axis=0).to(tl.int64)
    while low < high:
        middle = low + (high - low + 1) // 2
        count = many * 0
        for first in range(0, many, TILE):
            token, inside = _tile(hits, first, many, VOCABULARY, GROUP, TILE)
            _, some = _scores(
                logits, seen, bias, knobs, slots, row, logits_stride, token, inside,
                VOCABULARY, SEEN, BIASED, PROMPT,
            )
            reached = inside & (ordered(some) >= middle.to(tl.int32))
            count += tl.sum(tl.ravel(reached.to(tl.int32)), axis=0)
        low = tl.where(count >= k, middle, low)
        high = tl.where(count >= k, high, middle - 1)
    count = many * 0
    mass = count.to(tl.float64)
    last = mass
    for first in range(0, many, TILE):
        token, inside = _tile(hits, first, many, VOCABULARY, GROUP, TILE)
        _, some = _scores(
            logits, seen, bias, knobs, slots, row, logits_stride, token, inside,
            VOCABULARY, SEEN, BIASED, PROMPT,
        )
        weight = mass_of(some, top)
        over = inside & (ordered(some) > low.to(tl.int32))
        count += tl.sum(tl.ravel(over.to(tl.int32)), axis=0)
        mass += tl.sum(tl.ravel(tl.where(over, weight, 0.0)), axis=0)
        level = inside & (ordered(some) == low.to(tl.int32))
        last = tl.maximum(last, tl.max(tl.ravel(tl.where(level, weight, 0.0)), axis=0))
    return mass + (k - count).to(tl.float64) * last


@kernel()
def _choose(
    logits, seen, bias, keys, knobs, slots, top_k, top_p, levels, masses, winners, tops, hits, chosen, best,
    logits_stride,
    VOCABULARY: tl.constexpr, SEEN: tl.constexpr, BIASED: tl.constexpr, PROMPT: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr, GROUPS: tl.constexpr, GROUPS_PADDED: tl.constexpr,
    GROUP: tl.constexpr, TILE: tl.constexpr, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
):
    """The token of one row, from its blocks' winners; `best` is its score, which a damaged row has not finite."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS_PADDED)
    there = block < BLOCKS
    at = row * BLOCKS + block
    block_tops = tl.load(levels + at * 5, mask=there, other=float("-inf"))
    drawn = tl.load(levels + at * 5 + 1, mask=there, other=float("-inf"))
    won = tl.load(winners + at, mask=there, other=2147483647)
    top = tl.max(block_tops, axis=0)
    _, winner = best_of(drawn, won)
    score = tl.max(
        tl.where(won == winner, tl.load(levels + at * 5 + 2, mask=there, other=0.0), float("-inf")), axis=0
    )
    k = tl.load(top_k + row)
    k = tl.where((k > 0) & (k < VOCABULARY), k, VOCABULARY)
    p = tl.load(top_p + row)
    floor = top + tl.load(knobs + row * 5 + 4)
    filters = (k < VOCABULARY) | (p < 1.0) | (tl.load(knobs + row * 5 + 4) > float("-inf"))
    if filters & (tl.load(knobs + row * 5) > 0.0):
        groups = tl.arange(0, GROUPS_PADDED)
        highest = tl.load(tops + row * GROUPS + groups, mask=groups < GROUPS, other=float("-inf"))
        listed = hits + row * GROUPS_PADDED
        total = tl.sum(
            tl.load(masses + at, mask=there, other=0.0)
            * mass_of(tl.where(there, block_tops, float("-inf")), top),
            axis=0,
        )
        if (k < VOCABULARY) & (p < 1.0):
            total = _mass_of_top_k(
                logits, seen, bias, knobs, slots, listed, row, logits_stride, highest, top, k,
                VOCABULARY, SEEN, BIASED, PROMPT, GROUP, TILE,
            )
        if p < 1.0:
            total = total * p
        else:
            total = total * float("inf")
        stays = 0
        while stays == 0:
            many = _listed(highest, score, listed)
            count, mass, next_winner, next_score = _above(
                logits, seen, bias, keys, knobs, slots, listed, row, logits_stride, many, top, floor, score,
                winner, VOCABULARY, SEEN, BIASED, PROMPT, GROUP, TILE, GOLDEN, FIRST, SECOND,
            )
            kept = (count == 0) | ((count < k) & (mass < total) & (score >= floor))
            stays = kept.to(tl.int32)
            winner = tl.where(kept, winner, next_winner)
            score = tl.where(kept, score, next_score)
    tl.store(chosen + row, winner.to(tl.int64))
    tl.store(best + row, score)


# fmt: on
@attrs.frozen(eq=False)
class Survey:
    """What the first launch leaves for the others: scratch, [rows, blocks or groups of the vocabulary]."""

    levels: Tensor
    masses: Tensor
    winners: Tensor
    tops: Tensor
    raw_tops: Tensor
    hits: Tensor

    @classmethod
    def of(cls, rows: int, vocabulary: int, device: torch.device) -> Survey:
        """Allocate for so many rows: 52 bytes per row and block, 12 per row and group."""
        blocks = -(-vocabulary // BLOCK)
        groups = blocks * (BLOCK // GROUP)

        def empty(width: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(rows, width, dtype=dtype, device=device)

        return cls(
            levels=empty(blocks * 5, torch.float32),
            masses=empty(blocks, torch.float64),
            winners=empty(blocks, torch.int32),
            tops=empty(groups, torch.float32),
            raw_tops=empty(groups, torch.float32),
            hits=empty(power_of_two(groups), torch.int32),
        )

    def arguments(self) -> dict[str, object]:
        """The tensors and their widths, as the kernels name them."""
        blocks, groups = self.winners.shape[1], self.tops.shape[1]
        sizes = {"BLOCKS": blocks, "BLOCKS_PADDED": power_of_two(blocks), "GROUPS": groups, "GROUP": GROUP}
        return attrs.asdict(self, recurse=False) | sizes | {"GROUPS_PADDED": power_of_two(groups)}


def choose_launches(
    logits: Tensor, controls: Controls, survey: Survey, ids: Tensor, best: Tensor
) -> tuple[Launch, Launch]:
    """Survey and choose. ids: [rows] int64; best: [rows] fp32, not finite if nothing could be chosen."""
    _check(logits, controls, ids, best)
    return _survey_launch(logits, controls, survey), _choose_launch(logits, controls, survey, ids, best)


def _survey_launch(logits: Tensor, controls: Controls, survey: Survey) -> Launch:
    blocks = survey.winners.shape[1]
    arguments = _common(logits, controls) | survey.arguments() | {"BLOCK": BLOCK}
    return Launch(_survey, (len(logits), blocks), _survey.of(arguments), warps=2)


def _choose_launch(logits: Tensor, controls: Controls, survey: Survey, ids: Tensor, best: Tensor) -> Launch:
    arguments = _common(logits, controls) | survey.arguments()
    arguments |= {"top_k": controls.top_k, "top_p": controls.top_p, "TILE": TILE, "chosen": ids, "best": best}
    return Launch(_choose, (len(logits),), _choose.of(arguments), warps=8)


def _common(logits: Tensor, controls: Controls) -> dict[str, object]:
    """What the two kernels that make scores are told."""
    seen, bias = controls.seen, controls.bias
    common = {"logits": logits, "logits_stride": logits.stride(0), "VOCABULARY": logits.shape[1]}
    common |= {"keys": controls.keys, "knobs": controls.knobs, "slots": controls.slots}
    common |= {"seen": controls.slots if seen is None else seen, "SEEN": seen is not None}
    common |= {"bias": controls.knobs if bias is None else bias, "BIASED": bias is not None}
    common |= {"PROMPT": PROMPT, "GROUP": GROUP}
    return common | {"GOLDEN": GOLDEN, "FIRST": MIX[0], "SECOND": MIX[1]}


def _check(logits: Tensor, controls: Controls, ids: Tensor, best: Tensor) -> None:
    rows, vocabulary = logits.shape
    check("logits", logits, *FLOATS, shape=(rows, vocabulary))
    check_dense("logits", logits, 1)
    controls.check(rows, vocabulary)
    check("ids", ids, torch.int64, shape=(rows,))
    check("best", best, torch.float32, shape=(rows,))
    if not 0 < vocabulary <= VOCABULARY_MAX:
        raise ValueError(f"`logits` have {vocabulary} columns, but must have 1 to {VOCABULARY_MAX}")


def choose_triton(logits: Tensor, controls: Controls) -> Tensor:
    """As `choose.choose_reference`. logits: [rows, vocabulary] float, rows may have gaps; not overwritten.

    ValueError, before anything is launched, if a tensor does not fit.
    """
    rows, vocabulary = logits.shape
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    best = torch.empty(rows, dtype=torch.float32, device=logits.device)
    survey = Survey.of(rows, vocabulary, logits.device)
    for launch in choose_launches(logits, controls, survey, ids, best):
        launch.run()
    return ids


def _build(*, tables: bool) -> tuple[Launch, Launch]:
    """Eight rows of 128,256 for the gate: fp32 with every table, or bf16 with none."""
    logits = torch.empty(8, 128_256, dtype=torch.float32 if tables else torch.bfloat16, device="meta")
    given = {"seen": logits.to(torch.int32), "bias": logits} if tables else {}
    controls = Controls.of([Control(0)] * 8, "meta", **given)
    survey = Survey.of(8, 128_256, logits.device)
    return choose_launches(logits, controls, survey, controls.keys, logits.new_empty(8, dtype=torch.float32))


OP = attrs.evolve(
    choose.OP,
    implementations={"triton": choose_triton},
    builds=(
        Build("bf16, 8 rows of 128 256", lambda: _build(tables=False)),
        Build("fp32, penalties and biases", lambda: _build(tables=True)),
    ),
)
