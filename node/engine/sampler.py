"""From logits to tokens, each a pure function of its own row, its `Sampling` and its position.

Order: log-probabilities are taken from the raw logits; then repetition, frequency and presence penalties,
logit bias, banned ids, the grammar; then temperature, top-k, top-p (over what top-k left), min-p (against the
likeliest), typical; then the keyed draw of `kernels.sample` among the survivors. Ties go to the lowest id everywhere. A
temperature below `TEMPERATURE_MIN` takes the likeliest after penalties, bias and bans, and draws nothing.

Invariant: a row never meets another row's numbers. What is done to several rows at once is done elementwise,
and the rest row by row, so a token is the same alone and in any batch.
"""

import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from kernels.sample import draw_key, gumbel_at
from node.engine.plan import NotFinite, Row, Sampled, Sampling

Gumbel = Callable[[Tensor, int], Tensor]

CANDIDATES = (1024, 16384)
"""Likeliest tokens that are ranked first, before it is known whether all are needed."""
CLOSE = 1e-9
"""Sums of probabilities nearer to a bound than this are not trusted to their order."""
TEMPERATURE_MIN = 1e-5
"""Below it is greedy, as in vLLM (`_SAMPLING_EPS`): divided by less, scores leave the range of fp32."""


def sample(logits: Tensor, rows: Sequence[Row], gumbel: Gumbel) -> tuple[Sampled, ...]:
    """Choose one token per row. logits: [len(rows), vocabulary] fp32; may be overwritten.

    The draw's position is `row.start + len(row.ids)`: that of the new token, counted from the prompt's
    first. Raises `NotFinite` for the first row whose every score is unusable.
    """
    reports = [_report(logits[index], row.sampling) for index, row in enumerate(rows)]
    for index, row in enumerate(rows):
        if row.target is None and shapes(row):
            shape_logits(logits[index], row)
    best, ids = _draw_scores(logits, rows, gumbel).max(-1)  # the first of equal ones
    chosen = list(zip(ids.tolist(), best.tolist(), strict=True))
    for index, row in enumerate(rows):
        if _draws(row) and filters(row.sampling):
            chosen[index] = _draw_survivor(logits[index] / torch.tensor(row.sampling.temperature), row)
    found = zip(rows, chosen, reports, strict=True)
    return tuple(_sampled(row, token, score, report) for row, (token, score), report in found)


def _draw_survivor(scores: Tensor, row: Row) -> tuple[int, float]:
    """The drawn token of a row with filters, and its score with noise. scores: [vocabulary] after temperature."""
    ids = survivors(scores, row.sampling).sort().values  # the lowest id first among equals
    noise = gumbel_at(_key(row), ids)
    best, place = (scores[ids] + noise).max(-1)
    return int(ids[place]), float(best)


def _key(row: Row) -> int:
    return draw_key(row.sampling.seed, row.start + len(row.ids))


def shape_logits(logits: Tensor, row: Row) -> None:
    """Apply penalties, bias, bans and the grammar to one row's logits: [vocabulary] fp32, in place."""
    sampling = row.sampling
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt, *row.produced}), dtype=torch.int64)
        values = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if row.produced and (sampling.frequency_penalty or sampling.presence_penalty):
        produced, counts = torch.tensor(row.produced, dtype=torch.int64).unique(return_counts=True)
        logits[produced] -= counts.float() * sampling.frequency_penalty + sampling.presence_penalty
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    for token in sampling.banned:
        logits[token] = -torch.inf
    if row.allowed is not None:
        bits = np.unpackbits(np.frombuffer(row.allowed, np.uint8), count=len(logits), bitorder="little")
        logits.masked_fill_(torch.from_numpy(bits == 0).to(logits.device), -torch.inf)


