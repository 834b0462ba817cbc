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

from kernels.sample import draw_key
from node.engine.plan import NotFinite, Row, Sampled, Sampling

Gumbel = Callable[[Tensor, int], Tensor]

TEMPERATURE_MIN = 1e-5
"""Below it is greedy, as in vLLM (`_SAMPLING_EPS`): divided by less, scores leave the range of fp32."""


def sample(logits: Tensor, rows: Sequence[Row], gumbel: Gumbel) -> tuple[Sampled, ...]:
    """Choose one token per row. logits: [len(rows), vocabulary] fp32; may be overwritten.

    The draw's position is `row.start + len(row.ids)`: that of the new token, counted from the prompt's
    first. Raises `NotFinite` for the first row whose every score is unusable.
    """
    reports = [_report(logits[index], row.sampling) for index, row in enumerate(rows)]
    for index, row in enumerate(rows):
        if shapes(row):
            shape_logits(logits[index], row)
    scores = _draw_scores(logits, rows, gumbel)
    best, ids = scores.max(-1)  # the first of equal ones
    chosen = zip(rows, ids.tolist(), best.tolist(), reports, strict=True)
    return tuple(_sampled(row, token, score, report) for row, token, score, report in chosen)


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
    order: Tensor | None = None
    if 0 < sampling.top_k < len(scores):
        order = _ranked(scores)[: sampling.top_k]
    if sampling.top_p < 1.0:
        order = _ranked(scores) if order is None else order
        mass = torch.softmax(scores[order].double(), -1).cumsum(-1)
        order = order[: int((mass < sampling.top_p).sum()) + 1]
    if order is not None:
        scores = torch.full_like(scores, -torch.inf).index_put_((order,), scores[order])
    if sampling.min_p > 0.0:
        floor = scores.max() + math.log(sampling.min_p)
        scores = scores.masked_fill(scores < floor, -torch.inf)
    return scores if sampling.typical_p >= 1.0 else _typical(scores, sampling.typical_p)


def _typical(scores: Tensor, mass: float) -> Tensor:
    """Keep the tokens whose surprise -log p is nearest to its mean, the entropy, until they have `mass`.

    Locally typical sampling (Meister et al., arXiv 2202.00666, equation 9).
    """
    logs = torch.log_softmax(scores.double(), -1)
    weights = logs.exp()
    entropy = -(weights * logs).nan_to_num().sum()
    order = (logs + entropy).abs().sort(stable=True).indices
    count = int((weights[order].cumsum(-1) < mass).sum()) + 1
    kept = order[:count]
    return torch.full_like(scores, -torch.inf).index_put_((kept,), scores[kept])


def _ranked(scores: Tensor) -> Tensor:
    """Token ids from the highest score down, the lower id first among equals."""
    return scores.sort(descending=True, stable=True).indices


def shapes(row: Row) -> bool:
    """Whether anything changes the logits before temperature."""
    sampling = row.sampling
    penalties = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
    return bool(penalties or sampling.logit_bias or sampling.banned or row.allowed is not None)


def filters(sampling: Sampling) -> bool:
    """Whether tokens are cut after temperature."""
    return sampling.top_p < 1.0 or sampling.top_k > 0 or sampling.min_p > 0.0 or sampling.typical_p < 1.0


def _draw_scores(logits: Tensor, rows: Sequence[Row], gumbel: Gumbel) -> Tensor:
    """What the chosen token must maximise: logits if greedy, else filtered scores plus noise."""
    drawn = [index for index, row in enumerate(rows) if row.sampling.temperature >= TEMPERATURE_MIN]
    if not drawn:
        return logits
    keys = [draw_key(rows[i].sampling.seed, rows[i].start + len(rows[i].ids)) for i in drawn]
    temperatures = torch.tensor([[rows[i].sampling.temperature] for i in drawn], dtype=torch.float32)
    scores = logits[drawn] / temperatures
    for place, index in enumerate(drawn):
        if filters(rows[index].sampling):
            scores[place] = filter_scores(scores[place], rows[index].sampling)
    logits[drawn] = scores + gumbel(torch.tensor(keys), logits.shape[-1])
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
    ids = _ranked(logprobs)[: sampling.logprobs]
    return _Report(logprobs, tuple(zip(ids.tolist(), logprobs[ids].tolist(), strict=True)))


def _sampled(row: Row, token: int, score: float, report: _Report | None) -> Sampled:
    if not math.isfinite(score):
        raise NotFinite(row.sequence)
    if report is None:
        return Sampled(row.sequence, token)
    return Sampled(row.sequence, token, float(report.logprobs[token]), report.top)
