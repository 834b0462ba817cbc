"""A row's bits depend on the row: not on its company, its place, the cut of the work or the threads."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels import Span, native, native_ops, probe
from kernels.attention import EVERYTHING, Look
from kernels.linear import pack_linear
from kernels.op import normal

LIBRARY = native.load()
LOW = [torch.bfloat16] if kernels.linear.supports(torch.bfloat16) else []
PATHS = {
    **{f"torch {dtype}": (dtype, "dense", None) for dtype in (*LOW, torch.float32)},
    "torch int8": ((*LOW, torch.float32)[0], "int8", None),
}
if LIBRARY is not None:
    PATHS |= {f"compiled {held}": (torch.bfloat16, held, LIBRARY) for held in kernels.WEIGHTS}
BLOCK, LENGTH = 32, 150


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture(scope="module", params=PATHS)
def chosen(request: pytest.FixtureRequest) -> kernels.Kernels:
    dtype, held, library = PATHS[request.param]
    chosen = kernels.select((dtype,), 4, 2, 64, BLOCK, held, library)
    assert chosen.exact, "no fast path for this dtype is row-independent on this machine"
    assert chosen.name == request.param.split()[0]
    return chosen


@pytest.mark.parametrize(("k", "n"), [(2048, 1024), (4096, 512), (97, 33)])
def test_linear_rows_do_not_see_each_other(chosen: kernels.Kernels, k: int, n: int):
    layer = chosen.pack_linear((torch.randn(n, k, generator=generator()) / k**0.5).to(chosen.dtype))
    assert probe.rows_are_independent(layer, normal(generator(), chosen.dtype, 300, k), (*probe.SIZES, 300))


@pytest.mark.parametrize("k", [8192, 14336, 16384])
def test_long_rows_have_the_same_bits_in_batches_of_one_to_sixty_four(chosen: kernels.Kernels, k: int):
    layer = chosen.pack_linear((torch.randn(70, k, generator=generator()) / k**0.5).to(chosen.dtype))
    x = normal(generator(), chosen.dtype, 64, k) ** 3  # a few elements outweigh all others
    assert probe.rows_are_independent(layer, x, range(1, 65))


PLANTED = {
    "one bit more in company": lambda whole, _, x: whole(x) * (1 + 2.0**-23 * (len(x) == 17)),
    "a lone row summed in another order": lambda whole, halves, x: whole(x) if len(x) > 1 else halves(x),
    "a scale of the batch": lambda whole, _, x: whole(x * 3 / x.abs().amax()) / 3 * x.abs().amax(),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_the_probe_catches_a_break_that_was_planted(name: str):
    weight = torch.randn(256, 2048, generator=generator()) / 45
    whole, halves = pack_linear(weight, None, 2048), pack_linear(weight, None, 1024)
    x = normal(generator(), torch.float32, 260, 2048)
    assert probe.rows_are_independent(whole, x)
    assert not probe.rows_are_independent(lambda rows: PLANTED[name](whole, halves, rows), x)


@pytest.mark.parametrize("width", [64, 97, 768, 4096])
def test_norm_and_swiglu_rows_do_not_see_each_other(chosen: kernels.Kernels, width: int):
    x = normal(generator(), chosen.dtype, 257, 2 * width)
    weight = normal(generator(), chosen.dtype, 2 * width)
    assert probe.rows_are_independent(lambda rows: chosen.rms_norm(rows, weight, 1e-5), x)
    assert probe.rows_are_independent(lambda rows: chosen.add_rms_norm(rows, rows + 1, weight, 1e-5), x)
    assert probe.rows_are_independent(chosen.swiglu, x)


def test_the_probe_catches_rows_that_do():
    x = normal(generator(), torch.float32, 260, 2048)
    assert not probe.rows_are_independent(lambda rows: rows - rows.mean(0), x)
    weight = torch.randn(1024, 2048, generator=generator())
    layer = pack_linear(weight, None, 2048)
    lone = lambda rows: layer(rows) if len(rows) > 1 else F.linear(rows, weight)  # noqa: E731
    assert not probe.rows_are_independent(lone, x)


class Paged:
    """One sequence of LENGTH tokens in scattered pages, and strangers to share its batches with."""

    def __init__(self, chosen: kernels.Kernels) -> None:
        source = generator()
        self.chosen = chosen
        pages = normal(source, chosen.dtype, 12, 2, 2, BLOCK, 64)
        self.q = normal(source, chosen.dtype, LENGTH, 4, 64)
        self.pages = (7, 2, 11, 0, 5)
        self.cache = pages.clone()
        if chosen.name == "compiled":
            native_ops.store(self.cache, pages)

    look = EVERYTHING

    def attend(self, cuts: list[tuple[int, int]], pages: tuple[int, ...] | None = None) -> torch.Tensor:
        """Attention for spans (start, count) of the sequence; spans of one row first."""
        spans = [Span(start, count, pages or self.pages) for start, count in cuts]
        q = torch.cat([self.q[start : start + count] for start, count in cuts])
        return self.chosen.attend(q, self.cache, self.chosen.plan_attention(spans, self.look), 0.125)

    def overwrite(self, page: int, first: int, value: float) -> None:
        """Keys and values of a page's slots from `first` on become `value`."""
        plain = torch.empty_like(self.cache)
        if self.chosen.name == "compiled":
            mark = torch.zeros_like(self.cache)
            mark[page, :, :, first:] = 1
            native_ops.store(plain, mark)
            self.cache[plain == 1] = value
        else:
            self.cache[page, :, :, first:] = value


@pytest.fixture
def paged(chosen: kernels.Kernels) -> Paged:
    return Paged(chosen)


@pytest.mark.parametrize("threads", [1, 2])
def test_decode_bits_are_prefill_bits(paged: Paged, threads: int):
    whole = paged.attend([(0, LENGTH)])
    with probe.threads(threads):
        alone = torch.cat([paged.attend([(position, 1)]) for position in range(LENGTH)])
        together = paged.attend([(position, 1) for position in range(LENGTH)])
    assert torch.equal(alone, whole)
    assert torch.equal(together, whole)


@pytest.mark.parametrize("window", [1, 20, 32, 70])
def test_a_window_keeps_the_bits_of_decode_and_of_chunks(paged: Paged, window: int):
    paged.look = Look(window, sinks=torch.tensor([0.5, -1.0, 0.0, 2.0]))
    whole = paged.attend([(0, LENGTH)])
    assert torch.equal(torch.cat([paged.attend([(place, 1)]) for place in range(LENGTH)]), whole)
    assert torch.equal(paged.attend([(place, 1) for place in range(LENGTH)]), whole)
    cuts = [(start, min(33, LENGTH - start)) for start in range(0, LENGTH, 33)]
    assert torch.equal(torch.cat([paged.attend([cut]) for cut in cuts]), whole)


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
    paged.overwrite(2, 9, 1e4)  # slots of positions 41 and later in the second page
    assert torch.equal(paged.attend([(40, 1), (0, 40)]), before)
    paged.overwrite(2, 8, 1e4)  # position 40 too
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
