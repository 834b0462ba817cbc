"""Triton's kernels agree with their specifications, in its interpreter: the arithmetic, not the machine code.

The interpreter computes bf16 wrongly: `interpreted.mend_interpreter` mends it, and is tested here too.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

import kernels
from kernels._triton import installed
from kernels.op import Op, tolerance
from tests.kernels import interpreted as child
from tests.kernels.interpreted import LENGTH

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="Triton is not installed"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CASES = [
    pytest.param(op, case.name, dtype, id=f"{op.name}-{case.name}-{dtype}")
    for op in kernels.OPS
    if "triton" in op.implementations
    for case in op.cases
    for dtype in DTYPES
]
Interpreter = Callable[..., object]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    """Call a function of `interpreted` in the process that interprets."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=child.prepare) as pool:
        yield lambda function, *inputs: pool.submit(function, *inputs).result()


def worst(got: np.ndarray, expected: torch.Tensor) -> float:
    """Largest error as a fraction of the largest expected magnitude; NaN is infinite."""
    if not expected.numel():
        return 0.0
    wide = expected.double()
    error = (torch.from_numpy(got).double() - wide).abs().max() / wide.abs().max().clamp(min=1e-30)
    return float(error.nan_to_num(torch.inf))


def test_fresh_memory_is_poisoned(interpreter: Interpreter):
    assert np.isnan(interpreter(child.fresh_memory)).all()
    assert worst(np.array([1.0, np.nan]), torch.ones(2)) == torch.inf


def test_the_mended_interpreter_rounds_to_bf16_as_torch_does(interpreter: Interpreter):
    every = np.arange(1 << 16, dtype=np.uint32) << 16
    ties = every | 0x8000  # halfway between two values of bf16
    bits = np.concatenate((every, ties, ties - 1, ties + 1, np.arange(1 << 16, dtype=np.uint32) * 65_537))
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    got = interpreter(child.cast_through_triton, values)
    assert np.array_equal(got, torch.from_numpy(values).bfloat16().float().numpy())


def test_the_mended_interpreter_rounds_to_e4m3_as_torch_does(interpreter: Interpreter):
    values = np.random.default_rng(3).normal(0, 60, 40_000).astype(np.float32).clip(-448, 448)
    values = np.concatenate((values, values / 4096, [0.0, -0.0, 448.0, 2**-9, 2**-10])).astype(np.float32)
    got = interpreter(child.cast_through_e4m3, values)
    assert np.array_equal(got, torch.from_numpy(values).to(torch.float8_e4m3fn).float().numpy())


@pytest.mark.parametrize(("op", "name", "dtype"), CASES)
def test_a_kernel_agrees_with_its_specification(
    interpreter: Interpreter, op: Op, name: str, dtype: torch.dtype
):
    inputs = child.arguments(op.name, name, dtype)
    expected = op.reference(*inputs)
    got, left = interpreter(child.computed, op.name, name, dtype)
    assert got.shape == tuple(expected.shape)
    assert got.dtype == child.array(expected).dtype
    assert worst(got, expected) <= tolerance(op, child.case_of(op.name, name), dtype)
    if op.name == "rope_store":  # the cache is written too, and nothing beside its slots
        assert worst(left[3], inputs[3]) <= tolerance(op, child.case_of(op.name, name), dtype)
        assert np.array_equal(left[3] == 0, child.array(inputs[3]) == 0)
    if op.name == "norm_rope_store":
        assert worst(left[3], inputs[3]) <= tolerance(op, child.case_of(op.name, name), dtype)
    if op.name == "rope_store_narrow":  # codes and steps; a step of a code is a step of the dtype
        assert_same_cache(left[3], left[4], inputs[3], inputs[4], dtype)
    if op.name == "add_rms_norm":  # the sum stands in the residual's place
        assert np.array_equal(left[1], child.array(inputs[1]))


def assert_same_cache(
    codes: np.ndarray, steps: np.ndarray, cache: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
) -> None:
    """A value that differs by its last rounding may fall on the other side of a code's: rarely, and by one code."""
    assert worst(steps, scales) <= torch.finfo(dtype).eps
    assert np.array_equal(steps == 0, scales.numpy() == 0)
    got, expected = (each.view(np.int8).astype(int) for each in (codes, child.array(cache)))
    assert (got != expected).mean() <= 0.001
    assert abs(got - expected).max(initial=0) <= 1


