"""Tokens chosen on a device are the ones that the host's sampler would choose."""

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.sample import draw_key, gumbel
from node.engine.device_sampler import Chosen, choose, chosen_on_device, host_rows
from node.engine.plan import NotFinite, Row, Sampled, Sampling
from node.engine.sampler import sample

SCORES = st.sampled_from((0.0, -1.0, 2.5, 2.5, 7.0, -torch.inf, 7.0))
TEMPERATURES = st.sampled_from((0.0, 1e-6, 0.3, 1.0, 2.0))


def row_of(sequence: int, sampling: Sampling) -> Row:
    return Row(sequence, (3,), 5 * sequence, (0,), True, sampling)


def keys_of(rows: list[Row]) -> torch.Tensor:
    return torch.tensor([draw_key(row.sampling.seed, row.start + 1) for row in rows])


@given(st.lists(st.tuples(TEMPERATURES, st.lists(SCORES, min_size=9, max_size=9)), min_size=1, max_size=5))
def test_the_device_chooses_what_the_host_would(drawn: list[tuple[float, list[float]]]):
    rows = [
        row_of(index, Sampling(index, temperature=temperature))
        for index, (temperature, _) in enumerate(drawn)
    ]
    logits = torch.tensor([[*scores, 1.0] for _, scores in drawn])
    temperatures = torch.tensor([temperature for temperature, _ in drawn])
    _, ids = choose(logits.clone(), temperatures, keys_of(rows), gumbel)
    assert ids.tolist() == [one.id for one in sample(logits.clone(), rows, gumbel)]


def test_without_noise_the_lowest_of_the_largest_wins():
    _, ids = choose(torch.tensor([[1.0, 4.0, 4.0], [9.0, 9.0, 9.0]]), torch.zeros(2), None, gumbel)
    assert ids.tolist() == [1, 0]


@pytest.mark.parametrize(
    "changed",
    [
        {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}, {"frequency_penalty": 1.0}, {"presence_penalty": -1.0},
        {"repetition_penalty": 1.1}, {"logit_bias": ((1, 2.0),)}, {"logprobs": 0}, {"banned": (2,)},
        {"typical_p": 0.5},
    ],
)  # fmt: skip
def test_what_the_device_cannot_do_is_left_to_the_host(changed: dict[str, object]):
    plain, other = Sampling(seed=4, temperature=0.3), Sampling(seed=4, temperature=0.3, **changed)
    rows = (row_of(0, plain), row_of(1, other))
    assert chosen_on_device(rows[0])
    assert not chosen_on_device(rows[1])
    assert host_rows(rows) == [1]
    logits = torch.tensor([[0.5, 0.25, -1.0, 0.0]])
    read = Chosen(rows, torch.ones(2), torch.tensor([7, 8]), logits.clone(), None).read()
    assert read == (Sampled(0, 7), *sample(logits.clone(), [rows[1]], gumbel))


@pytest.mark.parametrize("score", [torch.nan, -torch.inf, torch.inf])
def test_a_score_that_is_not_finite_names_its_sequence(score: float):
    rows = (row_of(3, Sampling(0)), row_of(4, Sampling(0)))
    chosen = Chosen(rows, torch.tensor([1.0, score]), torch.tensor([1, 1]), torch.empty(0, 9), None)
    with pytest.raises(NotFinite, match="sequence 4"):
        chosen.read()


def test_a_row_that_follows_a_grammar_is_left_to_the_host():
    assert not chosen_on_device(attrs.evolve(row_of(0, Sampling(0)), allowed=b"\xff"))
