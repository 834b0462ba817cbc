"""Measure, on the machine at hand, whether a fast path computes every row by itself.

Libraries choose their blocking by the size of the batch, and a different blocking rounds differently. Here a
function of rows is run over many batch sizes, offsets and thread counts and must return the same bits. A
probe cannot prove the property; it catches the ways of losing it that we have seen (a few elements in 65,536
at k = 2,048 from 129 rows on, a lone row, the tail of a block), on inputs with heavy tails.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import attrs
import torch
from torch import Tensor

from kernels.attention import EVERYTHING, Geometry, Look, Span, attend, plan_attention
from kernels.linear import pack_linear
from kernels.op import normal

SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 33, 64, 65, 100, 129, 255, 256)
THREADS = (1, 2)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the body on `count` threads of this process and put the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rows_are_independent(
    compute: Callable[[Tensor], Tensor], x: Tensor, sizes: Iterable[int] = SIZES
) -> bool:
    """Whether `compute` gives each row of x: [rows, ...] the same bits in any company."""
    with threads(1):
        whole = compute(x)
    for count in THREADS:
        with threads(count):
            for size in sizes:
                for first in {0, (len(x) - size) // 2, len(x) - size}:
                    rows = slice(first, first + size)
                    if not torch.equal(compute(x[rows]), whole[rows]):
                        return False
    return True


def linear_is_exact(dtype: torch.dtype, width: int, k: int = 2560, n: int = 1024) -> bool:
    """Whether `pack_linear` cut into slices of `width` is row-independent for this dtype."""
    return packed_is_exact(lambda weight: pack_linear(weight, None, width), dtype, k, n)


def packed_is_exact(
    pack: Callable[[Tensor], Callable[[Tensor], Tensor]], dtype: torch.dtype, k: int = 2560, n: int = 1024
) -> bool:
    """Whether the linear that `pack` makes of a weight [n, k] is row-independent."""
    generator = torch.Generator().manual_seed(20260726)
    layer = pack((torch.randn(n, k, generator=generator) / k**0.5).to(dtype))
    return rows_are_independent(layer, normal(generator, dtype, 260, k))


def attention_is_exact(dtype: torch.dtype, geometry: Geometry, look: Look = EVERYTHING) -> bool:
    """Whether torch's decode, chunked prefill and any batch of them agree with a whole prefill, bit for bit."""
    plan = partial(plan_attention, geometry=attrs.evolve(geometry, dtype=dtype), look=look)
    return attends_exactly(attend, plan, geometry)


def looks_of(windows: Sequence[int], block: int) -> list[Look]:
    """Looks to probe for a model's windows: those that the probe's text does not fill end within its pages."""
    return [Look(window) for window in sorted({window and min(window, block + 3) for window in windows})]


def attends_exactly(
    attend: Callable[..., Tensor], plan: Callable[[list[Span]], object], geometry: Geometry
) -> bool:
    """As `attention_is_exact`, for any pair of `plan_attention` and `attend`."""
    generator = torch.Generator().manual_seed(20260726)
    block, length = geometry.block, geometry.block * 2 + 9
    shape = (3, 2, geometry.kv_heads, block, geometry.width)
    cache = normal(generator, geometry.dtype, *shape)
    q = normal(generator, geometry.dtype, length, geometry.heads, geometry.width)

    def rows(*cuts: tuple[int, int]) -> Tensor:
        spans = [Span(start, count, (2, 0, 1)) for start, count in cuts]
        chosen = torch.cat([q[start : start + count] for start, count in cuts])
        return attend(chosen, cache, plan(spans), geometry.width**-0.5)

    with threads(1):
        whole = rows((0, length))
    return all(_agrees(rows, whole, block, length, count) for count in THREADS)


def _agrees(rows: Callable[..., Tensor], whole: Tensor, block: int, length: int, count: int) -> bool:
    singles = (0, block // 2, block - 1, block, block + 3, 2 * block - 1, 2 * block, length - 1)
    starts = (0, block - 1, length // 2)
    chunks = [(first, min(size, length - first)) for size in (2, 3, 7, 33, block + 1) for first in starts]
    with threads(count):
        together = rows(*((position, 1) for position in singles))
        alone = torch.cat([rows((position, 1)) for position in singles])
        same = torch.equal(together, whole[list(singles)]) and torch.equal(alone, together)
        return same and all(torch.equal(rows(cut), whole[cut[0] : sum(cut)]) for cut in chunks)
