"""The cost model against sizes of real tensors, and against figures that others worked out by hand."""

import pytest
import torch

from kernels import bench, cost, narrow_cache, rms_norm, rope, swiglu
from kernels.cost import CHIPS, SHAPES, Bytes, Row

ONE_B, EIGHT_B = SHAPES
H200 = next(chip for chip in CHIPS if chip.name == "H200")
BF16 = Bytes()


def size(*tensors):
    return sum(tensor.nbytes for tensor in tensors)


def weights(shape):
    """Bytes of weights that a decode step reads: every matrix once, a row of the embedding apart."""
    costs = cost.step((Row(1, 0),), shape, BF16)
    return sum(c.bytes_moved for c in costs if c.name.startswith("linear"))


def test_a_norm_moves_its_rows_twice_and_its_weight_once():
    x, weight = torch.zeros(7, 64, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.bfloat16)
    out = rms_norm.rms_norm(x, weight, 1e-5)
    assert cost.rms_norm(7, 64, BF16).bytes_moved == size(x, weight, out)


def test_swiglu_moves_three_rows_of_the_feed_forward_width():
    x = torch.zeros(5, 2 * ONE_B.feed_forward, dtype=torch.bfloat16)
    assert cost.swiglu(5, ONE_B, BF16).bytes_moved == size(x, swiglu.swiglu(x))


def test_a_linear_moves_its_weight_once_whatever_the_batch():
    x, weight = torch.zeros(3, 48, dtype=torch.bfloat16), torch.zeros(96, 48, dtype=torch.bfloat16)
    linear = cost.linear("linear", 3, 48, 96, BF16)
    assert linear.bytes_moved == size(x, weight, x @ weight.T)
    assert linear.operations == 2 * 3 * 48 * 96


def test_rope_moves_queries_twice_keys_and_values_into_pages_and_fp32_angles():
    tokens, shape = 6, ONE_B
    projected = torch.zeros(tokens, shape.qkv_width, dtype=torch.bfloat16)
    queries = torch.zeros(tokens, shape.heads * shape.head_width, dtype=torch.bfloat16)
    pages = torch.zeros(tokens, 2 * shape.kv_heads * shape.head_width, dtype=torch.bfloat16)
    cosines, sines = rope.rope_angles(torch.arange(tokens), torch.ones(shape.head_width // 2))
    moved = cost.rope_store(tokens, shape, BF16).bytes_moved
    assert moved == size(projected, queries, pages, cosines.float(), sines.float())


def test_attention_reads_each_key_once_and_counts_the_pairs_of_the_causal_mask():
    rows = (Row(3, 5), Row(1, 10))
    mask = torch.ones(3, 8).tril(5)
    attention = cost.attention(rows, ONE_B, BF16)
    keys = torch.zeros(8 + 11, 2 * ONE_B.kv_heads * ONE_B.head_width, dtype=torch.bfloat16)
    queries = torch.zeros(4, 2 * ONE_B.heads * ONE_B.head_width, dtype=torch.bfloat16)
    assert attention.bytes_moved == size(keys, queries)
    assert attention.operations == 4 * (mask.sum() + 11) * ONE_B.heads * ONE_B.head_width


def test_a_cache_of_eight_bits_is_read_and_written_with_its_steps():
    cache, tokens = torch.zeros(1, 2, ONE_B.kv_heads, 16, ONE_B.head_width), 16
    codes, steps = narrow_cache.narrow(cache, torch.int8)
    narrow, wide = Bytes(kv=1), cost.attention((Row(1, 15),), ONE_B, BF16)
    read = cost.attention((Row(1, 15),), ONE_B, narrow).bytes_moved
    assert wide.bytes_moved - read == size(cache.bfloat16()) - size(codes, steps)
    stored = cost.rope_store(tokens, ONE_B, narrow).bytes_moved
    assert cost.rope_store(tokens, ONE_B, BF16).bytes_moved - stored == size(cache.bfloat16()) - size(
        codes, steps
    )


def test_the_weights_of_the_two_shapes_weigh_what_the_published_models_do():
    """2.47 GB with a tied embedding; 8.03 G parameters without the 525 M of the input embedding."""
    assert weights(ONE_B) == pytest.approx(2.47e9, rel=0.002)
    assert weights(EIGHT_B) == pytest.approx(15.01e9, rel=0.001)


@pytest.mark.parametrize(
    ("shape", "rows", "gigabytes"),
    [
        (EIGHT_B, (Row(1, 32_768),), 15.01 + 4.29),
        (EIGHT_B, (Row(1, 20_000),) * 8, 15.0 + 21.0),
        (EIGHT_B, (Row(1, 2048),) * 64, 15.0 + 17.2),
        (EIGHT_B, (Row(1, 1500),) * 256, 15.0 + 50.3),
    ],
)
def test_a_decode_step_moves_weights_and_keys_and_little_else(shape, rows, gigabytes):
    moved = sum(c.bytes_moved for c in cost.step(rows, shape, BF16)) / 1e9
    assert gigabytes * 0.998 < moved < gigabytes * 1.05


def test_a_prefill_does_two_operations_per_weight_and_token_and_attention_on_top():
    """8B, 8k: 114 TFLOP in the layers' matrices and 17.6 in attention; the head serves one token."""
    costs = cost.step((Row(8192, 0),), EIGHT_B, BF16)
    matrices = sum(c.operations for c in costs if c.name.startswith("linear")) / 1e12
    pairs = sum(c.operations for c in costs if c.name == "attention") / 1e12
    assert matrices == pytest.approx(114, rel=0.01)
    assert pairs == pytest.approx(17.6, rel=0.01)


def test_a_batch_of_one_is_held_back_by_memory_and_a_prefill_by_arithmetic():
    decode = cost.step((Row(1, 0),), EIGHT_B, BF16)
    prefill = cost.step((Row(8192, 0),), EIGHT_B, BF16)
    limits = {c.name: c.limit(H200) for c in prefill}
    assert {c.limit(H200) for c in decode} == {"memory"}
    assert limits["linear gate_up"] == limits["attention"] == "arithmetic"
    assert limits["rms_norm"] == limits["swiglu"] == "memory"


def test_a_floor_is_at_least_what_the_slower_of_memory_and_arithmetic_needs():
    costs = cost.step((Row(1, 0),), EIGHT_B, BF16)
    moved = sum(c.bytes_moved for c in costs)
    bare, launched = (cost.floor_s(costs, H200, launches) for launches in (False, True))
    assert bare == pytest.approx(moved / H200.bytes_per_s)
    assert launched - bare == pytest.approx(len(costs) * H200.launch_s)


def test_the_plan_names_every_chip_shape_and_scene(capsys):
    assert bench.main(["--plan"]) == 0
    said = capsys.readouterr().out
    for name in (*(c.name for c in CHIPS), *(s.name for s in SHAPES), *(s.name for s in bench.SCENES)):
        assert name in said
