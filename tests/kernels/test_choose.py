"""The device's sampler and the CPU's are one function: both are held against the same specification."""

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import choose, choose_triton, likeliest
from kernels.choose import NONE, PROMPT, Control, Controls, choose_reference
from kernels.sample import draw_key, gumbel
from node.engine.plan import Row, Sampling
from node.engine.sampler import sample

VOCABULARY = 60

samplings = st.builds(
    Sampling,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1e-9, 0.13, 0.87, 1.0]),
    top_k=st.sampled_from([0, 1, 5, VOCABULARY - 1, VOCABULARY, 100]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 1.1]),
    presence_penalty=st.sampled_from([0.0, -1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.6]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (4, -100.0))]),
    banned=st.sampled_from([(), (2, 7)]),
)
ids = st.lists(st.integers(0, VOCABULARY - 1), max_size=12).map(tuple)
rows = st.builds(
    lambda sampling, start, prompt, produced: Row(1, (5,), start, (0,), True, sampling, prompt, produced),
    samplings,
    st.integers(0, 5000),
    ids,
    ids,
)


def control(row: Row, slot: int) -> Control:
    """A row of a plan as the device's sampler is told it."""
    wish = row.sampling
    return Control(
        key=draw_key(wish.seed, row.start + len(row.ids)),
        temperature=wish.temperature,
        top_k=wish.top_k,
        top_p=wish.top_p,
        min_p=wish.min_p,
        repetition=wish.repetition_penalty,
        frequency=wish.frequency_penalty,
        presence=wish.presence_penalty,
        seen=slot if row.prompt or row.produced else NONE,
        bias=slot if wish.logit_bias or wish.banned else NONE,
    )


def controls(planned: list[Row]) -> Controls:
    seen = torch.zeros(len(planned), VOCABULARY, dtype=torch.int32)
    bias = torch.zeros(len(planned), VOCABULARY)
    for slot, row in enumerate(planned):
        for token in row.produced:
            seen[slot, token] += 1
        seen[slot, sorted(set(row.prompt))] += PROMPT
        for token, added in row.sampling.logit_bias:
            bias[slot, token] = added
        bias[slot, list(row.sampling.banned)] = -torch.inf
    return Controls.of([control(row, slot) for slot, row in enumerate(planned)], "cpu", seen, bias)


def logits(count: int, seed: int, step: float) -> torch.Tensor:
    """Normal, or in multiples of a step: whole vocabularies of equals."""
    drawn = torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    return (drawn / step).round() * step if step else drawn


@settings(max_examples=300)
@given(st.lists(rows, min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 100.0]))
def test_the_engines_sampler_gives_the_ids_of_the_devices_specification(
    planned: list[Row], seed: int, step: float
):
    scores = logits(len(planned), seed, step)
    expected = choose_reference(scores, controls(planned))
    chosen = sample(scores.clone(), planned, gumbel)
    assert [one.id for one in chosen] == expected.tolist()


@given(rows, st.integers(0, 2**32 - 1))
def test_a_row_of_the_specification_does_not_meet_another(row: Row, seed: int):
    scores = logits(3, seed, 0.0)
    alone = choose_reference(scores[1:2], controls([row]))
    together = choose_reference(scores, controls([row, row, row]))
    assert together[1] == alone[0]


@given(st.lists(rows, min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_what_reports_say_is_what_the_engine_reports(planned: list[Row], seed: int):
    scores = logits(len(planned), seed, 0.5)
    asking = [attrs.evolve(row, sampling=attrs.evolve(row.sampling, logprobs=3)) for row in planned]
    chosen = sample(scores.clone(), asking, gumbel)
    tokens = torch.tensor([[one.id] for one in chosen])
    assert [[token for token, _ in one.top] for one in chosen] == likeliest.likeliest_reference(
        scores, 3
    ).tolist()
    torch.testing.assert_close(
        torch.tensor([[one.logprob] for one in chosen]), likeliest.logprobs_reference(scores, tokens)
    )


LOGITS, PLAIN = torch.zeros(2, 64), Controls.of([Control(0), Control(1)], "cpu")
REFUSED = {
    "integers": (LOGITS.int(), PLAIN, "`logits` is"),
    "columns apart": (torch.zeros(64, 2).T, PLAIN, "`logits` has strides"),
    "no vocabulary": (LOGITS[:, :0], PLAIN, "0 columns"),
    "fewer keys": (LOGITS, attrs.evolve(PLAIN, keys=PLAIN.keys[:1]), "`keys` is"),
    "a top-p of 32 bits": (LOGITS, attrs.evolve(PLAIN, top_p=PLAIN.top_p.float()), "`top_p` is"),
    "marks of another vocabulary": (
        LOGITS, attrs.evolve(PLAIN, seen=torch.zeros(1, 63, dtype=torch.int32)), "`seen` is"),
    "biases with gaps": (LOGITS, attrs.evolve(PLAIN, bias=torch.zeros(1, 128)[:, ::2]), "`bias` has strides"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_launcher_refuses(name: str):
    scores, given_controls, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        choose_triton.choose_triton(scores, given_controls)


def test_more_reports_than_tokens_are_refused():
    with pytest.raises(ValueError, match="`likeliest` is"):
        likeliest.sample_triton(LOGITS, PLAIN, 65)


def test_nothing_to_choose_is_not_launched():
    empty = Controls.of([], "cpu")
    assert choose_triton.choose_triton(LOGITS[:0], empty).shape == (0,)
    assert likeliest.sample_triton(LOGITS[:0], empty, 5).logprobs.shape == (0, 6)


KEPT = choose._kept
FAULTS = {
    "the higher id of equals": lambda scores, k, p: len(scores) - 1 - KEPT(scores.flip(0), k, p),
    "one too many": lambda scores, k, p: KEPT(scores, k and k + 1, p),
    "top-p over everything": lambda scores, k, p: KEPT(scores, 0, p)[: k or None],
    "a little less mass": lambda scores, k, p: KEPT(scores, k, p * 0.95),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_law_sees_a_specification_that_is_a_little_off(fault: str, monkeypatch: pytest.MonkeyPatch):
    wishes = [Sampling(seed, top_k=5 * (seed % 3), top_p=(1.0, 0.8)[seed % 2]) for seed in range(400)]
    planned = [Row(1, (5,), 7, (0,), True, wish) for wish in wishes]
    scores = logits(len(planned), 7, 0.5)
    expected = choose_reference(scores, controls(planned))
    monkeypatch.setattr(choose, "_kept", FAULTS[fault])
    assert not torch.equal(choose_reference(scores, controls(planned)), expected)
