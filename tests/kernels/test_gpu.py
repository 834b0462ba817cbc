"""On a real GPU: every kernel agrees with its specification, and rows do not depend on their company."""

import os

import pytest
import torch

from kernels.device import attention_is_exact, linears_are_exact, objection, select_device
from kernels.parity import jobs, verdicts

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

DEVICE = torch.device("cuda:0")


def test_the_gpu_can_be_used():
    assert objection(DEVICE) == ""


def test_every_kernel_agrees_with_its_specification():
    found = verdicts(jobs(), DEVICE, workers=min(8, os.cpu_count() or 1))
    assert [verdict for verdict in found if not verdict.holds] == []


@pytest.mark.parametrize("form", ["dense", "int8", "fp8", "int4"])
def test_rows_of_a_linear_do_not_depend_on_their_company(form: str):
    assert linears_are_exact(select_device(DEVICE, torch.bfloat16, 32, 8, 128, 64, form))


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_rows_of_attention_do_not_depend_on_how_they_are_computed(width: int, dtype: torch.dtype):
    assert attention_is_exact(select_device(DEVICE, dtype, 32, 8, width, 64), 64)
