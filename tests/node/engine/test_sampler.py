"""Each control of the sampler does what its definition says, and a row never meets another."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.sample import draw_key, gumbel, gumbel_at
from node.engine import sampler
from node.engine.plan import NotFinite, Row, Sampled, Sampling
from node.engine.sampler import filter_scores, sample, shape_logits

VOCABULARY = 50
CRITICAL_999 = 27.88
"""Chi-square's 99.9 % point for nine degrees of freedom."""


def row(
    sampling: Sampling, position: int = 8, prompt: tuple[int, ...] = (), produced: tuple[int, ...] = ()
) -> Row:
    return Row(1, (5,), position - 1, (0,), True, sampling, prompt, produced)


def draw(logits: torch.Tensor, *rows: Row) -> tuple[Sampled, ...]:
    return sample(logits.clone(), rows, gumbel)


def one(logits: list[float], sampling: Sampling, **known: object) -> int:
    return draw(torch.tensor([logits]), row(sampling, **known))[0].id


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def survivors(logits: list[float], sampling: Sampling) -> set[int]:
    return {
        i
        for i, score in enumerate(filter_scores(torch.tensor(logits), sampling).tolist())
        if score > -math.inf
    }


def test_greedy_takes_the_likeliest_and_the_lowest_id_of_equals():
    assert one([1.0, 3.0, 3.0, 2.0], Sampling(seed=0, temperature=0.0)) == 1


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-300])
def test_a_vanishing_temperature_is_greedy(temperature: float):
    assert one([1.0, 3.0, 3.0, -2.0], Sampling(seed=0, temperature=temperature)) == 1


def test_scores_that_overflow_are_no_scores():
    with pytest.raises(NotFinite):
        one([1.0, math.inf], Sampling(seed=0, temperature=0.0))


samplings = st.builds(
    Sampling,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 1.0]),
    presence_penalty=st.sampled_from([0.0, -1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (4, -100.0))]),
    logprobs=st.sampled_from([None, 0, 3]),
    banned=st.sampled_from([(), (2, 7)]),
)


@given(st.lists(st.tuples(samplings, st.integers(1, 5000)), min_size=2, max_size=6), st.randoms())
def test_a_token_is_the_same_alone_and_in_any_batch(
    requests: list[tuple[Sampling, int]], shuffler: random.Random
):
    rows = [row(s, position, (1, 2, 3), (3, 3, 9)) for s, position in requests]
    logits = random_logits(len(rows))
    alone = [draw(logits[i : i + 1], each)[0] for i, each in enumerate(rows)]
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    together = draw(logits[order], *(rows[i] for i in order))
    assert [alone[i] for i in order] == list(together)


def test_the_draw_depends_on_the_absolute_position_not_on_the_cut():
    sampling = Sampling(seed=5, temperature=2.0)
    logits = random_logits(1)
    decode, prefill = row(sampling, 100), Row(1, tuple(range(60)), 40, (0,), True, sampling)
    assert draw(logits, decode) == draw(logits, prefill)
    assert len({draw(logits, row(sampling, position))[0].id for position in range(1, 60)}) > 3


def counts(logits: torch.Tensor, sampling: Sampling, draws: int = 20_000) -> torch.Tensor:
    """How often each id wins over as many positions."""
    ids: list[int] = []
    for low in range(0, draws, 2000):
        rows = [row(sampling, position) for position in range(low + 1, low + 2001)]
        ids += [one.id for one in sample(logits.repeat(2000, 1), rows, gumbel)]
    return torch.bincount(torch.tensor(ids), minlength=logits.shape[-1]).double()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution_at_each_temperature(temperature: float):
    logits = torch.linspace(-1, 1, 10).unsqueeze(0)
    expected = (logits[0].double() / temperature).softmax(-1) * 20_000
    observed = counts(logits, Sampling(seed=3, temperature=temperature))
    assert float(((observed - expected) ** 2 / expected).sum()) < CRITICAL_999
    others = (logits[0].double() / (temperature * 1.3)).softmax(-1) * 20_000
    assert float(((observed - others) ** 2 / others).sum()) > CRITICAL_999


def test_top_k_keeps_the_k_likeliest_and_the_lower_ids_of_equals():
    assert survivors([1.0, 2.0, 2.0, 2.0, 0.0], Sampling(seed=0, top_k=2)) == {1, 2}
    assert survivors([1.0, 2.0], Sampling(seed=0, top_k=5)) == {0, 1}


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = [math.log(p) for p in (0.1, 0.5, 0.15, 0.25)]
    assert survivors(logits, Sampling(seed=0, top_p=0.4)) == {1}
    assert survivors(logits, Sampling(seed=0, top_p=0.6)) == {1, 3}
    assert survivors(logits, Sampling(seed=0, top_p=0.76)) == {1, 2, 3}
    assert survivors(logits, Sampling(seed=0, top_p=1e-9)) == {1}


def test_top_p_counts_what_top_k_left():
    logits = [math.log(p) for p in (0.1, 0.5, 0.15, 0.25)]
    assert survivors(logits, Sampling(seed=0, top_k=2, top_p=0.65)) == {1}


def test_min_p_keeps_a_fraction_of_the_likeliest():
    logits = [math.log(p) for p in (0.1, 0.5, 0.14, 0.26)]
    assert survivors(logits, Sampling(seed=0, min_p=0.25)) == {1, 2, 3}
    assert survivors(logits, Sampling(seed=0, min_p=1.0)) == {1}