def filter_scores(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores [vocabulary] fp32 after temperature -> the same with the cut tokens at minus infinity."""
    kept = survivors(scores, sampling)
    return torch.full_like(scores, -torch.inf).index_put_((kept,), scores[kept])


def survivors(scores: Tensor, sampling: Sampling) -> Tensor:
    """Ids [n] int64 of the tokens that the filters leave of scores [vocabulary] fp32 after temperature."""
    order: Tensor | None = None
    if 0 < sampling.top_k < len(scores):
        order = ranked(scores, sampling.top_k)
    if sampling.top_p < 1.0:
        order = (
            _nucleus(scores, sampling.top_p)
            if order is None
            else _reaching(scores[order], order, sampling.top_p)
        )
    if sampling.min_p > 0.0:
        floor = scores.max() + math.log(sampling.min_p)
        order = (scores >= floor).nonzero().squeeze(-1) if order is None else order[scores[order] >= floor]
    if sampling.typical_p < 1.0:
        left = (
            scores
            if order is None
            else torch.full_like(scores, -torch.inf).index_put_((order,), scores[order])
        )
        return _typical(left, sampling.typical_p)
    return torch.arange(len(scores)) if order is None else order


def _reaching(scores: Tensor, order: Tensor, mass: float) -> Tensor:
    """The first of ranked tokens that together have `mass` of all of them."""
    reached = torch.softmax(scores.double(), -1).cumsum(-1)
    return order[: int((reached < mass).sum()) + 1]


def _nucleus(scores: Tensor, mass: float) -> Tensor:
    """The likeliest tokens that reach `mass`, ranked. Sorts the likeliest `CANDIDATES` only, if that decides it.

    A sum in another order than the whole sort's differs by rounding, at most 1e-11 here: where a partial sum is
    nearer than `CLOSE` to `mass`, or the candidates do not reach it, all are sorted.
    """
    weights = (scores.double() - scores.max().double()).exp_()
    whole = weights.sum()
    for count in CANDIDATES:
        if count >= len(scores):
            break
        order = ranked(scores, count)
        reached = (weights[order] / whole).cumsum(-1)
        if float(reached[-1]) > mass and float((reached - mass).abs().min()) > CLOSE:
            return order[: int((reached < mass).sum()) + 1]
    order = ranked(scores)
    return _reaching(scores[order], order, mass)


def _typical(scores: Tensor, mass: float) -> Tensor:
    """Keep the tokens whose surprise -log p is nearest to its mean, the entropy, until they have `mass`.

    Locally typical sampling (Meister et al., arXiv 2202.00666, equation 9).
    """
    logs = torch.log_softmax(scores.double(), -1)
    weights = logs.exp()
    entropy = -(weights * logs).nan_to_num().sum()
    order = (logs + entropy).abs().sort(stable=True).indices
    return order[: int((weights[order].cumsum(-1) < mass).sum()) + 1]


def ranked(scores: Tensor, count: int = 0) -> Tensor:
    """Ids of the `count` highest of scores [n] (0: all) from the highest down, the lower id first among equals.

    Sorts no more than those at least as high as the last of them.
    """
    if not 0 < count < len(scores) or bool(scores.isnan().any()):
        return scores.sort(descending=True, stable=True).indices[: count or len(scores)]
    last = scores.topk(count, sorted=False).values.min()
    likeliest = (scores >= last).nonzero().squeeze(-1)
    return likeliest[scores[likeliest].sort(descending=True, stable=True).indices[:count]]


def shapes(row: Row) -> bool:
    """Whether anything changes the logits before temperature."""
    sampling = row.sampling
    penalties = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    return bool(penalties or sampling.logit_bias or sampling.banned or row.allowed is not None)


def filters(sampling: Sampling) -> bool:
    """Whether tokens are cut after temperature."""
    return sampling.top_p < 1.0 or sampling.top_k > 0 or sampling.min_p > 0.0 or sampling.typical_p < 1.0


def _draws(row: Row) -> bool:
    """Whether chance decides; not where a token of the prompt is scored."""
    return row.target is None and row.sampling.temperature >= TEMPERATURE_MIN


def _draw_scores(logits: Tensor, rows: Sequence[Row], gumbel: Gumbel) -> Tensor:
    """What the chosen token must maximise: logits if greedy, else scores plus noise. Rows with filters are left."""
    drawn = [index for index, row in enumerate(rows) if _draws(row) and not filters(row.sampling)]
    if not drawn:
        return logits
    temperatures = torch.tensor([[rows[i].sampling.temperature] for i in drawn], dtype=torch.float32)
    keys = torch.tensor([_key(rows[i]) for i in drawn])
    logits[drawn] = logits[drawn] / temperatures + gumbel(keys, logits.shape[-1])
    return logits


@attrs.frozen(eq=False)
class _Report:
    """Log-probabilities that were asked for, before anything changed the logits."""

    logprobs: Tensor
    top: tuple[tuple[int, float], ...]


def _report(logits: Tensor, sampling: Sampling) -> _Report | None:
    if sampling.logprobs is None:
        return None
    logprobs = torch.log_softmax(logits, -1)
    ids = (
        ranked(logprobs, sampling.logprobs) if sampling.logprobs else logprobs.new_empty(0, dtype=torch.int64)
    )
    return _Report(logprobs, tuple(zip(ids.tolist(), logprobs[ids].tolist(), strict=True)))


def _sampled(row: Row, token: int, score: float, report: _Report | None) -> Sampled:
    if not math.isfinite(score):
        raise NotFinite(row.sequence)
    if report is None:
        return Sampled(row.sequence, token)
    if row.target is not None:
        token = row.target
    logprob = report.logprobs[token]
    rank = 0 if row.target is None else int((report.logprobs > logprob).sum()) + 1
    return Sampled(row.sequence, token, float(logprob), report.top, rank)
