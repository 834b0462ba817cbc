"""The keyed draw: a pure function of (seed, position, token), distributed as softmax says."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.sample import OP, draw_key, gumbel, mix

CRITICAL_999 = {9: 27.88, 49: 85.35}
"""Chi-square's 99.9 % points by degrees of freedom."""


def test_mix_is_murmur3s_finaliser():
    assert mix(0) == 0
    assert mix(1) == 0xB456BCFC34C2CB2C  # fmix64(1), from the C reference
    assert len({mix(value) for value in range(10_000)}) == 10_000


def test_rare_hashes_have_finite_noise_of_the_right_size():
    """The least uniform value makes the largest noise, and the largest, which fp32 would round to 1, the least."""
    keys, vocabulary = next(case for case in OP.cases if case.name == "rare hashes").make(None, None)
    noise = gumbel(keys, vocabulary)[:, 0]
    assert noise.isfinite().all()
    assert math.isclose(noise[0], 54 * math.log(2), rel_tol=1e-6)
    assert math.isclose(noise[-1], -math.log(24 * math.log(2)), rel_tol=1e-6)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(2, 300))
def test_noise_is_a_pure_function_of_its_key(seed: int, position: int, vocabulary: int):
    key = draw_key(seed, position)
    alone = gumbel(torch.tensor([key]), vocabulary)
    beside = gumbel(torch.tensor([key ^ 1, key, 5]), vocabulary)
    assert torch.equal(beside[1], alone[0])
    assert torch.equal(gumbel(torch.tensor([key]), vocabulary + 7)[0, :vocabulary], alone[0])
    assert alone.isfinite().all()


def test_seeds_and_positions_give_different_keys():
    keys = {draw_key(seed, position) for seed in range(200) for position in range(200)}
    assert len(keys) == 40_000


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def winners(scores: torch.Tensor, keys: list[int]) -> torch.Tensor:
    return (scores + gumbel(torch.tensor(keys), len(scores))).argmax(-1)


def test_winners_follow_the_softmax_over_positions_and_over_seeds():
    scores = torch.linspace(0, 3, 10)
    for keys in (
        [draw_key(42, position) for position in range(40_000)],
        [draw_key(seed, 7) for seed in range(40_000)],
    ):
        counts = torch.bincount(winners(scores, keys), minlength=10).double()
        assert chi_square(counts, scores.double().softmax(-1)) < CRITICAL_999[9]


def test_the_statistic_sees_a_distribution_that_is_a_little_off():
    scores = torch.linspace(0, 3, 10)
    keys = [draw_key(42, position) for position in range(40_000)]
    counts = torch.bincount(winners(scores * 0.95, keys), minlength=10).double()
    assert chi_square(counts, scores.double().softmax(-1)) > CRITICAL_999[9]


def test_consecutive_positions_are_independent():
    keys = [draw_key(3, position) for position in range(60_001)]
    tokens = winners(torch.zeros(7), keys)
    pairs = torch.bincount(tokens[:-1] * 7 + tokens[1:], minlength=49).double()
    assert chi_square(pairs, torch.full((49,), 1 / 49)) < CRITICAL_999[49]


def test_rare_tokens_are_drawn_as_often_as_they_should_be():
    """Wins of a token with a probability of 1 in 7,700 are Poisson around the expectation."""
    scores = torch.zeros(20)
    scores[0] = -6.0
    keys = [draw_key(9, position) for position in range(200_000)]
    wins = sum(int((winners(scores, keys[low : low + 5000]) == 0).sum()) for low in range(0, len(keys), 5000))
    expected = len(keys) * math.exp(-6) / (19 + math.exp(-6))
    assert abs(wins - expected) < 4 * math.sqrt(expected)
