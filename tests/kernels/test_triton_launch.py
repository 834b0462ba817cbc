"""Triton is imported when a kernel is first made, and launchers refuse what their kernels would misread."""

import subprocess
import sys

import pytest
import torch

import kernels
from kernels import _triton, attention_triton, narrow_cache, rms_norm, rope, sample, swiglu
from kernels.attention import Span
from tests.tidy.tree import ROOT


def test_importing_kernels_does_not_import_triton():
    code = "import kernels, kernels.gate, sys; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_triton_a_kernel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "find_spec", lambda _name: None)
    fresh = _triton.Kernel(rms_norm._rms_norm.function, (), ())
    with pytest.raises(_triton.TritonMissing, match=r"not installed\nhint: pip install"):
        _triton.Launch(fresh, (1,), {}).run()


def test_nothing_to_do_is_not_launched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "find_spec", lambda _name: None)
    assert rms_norm.rms_norm_triton(torch.empty(0, 64), torch.ones(64), 1e-5).shape == (0, 64)
    assert sample.gumbel_triton(torch.empty(0, dtype=torch.int64), 5).shape == (0, 5)
    assert attention_triton.attention_triton(torch.empty(0, 4, 64), CACHE, [], 1.0).shape == (0, 4, 64)


X, CACHE = torch.zeros(4, 64), torch.zeros(3, 2, 2, 16, 64)
QKV, ANGLES, PLACES = torch.zeros(4, 8, 64), torch.zeros(4, 1, 64), torch.zeros(4, dtype=torch.int64)
STEPS, SPANS = torch.zeros(3, 2, 2, 16), (Span(0, 1, (1,)),)
REFUSED = {
    "a weight of another width": (rms_norm.rms_norm_triton, (X, torch.ones(63), 1e-5), "`weight` is"),
    "a weight of another dtype": (rms_norm.rms_norm_triton, (X, torch.ones(64).half(), 1e-5), "`weight` is"),
    "lanes with gaps": (rms_norm.rms_norm_triton, (QKV[:, :, :32], torch.ones(32), 1e-5), "`x` has strides"),
    "weights of fewer lanes": (rms_norm.rms_norm_triton, (QKV, torch.ones(3, 64), 1e-5), "`weight` is"),
    "a residual with gaps": (
        rms_norm.add_rms_norm_triton, (X[:, :32], X[:, :32], torch.ones(32), 1e-5), "`residual` has strides"),
    "integers": (swiglu.swiglu_triton, (X.int(),), "`x` is"),
    "columns apart": (swiglu.swiglu_triton, (X.T,), "`x` has strides"),
    "an odd number of columns": (swiglu.swiglu_triton, (torch.zeros(4, 63),), "`x` is"),
    "places of 32 bits": (
        rope.rope_store_triton, (QKV, ANGLES, ANGLES, CACHE, PLACES.int(), PLACES), "`page` is"),
    "a cache of another dtype": (
        rope.rope_store_triton, (QKV, ANGLES, ANGLES, CACHE.half(), PLACES, PLACES), "`cache` is"),
    "angles in half precision": (
        rope.rope_store_triton, (QKV, ANGLES, ANGLES.half(), CACHE, PLACES, PLACES), "`sin` is"),
    "norms of fewer lanes": (
        rope.norm_rope_store_triton, (QKV, ANGLES, ANGLES, CACHE, PLACES, PLACES, QKV[0, :5], 1e-6), "`norms` is"),
    "steps in half precision": (
        narrow_cache.rope_store_narrow_triton,
        (QKV, ANGLES, ANGLES, CACHE.to(torch.int8), STEPS.half(), PLACES, PLACES), "`scales` is"),
    "a cache of codes that is none": (
        narrow_cache.attention_narrow_triton, (QKV[:1, :4], CACHE, STEPS, SPANS, 1.0), "`cache` is"),
    "steps of other pages": (
        narrow_cache.attention_narrow_triton,
        (QKV[:1, :4], CACHE.to(torch.int8), STEPS[:2], SPANS, 1.0), "`scales` is"),
    "keys of 32 bits": (sample.gumbel_triton, (PLACES.int(), 5), "`keys` is"),
    "more rows than were planned": (
        attention_triton.attention_triton, (QKV[:2, :4], CACHE, SPANS, 1.0), r"must be \[1, 4, 64\]"),
    "heads that do not divide": (
        attention_triton.attention_triton, (QKV[:1, :3], CACHE, SPANS, 1.0), "3 heads"),
    "a cache whose tokens have gaps": (
        attention_triton.attention_triton,
        (QKV[:1, :4], torch.zeros(3, 2, 16, 2, 64).transpose(2, 3), SPANS, 1.0),
        "`cache` has strides"),
    "pages of seven tokens": (
        attention_triton.attention_triton, (QKV[:1, :4], CACHE[:, :, :, :7].clone(), SPANS, 1.0), "of 7 tokens"),
    "heads of 192": (
        attention_triton.attention_triton, (X.new_zeros(1, 2, 192), X.new_zeros(1, 2, 2, 16, 192), SPANS, 1.0),
        "heads of 192"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_launcher_refuses(name: str):
    launcher, inputs, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        launcher(*inputs)


def test_decode_rows_must_stand_first():
    with pytest.raises(AssertionError, match="decode rows stand first"):
        attention_triton.plan_work([Span(0, 3, (0,)), Span(5, 1, (1,))], 2, 64, "cpu")


def test_a_plan_names_every_row_once():
    spans = [Span(70, 1, (0, 1)), Span(3, 1, (2,)), Span(600, 300, (3, 4, 5)), Span(0, 7, (6,))]
    work = attention_triton.plan_work(spans, group=4, width=128, device="cpu")
    assert work.latest.tolist() == [70, 3]
    assert work.items.tolist() == [[0, 0], [1, 0]]
    assert work.table.tolist() == [[0, 1, 0], [2, 0, 0], [3, 4, 5], [6, 0, 0]]
    rows = [
        (int(sequence), int(row) + i, int(position) + i)
        for sequence, row, position, count in work.tiles
        for i in range(int(count))
    ]
    assert rows == [(2, 2 + i, 600 + i) for i in range(300)] + [(3, 302 + i, i) for i in range(7)]


def test_a_plan_lists_the_chunks_of_each_decode_row_side_by_side():
    positions = (511, 1100, 512, 0)
    spans = [Span(position, 1, tuple(range(position // 16 + 1))) for position in positions]
    work = attention_triton.plan_work(spans, group=2, width=64, device="cpu")
    assert work.items.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [3, 0]]
    assert work.firsts.tolist() == [0, 1, 4, 6]
    assert attention_triton.NO_CHUNK * attention_triton.CHUNK < 2**31


def test_every_triton_implementation_is_built_by_the_gate():
    for op in kernels.OPS:
        assert ("triton" in op.implementations) == bool(op.builds), op.name
