"""What is drawn is distributed as a float64 reference says: chi-square, with a bound on false alarms."""

import math

import pytest
import torch

from kernels.sample import gumbel
from node.engine.plan import Row, Sampling
from node.engine.sampler import sample

LOGITS = (2.0, 1.5, 1.5, 0.7, 0.0, -0.3, -1.0, 3.1, -2.5, 0.2, 1.1, -0.8)
PROMPT, PRODUCED = (0, 7, 3), (1, 1, 10, 4)
DRAWS = 6000
FALSE_ALARM = 1e-6
ALLOWED = b"\xdb\x0e"
"""All but 2, 5, 8 and above 11."""

CASES = {
    "temperature": {"temperature": 0.7},
    "hot": {"temperature": 2.0},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.8},
    "top_k and top_p": {"top_k": 6, "top_p": 0.7, "temperature": 1.4},
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.6},
    "typical_p over top_k": {"typical_p": 0.8, "top_k": 8, "temperature": 1.3},
    "penalties": {"frequency_penalty": 0.8, "presence_penalty": 0.4, "repetition_penalty": 1.3},
    "bias and bans": {"logit_bias": ((8, 4.0), (7, -3.0)), "banned": (0,)},
    "grammar": {"allowed": ALLOWED},
    "everything": {
        "temperature": 1.2, "top_k": 9, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.97, "frequency_penalty": 0.3,
        "repetition_penalty": 1.1, "logit_bias": ((8, 3.0),), "banned": (0,), "allowed": ALLOWED,
    },
}  # fmt: skip


def softmax(scores: dict[int, float]) -> dict[int, float]:
    top = max(scores.values())
    weights = {id: math.exp(score - top) for id, score in scores.items()}
    total = math.fsum(weights.values())
    return {id: weight / total for id, weight in weights.items()}


def reference(sampling: Sampling, allowed: bytes | None) -> dict[int, float]:
    """The distribution, in Python's floats, id by id."""
    scores = dict(enumerate(LOGITS))
    for id in {*PROMPT, *PRODUCED}:
        penalty = sampling.repetition_penalty
        scores[id] = scores[id] / penalty if scores[id] > 0 else scores[id] * penalty
    for id in set(PRODUCED):
        scores[id] -= PRODUCED.count(id) * sampling.frequency_penalty + sampling.presence_penalty
    for id, bias in sampling.logit_bias:
        scores[id] += bias
    gone = set(sampling.banned)
    if allowed is not None:
        gone |= {id for id in scores if not allowed[id // 8] >> id % 8 & 1}
    scores = {id: score / sampling.temperature for id, score in scores.items() if id not in gone}
    return softmax(cut(scores, sampling))


def cut(scores: dict[int, float], sampling: Sampling) -> dict[int, float]:
    ranked = sorted(scores, key=lambda one: (-scores[one], one))[: sampling.top_k or None]
    if sampling.top_p < 1.0:
        ranked = until(ranked, softmax({id: scores[id] for id in ranked}), sampling.top_p)
    kept = {id: scores[id] for id in ranked}
    if sampling.min_p:
        floor = max(kept.values()) + math.log(sampling.min_p)
        kept = {id: score for id, score in kept.items() if score >= floor}
    if sampling.typical_p < 1.0:
        shares = softmax(kept)
        entropy = -math.fsum(share * math.log(share) for share in shares.values())
        nearest = sorted(shares, key=lambda one: (abs(-math.log(shares[one]) - entropy), one))
        kept = {id: kept[id] for id in until(nearest, shares, sampling.typical_p)}
    return kept


def until(order: list[int], shares: dict[int, float], mass: float) -> list[int]:
    taken, total = [], 0.0
    for id in order:
        taken.append(id)
        total += shares[id]
        if total >= mass:
            break
    return taken


def counts(sampling: Sampling, allowed: bytes | None) -> list[int]:
    """Draw once at each of many positions."""
    rows = [Row(n, (1,), n, (0,), True, sampling, PROMPT, PRODUCED, allowed=allowed) for n in range(DRAWS)]
    drawn = sample(torch.tensor([LOGITS] * DRAWS), rows, gumbel)
    return torch.bincount(torch.tensor([one.id for one in drawn]), minlength=len(LOGITS)).tolist()


def excess(seen: list[int], shares: dict[int, float]) -> float:
    """Chi-square over its bound: above 1 with a probability of at most FALSE_ALARM if the shares are right.

    P(X > k + 2 sqrt(k x) + 2 x) <= exp(-x) for chi-square of k degrees (Laurent, Massart 2000, lemma 1). Rare
    ids are pooled, as the approximation by chi-square demands.
    """
    assert all(count == 0 for id, count in enumerate(seen) if id not in shares)
    rare = [id for id in shares if shares[id] * DRAWS < 20]
    cells = [(seen[id], shares[id] * DRAWS) for id in shares if id not in rare]
    if rare:
        cells.append((sum(seen[id] for id in rare), max(math.fsum(shares[id] for id in rare) * DRAWS, 1.0)))
    statistic = math.fsum((count - expected) ** 2 / expected for count, expected in cells)
    k, x = max(len(cells) - 1, 1), -math.log(FALSE_ALARM)
    return statistic / (k + 2 * math.sqrt(k * x) + 2 * x)


@pytest.mark.parametrize("case", CASES)
def test_draws_follow_the_reference(case: str):
    names = dict(CASES[case])
    allowed = names.pop("allowed", None)
    sampling = Sampling(seed=len(case), **names)
    shares = reference(sampling, allowed)
    assert 1 < len(shares) <= len(LOGITS)
    assert excess(counts(sampling, allowed), shares) < 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"temperature": 0.8}, {"temperature": 0.7}),
        ({"top_k": 4}, {"top_k": 5}),
        ({"frequency_penalty": 0.8}, {"frequency_penalty": 0.5}),
        ({"min_p": 0.2}, {"min_p": 0.25}),
        ({"logit_bias": ((8, 4.0),)}, {"logit_bias": ((8, 3.7),)}),
    ],
)
def test_a_wrong_distribution_is_noticed(said: dict, meant: dict):
    seen, shares = counts(Sampling(1, **said), None), reference(Sampling(1, **meant), None)
    if any(count and id not in shares for id, count in enumerate(seen)):
        return
    assert excess(seen, shares) > 1
