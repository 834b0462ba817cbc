"""A row's bits depend on the row: not on its company, its place, the cut of the work or the threads."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels import Span, probe
from kernels.attention import Geometry, attend, plan_attention
from kernels.linear import pack_linear
from kernels.op import normal
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu

DTYPES = tuple(dtype for dtype in (torch.bfloat16, torch.float32) if kernels.linear.supports(dtype))
BLOCK, LENGTH = 32, 150


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def chosen(request: pytest.FixtureRequest) -> kernels.Kernels:
    chosen = kernels.select((request.param,), heads=4, kv_heads=2, width=64, block=BLOCK)
    assert chosen.exact, "no fast path for this dtype is row-independent on this machine"
    return chosen


@pytest.mark.parametrize(("k", "n"), [(2048, 1024), (4096, 512), (97, 33)])
def test_linear_rows_do_not_see_each_other(chosen: kernels.Kernels, k: int, n: int):
    layer = chosen.pack_linear((torch.randn(n, k, generator=generator()) / k**0.5).to(chosen.dtype))
    assert probe.rows_are_independent(layer, normal(generator(), chosen.dtype, 300, k), (*probe.SIZES, 300))


@pytest.mark.parametrize("width", [64, 97, 768, 4096])
def test_norm_and_swiglu_rows_do_not_see_each_other(chosen: kernels.Kernels, width: int):
    x = normal(generator(), chosen.dtype, 257, 2 * width)
    weight = normal(generator(), chosen.dtype, 2 * width)
    assert probe.rows_are_independent(lambda rows: rms_norm(rows, weight, 1e-5), x)
    assert probe.rows_are_independent(swiglu, x)


def test_the_probe_catches_rows_that_do():
    x = normal(generator(), torch.float32, 260, 2048)
    assert not probe.rows_are_independent(lambda rows: rows - rows.mean(0), x)
    weight = torch.randn(1024, 2048, generator=generator())
    layer = pack_linear(weight, None, 2048)
    lone = lambda rows: layer(rows) if len(rows) > 1 else F.linear(rows, weight)  # noqa: E731
    assert not probe.rows_are_independent(lone, x)


class Paged:
    """One sequence of LENGTH tokens in scattered pages, and strangers to share its batches with."""

    def __init__(self, geometry: Geometry) -> None:
        source = generator()
        self.geometry = geometry
        self.cache = normal(source, geometry.dtype, 12, 2, geometry.kv_heads, BLOCK, geometry.width)
        self.q = normal(source, geometry.dtype, LENGTH, geometry.heads, geometry.width)
        self.pages = (7, 2, 11, 0, 5)

    def attend(self, cuts: list[tuple[int, int]], pages: tuple[int, ...] | None = None) -> torch.Tensor:
        """Attention for spans (start, count) of the sequence; spans of one row first."""
        spans = [Span(start, count, pages or self.pages) for start, count in cuts]
        q = torch.cat([self.q[start : start + count] for start, count in cuts])
        plan = plan_attention(spans, self.geometry)
        return attend(q, self.cache, plan, self.geometry.width**-0.5)


@pytest.fixture
def paged(chosen: kernels.Kernels) -> Paged:
    return Paged(chosen.geometry)


@pytest.mark.parametrize("threads", [1, 2])
def test_decode_bits_are_prefill_bits(paged: Paged, threads: int):
    whole = paged.attend([(0, LENGTH)])
    with probe.threads(threads):
        alone = torch.cat([paged.attend([(position, 1)]) for position in range(LENGTH)])
        together = paged.attend([(position, 1) for position in range(LENGTH)])
    assert torch.equal(alone, whole)
    assert torch.equal(together, whole)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 31, 32, 33, 64, 100])
def test_chunked_prefill_bits_are_whole_prefill_bits(paged: Paged, size: int):
    whole = paged.attend([(0, LENGTH)])
    cuts = [(start, min(size, LENGTH - start)) for start in range(0, LENGTH, size)]
    assert torch.equal(torch.cat([paged.attend([cut]) for cut in cuts]), whole)
    mixed = paged.attend([(140, 1), (3, 1), *cuts[:-1]])
    assert torch.equal(mixed[2:], whole[: len(mixed) - 2])


def test_where_the_pages_lie_does_not_matter(paged: Paged):
    whole = paged.attend([(0, LENGTH)])
    moved = (1, 3, 4, 6, 8)
    paged.cache[list(moved)] = paged.cache[list(paged.pages)].clone()
    assert torch.equal(paged.attend([(0, LENGTH)], moved), whole)


def test_a_row_sees_no_key_after_its_own(paged: Paged):
    before = paged.attend([(40, 1), (0, 40)])
    paged.cache[2, :, :, 9:] = 1e4  # slots of positions 41 and later in the second page
    assert torch.equal(paged.attend([(40, 1), (0, 40)]), before)
    paged.cache[2, :, :, 8] = 1e4  # position 40 itself
    assert not torch.equal(paged.attend([(40, 1), (0, 40)]), before)


def test_small_operator_calls_and_short_pieces_give_the_same_bits(
    paged: Paged, monkeypatch: pytest.MonkeyPatch
):
    cuts = [(149, 1), (64, 1), (0, LENGTH)]
    before = paged.attend(cuts)
    monkeypatch.setattr(kernels.attention, "GATHER_BYTES", 1)
    monkeypatch.setattr(kernels.attention, "PARTIAL_BYTES", 200_000)
    assert torch.equal(paged.attend(cuts), before)


def test_rope_keeps_norms_and_turns_relative_positions_alike():
    case = next(case for case in kernels.rope.OP.cases if case.name == "grouped")
    qkv, cos, sin, cache, page, slot = case.make(generator(), torch.float32)
    before = qkv.clone()
    kernels.rope.rope_store(qkv, cos, sin, cache, page, slot)
    torch.testing.assert_close(qkv.norm(dim=-1), before.norm(dim=-1))
    frequencies = 10_000.0 ** -(torch.arange(0, 64, 2) / 64)
    vectors = torch.randn(1, 3, 64, generator=generator()).expand(2, 3, 64).clone()
    dots = []
    for shift in (0, 17):
        angles = kernels.rope.rope_angles(torch.tensor([shift, 5 + shift]), frequencies)
        turned = kernels.rope.rope_store(
            vectors.clone(), *angles, torch.zeros(1, 2, 1, 64, 64), torch.tensor([0, 0]), torch.tensor([0, 1])
        )
        dots.append(turned[0, 0] @ turned[1, 1])
    torch.testing.assert_close(dots[0], dots[1], rtol=1e-4, atol=1e-4)
