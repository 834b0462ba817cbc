"""Packing weights in four and eight bits: what is lost, and what is not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.linear_int4 import SHARED, pack_int4, unpack_int4
from kernels.linear_scaled import LIMITS, quantise

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(SEEDS)
def test_a_weight_of_four_bits_is_within_half_a_step_of_what_it_was(seed):
    weight = drawn(seed, 3, 2 * SHARED)
    packed, scales = pack_int4(weight)
    dense = unpack_int4(packed) * scales[..., None]
    assert packed.shape == (3, SHARED)
    assert ((dense.flatten(1) - weight).abs().view(3, 2, SHARED) <= scales[..., None] * 0.5001).all()


@given(SEEDS)
def test_integers_survive_packing_in_their_places(seed):
    q = torch.randint(-7, 8, (2, SHARED), generator=torch.Generator().manual_seed(seed)).float()
    q[:, 0] = 7
    packed, scales = pack_int4(q)
    assert (scales == 1).all()
    assert torch.equal(unpack_int4(packed).flatten(1), q.double())


def test_a_group_of_zeros_packs_to_zeros():
    packed, scales = pack_int4(torch.zeros(1, SHARED))
    assert (unpack_int4(packed) * scales[..., None] == 0).all()


def test_a_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="not a multiple of 128"):
        pack_int4(torch.zeros(1, 100))


@given(SEEDS, st.sampled_from(tuple(LIMITS)))
def test_eight_bits_reach_their_limit_and_keep_each_row_to_itself(seed, dtype):
    x = drawn(seed, 4, 40)
    q, scale = quantise(x, dtype)
    alone, alone_scale = quantise(x[2:3], dtype)
    assert q.float().abs().amax(-1).tolist() == pytest.approx([LIMITS[dtype]] * 4, rel=0.07)
    assert torch.equal(q[2:3].float(), alone.float())
    assert torch.equal(scale[2:3], alone_scale)


@given(SEEDS)
def test_an_int8_value_is_within_half_a_step_of_what_it_was(seed):
    x = drawn(seed, 4, 40)
    q, scale = quantise(x, torch.int8)
    assert ((q.float() * scale[:, None] - x).abs() <= scale[:, None] * 0.5001).all()