@pytest.mark.parametrize(
    "op", [kernels.rms_norm.OP, kernels.rms_norm.ADD_OP, kernels.swiglu.OP], ids=lambda op: op.name
)
def test_a_kernel_rounds_where_its_specification_does(interpreter: Interpreter, op: Op):
    """A rounding too few is within the tolerance, but changes the bits of every tenth element."""
    expected = op.reference(*child.arguments(op.name, "many rows", torch.float16)).numpy()
    got, _ = interpreter(child.computed, op.name, "many rows", torch.float16)
    assert (got != expected).mean() < 0.001


@pytest.mark.parametrize(
    ("dtype", "narrow"),
    [
        *((dtype, None) for dtype in DTYPES),
        (torch.float16, torch.int8),
        (torch.bfloat16, torch.float8_e4m3fn),
    ],
)
def test_a_row_of_attention_has_the_same_bits_however_it_is_computed(
    interpreter: Interpreter, dtype: torch.dtype, narrow: torch.dtype | None
):
    """Decoded alone or in company, prefilled whole or in chunks: the order of its sums is the same."""
    pages = (7, 2, 9, 0, 5)
    whole = interpreter(child.attended, [(0, LENGTH)], dtype, pages, 0, narrow)
    assert np.isfinite(whole).all()
    positions = (0, 15, 16, 31, 32, 33, 63, 64, LENGTH - 1)
    together = interpreter(child.attended, [(position, 1) for position in positions], dtype, pages, 0, narrow)
    assert np.array_equal(together, whole[list(positions)])
    for position in (32, LENGTH - 1):
        alone = interpreter(child.attended, [(position, 1)], dtype, pages, 2, narrow)
        assert np.array_equal(alone, whole[[position]])
    for size in (2, 31, 33):
        cuts = [(start, min(size, LENGTH - start)) for start in range(0, LENGTH, size)]
        cuts.sort(key=lambda cut: cut[1] > 1)
        rows = [row for start, count in cuts for row in range(start, start + count)]
        assert np.array_equal(interpreter(child.attended, cuts, dtype, pages, 0, narrow), whole[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_a_linear_has_the_same_bits_in_either_form_and_any_company(
    interpreter: Interpreter, dtype: torch.dtype
):
    whole = interpreter(child.multiplied, "whole", dtype)
    assert np.array_equal(interpreter(child.multiplied, "split", dtype), whole)
    for form in ("whole", "split"):
        alone = interpreter(child.multiplied, form, dtype, 77, 1)
        assert np.array_equal(alone, whole[77:78])


@pytest.mark.parametrize("narrow", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_a_row_of_eight_bits_has_the_same_bits_in_either_form_and_any_company(
    interpreter: Interpreter, narrow: torch.dtype
):
    whole = interpreter(child.multiplied_narrow, 1, narrow)
    assert np.array_equal(interpreter(child.multiplied_narrow, 1000, narrow), whole)
    assert np.array_equal(interpreter(child.multiplied_narrow, 1, narrow, 77, 1), whole[77:78])


def test_a_row_of_four_bits_has_the_same_bits_in_either_form_and_any_company(interpreter: Interpreter):
    whole = interpreter(child.multiplied_int4, 1)
    assert np.array_equal(interpreter(child.multiplied_int4, 1000), whole)
    assert np.array_equal(interpreter(child.multiplied_int4, 1, 77, 1), whole[77:78])


def test_a_row_chooses_the_same_token_alone_and_in_any_company(interpreter: Interpreter):
    ids, scores = interpreter(child.chosen, (0, 1, 2, 3, 4, 5))
    assert np.isfinite(scores).all()
    for row in range(6):
        assert interpreter(child.chosen, (row,)) == (ids[row : row + 1], scores[row : row + 1])


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_a_damaged_row_ends_and_says_so_by_its_score(interpreter: Interpreter, damage: float):
    ids, scores = interpreter(child.chosen, (0, 1, 2), damage)
    assert ids == [1500] * 3
    assert scores == [np.inf] * 3


def test_where_the_pages_lie_does_not_matter(interpreter: Interpreter):
    cuts, dtype = [(70, 1), (0, 40)], torch.float16
    moved = interpreter(child.attended, cuts, dtype, (1, 3, 4, 6, 8))
    assert np.array_equal(moved, interpreter(child.attended, cuts, dtype))


def test_what_a_row_may_not_see_is_not_read(interpreter: Interpreter):
    """Later slots of its page and other pages hold NaN here: uncleared memory, or another tenant's."""
    for cuts in ([(40, 1)], [(38, 3)]):
        assert np.isfinite(interpreter(child.attended, cuts, torch.float32)).all()
