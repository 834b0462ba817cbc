"""What a plan's rows wish reaches the device's sampler whole, and what it says comes back."""

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.choose import choose_reference
from kernels.sample import gumbel
from node.engine.device_sampler import Chosen, controls_of, plain
from node.engine.plan import NotFinite, Row, Sampled, Sampling
from node.engine.sampler import sample

VOCABULARY = 12
ALLOWED = st.none() | st.sampled_from((b"\xff\xff", b"\x5a\x0f", b"\x08\x00"))
"""What a grammar leaves of twelve ids, as bits."""
IDS = st.integers(0, VOCABULARY - 1)
SCORES = st.lists(
    st.sampled_from((0.0, -1.0, 2.5, 7.0, 6.75, -3.0)), min_size=VOCABULARY, max_size=VOCABULARY
)
SAMPLINGS = st.builds(
    Sampling,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from((0.0, 1e-6, 0.5, 1.0, 2.0)),
    top_p=st.sampled_from((1.0, 0.9, 0.3)),
    top_k=st.sampled_from((0, 1, 5)),
    min_p=st.sampled_from((0.0, 0.1)),
    frequency_penalty=st.sampled_from((0.0, 0.5)),
    presence_penalty=st.sampled_from((0.0, -0.25)),
    repetition_penalty=st.sampled_from((1.0, 1.25)),
    logit_bias=st.lists(
        st.tuples(IDS, st.sampled_from((-4.0, 2.0))), max_size=2, unique_by=lambda b: b[0]
    ).map(tuple),
    banned=st.lists(st.integers(0, 2), max_size=2).map(tuple),
)


@given(
    st.lists(
        st.tuples(SAMPLINGS, SCORES, st.lists(IDS, max_size=4), st.lists(IDS, max_size=4), ALLOWED),
        max_size=4,
    )
)
def test_the_device_is_asked_for_what_the_host_would_choose(
    drawn: list[tuple[Sampling, list[float], list[int], list[int], bytes | None]],
):
    rows = [
        Row(index, (3,), 5 * index, (0,), True, sampling, prompt, produced, allowed)
        for index, (sampling, _, prompt, produced, allowed) in enumerate(drawn)
    ]
    logits = torch.tensor([scores for _, scores, *_ in drawn]).view(len(rows), VOCABULARY)
    wanted = [one.id for one in sample(logits.clone(), rows, gumbel)] if rows else []
    assert choose_reference(logits, controls_of(rows, VOCABULARY, torch.device("cpu"))).tolist() == wanted


@pytest.mark.parametrize(
    "changed",
    [
        {"frequency_penalty": 1.0}, {"presence_penalty": -1.0}, {"repetition_penalty": 1.1},
        {"logit_bias": ((1, 2.0),)}, {"logprobs": 0}, {"banned": (2,)}, {"typical_p": 0.5},
    ],
)  # fmt: skip
def test_tables_and_reports_are_known_before_a_step(changed: dict[str, object]):
    row = Row(1, (3,), 0, (0,), True, Sampling(seed=4, temperature=0.3, top_p=0.5, top_k=3, min_p=0.1))
    assert plain(row)
    assert not plain(attrs.evolve(row, sampling=Sampling(seed=4, **changed)))
    assert not plain(attrs.evolve(row, allowed=b"\xff"))


def row_of(sequence: int, logprobs: int | None = None) -> Row:
    return Row(sequence, (3,), 0, (0,), True, Sampling(0, logprobs=logprobs))


def test_each_row_is_told_as_much_as_it_asked_for():
    rows = (row_of(1), row_of(2, 0), row_of(3, 2))
    report = (torch.tensor([[4, 5, 6]] * 3), torch.tensor([[-1.0, -0.5, -2.0, -3.0]] * 3))
    read = Chosen(rows, torch.tensor([7, 8, 9]), torch.ones(3), report).read()
    top = ((4, -0.5), (5, -2.0))
    assert read == (Sampled(1, 7), Sampled(2, 8, -1.0), Sampled(3, 9, -1.0, top))


def test_a_row_that_only_the_host_can_choose_for_is_chosen_there():
    typical = attrs.evolve(row_of(5), sampling=Sampling(3, typical_p=0.6, logprobs=1))
    logits = torch.tensor([[0.5, 0.25, -1.0, 0.0]])
    read = Chosen((row_of(4), typical), torch.tensor([1, 2]), torch.ones(2), theirs=logits.clone()).read()
    assert read == (Sampled(4, 1), *sample(logits.clone(), [typical], gumbel))


@pytest.mark.parametrize("score", [torch.nan, -torch.inf, torch.inf])
def test_a_score_that_is_not_finite_names_its_sequence(score: float):
    with pytest.raises(NotFinite, match="sequence 4"):
        Chosen((row_of(3), row_of(4)), torch.tensor([1, 1]), torch.tensor([1.0, score])).read()
