"""The compiled kernels: the same bits as their specification, and nothing but a fallback when they cannot be had."""

import os
from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import linear_int8, native, native_ops, rms_norm, rope, swiglu
from kernels.attention import OP, Look, attention, attention_reference
from kernels.linear import linear_reference
from kernels.linear_scaled import quantise
from kernels.op import Case, normal, tolerance

LIBRARY = native.load()
compiled = pytest.mark.skipif(LIBRARY is None, reason="no compiler here, or no AVX-512 with VNNI and bf16")
LOOKS = {
    "everything": Look(),
    "the latest one": Look(window=1),
    "the latest 40": Look(window=40),
    "capped": Look(cap=3.0),
    "with sinks": Look(sinks=torch.tensor([0.5])),
    "all of it": Look(33, 5.0, torch.tensor([-1.0])),
}
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 200), st.integers(1, 150))


def heavy(seed: int, *shape: int) -> torch.Tensor:
    return normal(torch.Generator().manual_seed(seed), torch.float32, *shape).pow(3).bfloat16()


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """int64 sums, then the scales one after the other in fp32."""
    (q, by), (w, by_output) = quantise(x, torch.int8), quantise(weight, torch.int8)
    y = (q.long() @ w.long().T).float() * by[:, None] * by_output
    return (y if bias is None else y + bias.float()).to(x.dtype)


@compiled
@settings(max_examples=40)
@given(SHAPES, st.booleans(), st.integers(0, 2**32), st.integers(1, 3))
def test_int8_has_the_bits_of_int64_sums_compiled_and_through_torch(
    shape: tuple[int, int, int], biased: bool, seed: int, threads: int
):
    rows, k, n = shape
    x, weight = heavy(seed, rows, k), heavy(seed + 1, n, k)
    x[0] = 0
    bias = heavy(seed + 2, n) if biased else None
    expected = exact(x, weight, bias)
    with native_threads(threads):
        assert torch.equal(native_ops.pack_int8(LIBRARY, [weight], bias)(x), expected)
    for form in linear_int8.FORMS:
        if linear_int8.is_exact(form):
            assert torch.equal(linear_int8.pack_int8(weight, bias, form)(x), expected)


class native_threads:  # noqa: N801
    """torch's number of threads, put back afterwards."""

    def __init__(self, count: int) -> None:
        self.count, self.before = count, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


@compiled
@settings(max_examples=40)
@given(SHAPES, st.integers(0, 2**32))
def test_bf16_agrees_with_its_specification(shape: tuple[int, int, int], seed: int):
    rows, k, n = shape
    source = torch.Generator().manual_seed(seed)
    x = normal(source, torch.bfloat16, rows, k)
    weight = (torch.randn(n, k, generator=source) / k**0.5).bfloat16()
    expected = linear_reference(x, weight).double()
    got = native_ops.pack_bf16(LIBRARY, [weight])(x).double()
    products = x.double().abs() @ weight.double().abs().T  # what cancelled counts
    assert ((got - expected).abs() <= 2**-7 * expected.abs() + k * 2**-23 * products + 1e-30).all()


@compiled
def test_weights_packed_one_below_the_other_are_those_packed_together():
    parts = [heavy(number, n, 96) for number, n in enumerate((40, 1, 130, 64))]
    x = heavy(9, 5, 96)
    for pack in (native_ops.pack_int8, native_ops.pack_bf16):
        assert torch.equal(pack(LIBRARY, parts)(x), pack(LIBRARY, [torch.cat(parts)])(x))


@compiled
def test_a_row_that_is_not_finite_spoils_no_other():
    x, weight = heavy(1, 4, 64), heavy(2, 30, 64)
    x[1, 3], x[2, 5] = torch.nan, torch.inf
    y = native_ops.pack_int8(LIBRARY, [weight])(x)
    assert y[1:3].isnan().all()
    assert torch.equal(y[::3], exact(x[::3], weight, None))


