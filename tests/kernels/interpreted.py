"""What runs in the process that interprets Triton kernels; see `test_triton_interpreted.py`.

Triton decides at its import whether it interprets, so this cannot happen beside the ahead-of-time tests.
Only names and arrays pass between the processes.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch

import kernels
from kernels import Span, attention_triton
from kernels.op import Case, normal

LENGTH, PAGE = 75, 16


def prepare() -> None:
    """Choose the interpreter; let fresh memory be full of NaN, and rows of a matrix product be independent.

    numpy rounds a row of a product by where the row lies, a matrix instruction does not: with the rows taken
    one by one, differing bits can only come from our kernels.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # also fills what torch.empty returns
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def dot(_builder, a, b, d, _precision, _imprecise):
        rows = np.matmul(a.data[:, None, :], b.data, dtype=d.data.dtype)[:, 0]
        return TensorHandle(rows + d.data, d.dtype.scalar)

    InterpreterBuilder.create_dot = dot


def fresh_memory() -> np.ndarray:
    return torch.empty(64).numpy()


def arguments(op: str, name: str, dtype: torch.dtype) -> tuple[object, ...]:
    case = case_of(op, name)
    return case.make(torch.Generator().manual_seed(11), dtype)


def case_of(op: str, name: str) -> Case:
    return next(case for one in kernels.OPS if one.name == op for case in one.cases if case.name == name)


def computed(op: str, name: str, dtype: torch.dtype) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a case's result, and its tensors as the kernels left them."""
    inputs = arguments(op, name, dtype)
    implementations = next(one.implementations for one in kernels.OPS if one.name == op)
    result = implementations["triton"](*inputs)
    return result.numpy(), [each.numpy() for each in inputs if isinstance(each, torch.Tensor)]


def attended(
    cuts: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    pages: Sequence[int] = (7, 2, 9, 0, 5),
    shift: int = 0,
) -> np.ndarray:
    """Attention for spans (start, count) of one sequence, in chunks of two pages: those of one row first.

    What no row may see is NaN: slots after the last position, and pages of nobody. shift: rows of strangers
    before the spans', one each, left out of the result.
    """
    source = torch.Generator().manual_seed(5)
    q = normal(source, dtype, LENGTH, 6, 40)
    kv = normal(source, dtype, LENGTH, 2, 2, 40)  # three query heads on each of two
    cache = torch.full((12, 2, 2, PAGE, 40), torch.nan, dtype=dtype)
    end = max(start + count for start, count in cuts)
    for position in range(end):
        cache[pages[position // PAGE], :, :, position % PAGE] = kv[position]
    cache[11] = 1.0
    spans = [Span(0, 1, (11,))] * shift + [Span(start, count, tuple(pages)) for start, count in cuts]
    rows = torch.cat([q[:shift], *(q[start : start + count] for start, count in cuts)])
    attention_triton.CHUNK = 2 * PAGE
    return attention_triton.attention_triton(rows, cache, spans, 40**-0.5)[shift:].numpy()
