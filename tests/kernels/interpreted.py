"""What runs in the process that interprets Triton kernels; see `test_triton_interpreted.py`.

Triton decides at its import whether it interprets, so this cannot happen beside the ahead-of-time tests.
Only names and arrays pass between the processes.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch

import kernels
from kernels import Span, attention_triton, linear_int4, linear_scaled, linear_triton
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
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, _convert_float

    def values(operand):
        narrow = operand.dtype.scalar.is_fp8()
        return (
            _convert_float(operand.data, operand.dtype, tl.float16, None).view(np.float16)
            if narrow
            else operand.data
        )

    def dot(_builder, a, b, d, _precision, _imprecise):
        rows = np.matmul(values(a)[:, None, :], values(b), dtype=d.data.dtype)[:, 0]
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
    return result.numpy(), [array(each) for each in inputs if isinstance(each, torch.Tensor)]


def array(tensor: torch.Tensor) -> np.ndarray:
    """The values, or the bytes of a dtype that numpy does not have."""
    return (tensor.view(torch.uint8) if tensor.dtype is torch.float8_e4m3fn else tensor).numpy()


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


def multiplied(form: str, dtype: torch.dtype, first: int = 0, count: int = 140) -> np.ndarray:
    """Rows [first, first + count) of a linear layer of three slices, in the form for few rows or for many."""
    source = torch.Generator().manual_seed(7)
    x, weight = normal(source, dtype, 140, 2100), normal(source, dtype, 150, 2100)
    rows = x[first : first + count]
    y = torch.empty(count, 150, dtype=dtype)
    if form == "whole":
        launches = [linear_triton.whole_launch(rows, weight, None, y, 3)]
    else:
        launches = linear_triton.split_launches(rows, weight, None, y)
    for launch in launches:
        launch.run()
    return y.numpy()


def multiplied_narrow(programs: int, narrow: torch.dtype, first: int = 0, count: int = 140) -> np.ndarray:
    """As `multiplied`, of int8 or e4m3 rows; one program takes the form for many rows, a thousand the other."""
    source = torch.Generator().manual_seed(7)
    q, scale = linear_scaled.quantise(normal(source, torch.float32, 140, 2100), narrow)
    weight, w_scale = linear_scaled.quantise(normal(source, torch.float32, 150, 2100), narrow)
    y = torch.empty(count, 150)
    some = slice(first, first + count)
    for launch in linear_scaled.scaled_launches(q[some], scale[some], weight, w_scale, None, y, programs):
        launch.run()
    return y.numpy()


def multiplied_int4(programs: int, first: int = 0, count: int = 140) -> np.ndarray:
    """As `multiplied_narrow`, with weights of four bits."""
    source = torch.Generator().manual_seed(7)
    x = normal(source, torch.float32, 140, 2176)
    weight, scales = linear_int4.pack_int4(normal(source, torch.float32, 150, 2176))
    y = torch.empty(count, 150)
    for launch in linear_int4.int4_launches(x[first : first + count], weight, scales, None, y, programs):
        launch.run()
    return y.numpy()