@compiled
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("case", [case for case in OP.cases if case.name != "no rows"], ids=lambda c: c.name)
def test_attention_agrees_with_its_specification(case: Case, look: Look):
    q, pages, spans, scale = case.make(torch.Generator().manual_seed(3), torch.bfloat16)
    if look.sinks is not None:
        look = attrs.evolve(look, sinks=look.sinks.expand(q.shape[1]).contiguous())
    cache = torch.empty_like(pages)
    native_ops.store(cache, pages)
    plan = native_ops.plan_attention(q.shape[1] // pages.shape[2], spans, look)
    got = native_ops.attend(LIBRARY, q, cache, plan, scale).double()
    expected = attention_reference(q, pages, spans, scale, look).double()
    limit = tolerance(OP, case, torch.bfloat16) * expected.abs().max()
    assert (got - expected).abs().max() <= limit
    if look.cap:
        with pytest.raises(ValueError, match="no cap"):
            attention(q, pages, spans, scale, look)
    else:
        through_torch = attention(q, pages, spans, scale, look).double()
        assert (through_torch - expected).abs().max() <= limit


@compiled
@pytest.mark.parametrize("case", rope.OP.cases, ids=lambda case: case.name)
def test_rope_turns_as_torch_does_and_stores_in_the_pages_order(case: Case):
    expected, got = (list(case.make(torch.Generator().manual_seed(1), torch.bfloat16)) for _ in range(2))
    if not native_ops.fits(expected[3].shape[-1], expected[3].shape[3]):
        pytest.skip("heads or pages that the compiled kernels leave to torch")
    for arguments in (expected, got):
        arguments[3].zero_()
    turned = rope.rope_store(*expected)
    assert torch.equal(native_ops.rope_store(LIBRARY, *got), turned)
    stored = torch.empty_like(got[3])
    native_ops.store(stored, expected[3])
    assert torch.equal(got[3], stored)


@compiled
@pytest.mark.parametrize("op", [rms_norm.OP, rms_norm.ADD_OP, swiglu.OP], ids=lambda op: op.name)
def test_the_small_operations_agree_with_their_specifications(op):
    for case in op.cases:
        expected, got = (case.make(torch.Generator().manual_seed(1), torch.bfloat16) for _ in range(2))
        wanted = op.reference(*expected)
        y = getattr(native_ops, op.name)(LIBRARY, *got)
        if wanted.numel():
            assert (y.double() - wanted.double()).abs().max() <= tolerance(
                op, case, torch.bfloat16
            ) * wanted.double().abs().max()


def test_without_a_compiler_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "COMPILER", "no-such-compiler")
    assert native.load(tmp_path) is None


def test_a_processor_without_the_instructions_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "NEEDS", frozenset({"avx1024"}))
    assert native.load(tmp_path) is None


def test_sources_that_do_not_compile_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "FLAGS", ["-no-such-flag"])
    assert native.load(tmp_path) is None
    assert [*tmp_path.rglob("*.so")] == [*tmp_path.rglob("*.partial")] == []


@compiled
def test_a_damaged_library_is_not_run_and_made_again(tmp_path: Path):
    native.load(tmp_path / "first")
    (library,) = (tmp_path / "first" / "native").iterdir()
    assert native.private(tmp_path / "second" / "native")
    damaged = tmp_path / "second" / "native" / library.name
    damaged.write_bytes(b"not a library")
    assert native.load(tmp_path / "second") is None
    assert native.load(tmp_path / "second") is not None


@compiled
def test_a_library_that_computes_wrongly_is_not_taken(tmp_path: Path):
    broken = attrs.evolve(LIBRARY, linear_int8=lambda *_: None)
    assert native.computes(LIBRARY)
    assert not native.computes(broken)


def test_a_directory_in_which_others_write_is_not_trusted(tmp_path: Path):
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o777)
    assert native.private(mine)
    assert not native.private(shared)
    assert not native.private(shared / "below")
    (tmp_path / "link").symlink_to(mine)
    assert not native.private(tmp_path / "link")
