"""Every fast path agrees with its specification, on every case and dtype of its record."""

import pytest
import torch

import kernels
from kernels.op import Case, Op, tolerance

DTYPES = tuple(dtype for dtype in (torch.float32, torch.bfloat16) if kernels.linear.supports(dtype))
RUNS = [
    pytest.param(op, name, case, dtype, id=f"{op.name}-{name}-{case.name}-{dtype}")
    for op in kernels.OPS
    for name in op.implementations
    if name != "triton"  # interpreted, in test_triton_interpreted.py
    for case in op.cases
    for dtype in DTYPES
]


def arguments(case: Case, dtype: torch.dtype) -> tuple[object, ...]:
    return case.make(torch.Generator().manual_seed(11), dtype)


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error as a fraction of the largest expected magnitude."""
    if not expected.numel():
        return 0.0
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.mark.parametrize(("op", "name", "case", "dtype"), RUNS)
def test_a_fast_path_agrees_with_its_specification(op: Op, name: str, case: Case, dtype: torch.dtype):
    expected = op.reference(*arguments(case, dtype))
    got = op.implementations[name](*arguments(case, dtype))
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert distance(got, expected) <= tolerance(op, case, dtype)


@pytest.mark.parametrize("op", kernels.OPS, ids=lambda op: op.name)
def test_the_parity_check_sees_an_error_of_one_percent(op: Op):
    case = next(case for case in op.cases if case.name.startswith(("one row", "one token", "one decode")))
    expected = op.reference(*arguments(case, torch.float32))
    assert distance(expected * 1.01, expected) > tolerance(op, case, torch.float32)


@pytest.mark.parametrize("op", kernels.OPS, ids=lambda op: op.name)
def test_every_op_has_a_case_of_size_one_and_an_empty_one(op: Op):
    names = {case.name for case in op.cases}
    assert any(name.startswith(("one ", "first ")) for name in names)
    assert "no rows" in names


def test_keys_and_values_land_in_their_slots_as_specified():
    for case in kernels.rope.OP.cases:
        expected, got = arguments(case, torch.float32), arguments(case, torch.float32)
        kernels.rope.rope_store_reference(*expected)
        kernels.rope.rope_store(*got)
        torch.testing.assert_close(got[3], expected[3], rtol=1e-6, atol=1e-6)