@given(samplings, st.integers(0, 100))
def test_filters_always_leave_the_likeliest(sampling: Sampling, seed: int):
    scores = random_logits(1, seed)[0]
    assert int(scores.argmax()) in survivors(scores.tolist(), sampling)


def shaped(
    logits: list[float], sampling: Sampling, prompt: tuple[int, ...], produced: tuple[int, ...]
) -> list[float]:
    values = torch.tensor(logits)
    shape_logits(values, row(sampling, prompt=prompt, produced=produced))
    return values.tolist()


def test_penalties_follow_their_formulas():
    known = {"prompt": (0, 1), "produced": (1, 2, 2)}
    assert shaped([1.0, 1.0, 1.0, 1.0], Sampling(seed=0, frequency_penalty=0.5), **known) == [1, 0.5, 0, 1]
    assert shaped([1.0, 1.0, 1.0, 1.0], Sampling(seed=0, presence_penalty=0.5), **known) == [1, 0.5, 0.5, 1]
    assert shaped([2.0, -2.0, 4.0, 1.0], Sampling(seed=0, repetition_penalty=2.0), **known) == [1, -4, 2, 1]


def test_bias_is_added_and_the_banned_never_win():
    sampling = Sampling(seed=0, temperature=0.0, logit_bias=((0, 100.0),), banned=(2,))
    assert one([1.0, 5.0, 9.0], sampling) == 0
    banned = Sampling(seed=0, temperature=2.0, banned=(1, 2))
    assert {one([0.0, 50.0, 90.0], banned, position=position) for position in range(1, 50)} == {0}


def test_logprobs_are_of_the_raw_logits_best_first():
    logits = [1.0, 3.0, 2.0, 3.0]
    sampling = Sampling(seed=0, temperature=0.0, logprobs=3, banned=(1,))
    result = draw(torch.tensor([logits]), row(sampling))[0]
    expected = torch.tensor(logits).log_softmax(-1).tolist()
    assert result.id == 3
    assert result.logprob == pytest.approx(expected[3])
    assert [token for token, _ in result.top] == [1, 3, 2]
    assert [value for _, value in result.top] == pytest.approx([expected[1], expected[3], expected[2]])


def test_none_asked_none_given():
    result = draw(random_logits(1), row(Sampling(seed=0)))[0]
    assert (result.logprob, result.top) == (0.0, ())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_name_the_sequence(temperature: float):
    logits = random_logits(2)
    logits[1, 4] = math.nan
    sampling = Sampling(seed=0, temperature=temperature)
    with pytest.raises(NotFinite, match="sequence 1"):
        draw(logits, row(sampling), row(sampling))


def plain_sample(logits: torch.Tensor, one: Row) -> int:
    """The same draw by sorting the whole vocabulary and adding noise to all of it: what `sample` must equal."""
    sampling = one.sampling
    scores = (logits.unsqueeze(0) / torch.tensor([[sampling.temperature]], dtype=torch.float32))[0]
    order = scores.sort(descending=True, stable=True).indices
    if 0 < sampling.top_k < len(scores):
        order = order[: sampling.top_k]
    if sampling.top_p < 1.0:
        mass = torch.softmax(scores[order].double(), -1).cumsum(-1)
        order = order[: int((mass < sampling.top_p).sum()) + 1]
    left = torch.full_like(scores, -torch.inf).index_put_((order,), scores[order])
    if sampling.min_p > 0.0:
        left = left.masked_fill(left < left.max() + math.log(sampling.min_p), -torch.inf)
    noise = gumbel(torch.tensor([draw_key(sampling.seed, one.start + len(one.ids))]), len(scores))[0]
    return int((left + noise).argmax())


@given(
    st.integers(0, 2**32),
    st.sampled_from([3, 320, 1024, 1025, 20_000]),
    st.sampled_from([0.0, 0.05, 1.0, 8.0]),
    st.booleans(),
    st.sampled_from([0, 1, 2, 50, 1024, 2000]),
    st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 0.1]),
)
def test_ranking_the_likeliest_first_draws_what_sorting_all_would(
    seed: int, vocabulary: int, spread: float, ties: bool, top_k: int, top_p: float, min_p: float
):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    if ties:
        logits = logits.round()
    sampling = Sampling(seed=seed, temperature=0.7, top_k=top_k, top_p=top_p, min_p=min_p)
    asked = row(sampling)
    assert draw(logits.unsqueeze(0), asked)[0].id == plain_sample(logits, asked)


def test_a_bound_within_rounding_sorts_all(monkeypatch: pytest.MonkeyPatch):
    """With every token as likely as the next, partial sums lie on the bound; without the fallback they decide."""
    asked: list[int] = []
    honest = sampler.ranked

    def watched(scores: torch.Tensor, count: int = 0) -> torch.Tensor:
        asked.append(count)
        return honest(scores, count)

    monkeypatch.setattr(sampler, "ranked", watched)
    sampler.survivors(torch.zeros(4096), Sampling(seed=0, top_p=0.125))
    assert asked == [1024, 0]
    asked.clear()
    sampler.survivors(torch.arange(4096.0), Sampling(seed=0, top_p=0.9))
    assert asked == [1024]


@given(st.integers(-(2**62), 2**62), st.lists(st.integers(0, 200_000), min_size=1, max_size=40))
def test_the_noise_of_some_tokens_is_that_of_all(key: int, ids: list[int]):
    some = gumbel_at(key, torch.tensor(ids))
    assert torch.equal(some, gumbel(torch.tensor([key]), 200_001)[0, ids])
