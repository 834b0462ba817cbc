"""What runs in the process that interprets Triton kernels; see `test_triton_interpreted.py`.

Triton decides at its import whether it interprets, so this cannot happen beside the ahead-of-time tests.
Only names and arrays pass between the processes.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch

import kernels
from kernels import Span, attention_triton, likeliest, linear_int4, linear_scaled, linear_triton, narrow_cache
from kernels.choose import Control, Controls
from kernels.op import Case, normal

LENGTH, PAGE = 75, 16


def prepare() -> None:
    """Choose the interpreter; let fresh memory be full of NaN, and mend its arithmetic."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # also fills what torch.empty returns
    mend_interpreter()
    patch_once()


def patch_once() -> None:
    """Let the interpreter put its own functions into Triton's language once per module, and leave them there.

    It does so at every launch and at every call within a kernel, and looks at each member of the language for
    that: a third of all its time.
    """
    from triton.runtime import interpreter

    patch, none, patched = interpreter._patch_lang, interpreter._LangPatchScope(), set()
    languages = {id(interpreter.tl), id(interpreter.tl.core)}

    def patch_new(function):
        modules = {id(value) for value in function.__globals__.values()} & languages
        if not modules <= patched:
            patched.update(modules)
            patch(function)
        return none

    interpreter._patch_lang = patch_new


def mend_interpreter() -> None:
    """Mend three things in Triton's interpreter (3.7), which keeps bf16 and fp8 as their bits.

    - bf16: it multiplies the bits in `dot`, cuts them off in a cast from fp32, where hardware rounds to even,
      and takes integers for bits in a cast from them. Casts go through torch, and products through fp32.
    - fp8: it loses the carry of a mantissa that rounds up. Casts go through torch.
    - rows of a product: numpy rounds a row by where it lies, a matrix instruction does not. With the rows
      taken one by one, differing bits can only come from our kernels.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def cast_with_bf16(builder, src, dst_type):
        target = dst_type.scalar
        src = src if src.dtype.scalar != tl.bfloat16 else TensorHandle(widened(src.data), tl.float32)
        if target == tl.bfloat16:
            return TensorHandle(rounded(src.data.astype(np.float32)), tl.bfloat16)
        return src if src.dtype.scalar == target else cast(builder, src, dst_type)

    def cast_with_e4m3(builder, src, dst_type, _mode):
        fp8 = src.dtype.scalar == tl.float8e4nv
        wide = of_e4m3(src.data) if fp8 else cast_with_bf16(builder, src, tl.float32).data
        if dst_type.scalar == tl.float8e4nv:
            return TensorHandle(to_e4m3(wide), tl.float8e4nv)
        return cast_with_bf16(builder, TensorHandle(wide, tl.float32), dst_type)

    InterpreterBuilder.cast_impl = cast_with_bf16
    InterpreterBuilder.create_fp_to_fp = cast_with_e4m3
    mend_dot()


def mend_dot() -> None:
    """Multiply the values that bits stand for, row by row."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def values(operand):
        kind = operand.dtype.scalar
        if kind == tl.bfloat16:
            return widened(operand.data)
        return of_e4m3(operand.data) if kind.is_fp8() else operand.data

    def dot(_builder, a, b, d, _precision, _imprecise):
        rows = np.matmul(values(a)[:, None, :], values(b), dtype=d.data.dtype)[:, 0]
        return TensorHandle(rows + d.data, d.dtype.scalar)

    InterpreterBuilder.create_dot = dot


def widened(bits: np.ndarray) -> np.ndarray:
    """bf16 in uint16 -> fp32: the upper half of its bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """fp32 -> bf16 in uint16, to nearest, ties to even."""
    narrow = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    return narrow.view(torch.int16).numpy().view(np.uint16)


def of_e4m3(bits: np.ndarray) -> np.ndarray:
    """e4m3 in uint8 -> fp32."""
    return torch.from_numpy(np.ascontiguousarray(bits)).view(torch.float8_e4m3fn).float().numpy()


def to_e4m3(values: np.ndarray) -> np.ndarray:
    """fp32 -> e4m3 in uint8, to nearest, ties to even."""
    narrow = torch.from_numpy(np.ascontiguousarray(values)).to(torch.float8_e4m3fn)
    return narrow.view(torch.uint8).numpy()


def cast_through_e4m3(values: np.ndarray) -> np.ndarray:
    """fp32 -> e4m3 -> fp32 by the interpreter, as mended."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    builder = InterpreterBuilder()
    narrow = builder.create_fp_to_fp(TensorHandle(values, tl.float32), tl.float8e4nv, None)
    return builder.create_fp_to_fp(narrow, tl.float32, None).data


def cast_through_triton(values: np.ndarray) -> np.ndarray:
    """fp32 -> bf16 -> fp32 by the interpreter, as mended."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    builder = InterpreterBuilder()
    narrow = builder.create_fp_trunc(TensorHandle(values, tl.float32), tl.bfloat16)
    return builder.create_fp_ext(narrow, tl.float32).data


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
    return array(result), [array(each) for each in inputs if isinstance(each, torch.Tensor)]


def array(tensor: torch.Tensor) -> np.ndarray:
    """The values; bf16 as fp32, and of e4m3 the bytes, since numpy has neither."""
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy()
    return (tensor.view(torch.uint8) if tensor.dtype is torch.float8_e4m3fn else tensor).numpy()


def attended(
    cuts: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    pages: Sequence[int] = (7, 2, 9, 0, 5),
    shift: int = 0,
    narrow: torch.dtype | None = None,
) -> np.ndarray:
    """Attention for spans (start, count) of one sequence, in chunks of two pages: those of one row first.

    What no row may see is NaN: slots after the last position, and pages of nobody. shift: rows of strangers
    before the spans', one each, left out of the result. narrow: the dtype of a cache of codes.
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
    if narrow is None:
        return array(attention_triton.attention_triton(rows, cache, spans, 40**-0.5)[shift:])
    codes, steps = narrow_cache.narrow(cache, narrow)
    return array(narrow_cache.attention_narrow_triton(rows, codes, steps, spans, 40**-0.5)[shift:])


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
    return array(y)


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


def chosen(rows: Sequence[int], damage: float = 0.0) -> tuple[list[int], list[float]]:
    """(ids, their scores) of some of six rows of 2,100 tokens with all controls; damage stands in for a logit."""
    source = torch.Generator().manual_seed(9)
    logits = normal(source, torch.float32, 6, 2100)
    if damage:
        logits[:, 1500] = damage
    wishes = [
        Control(9, 1.5, top_k=40),
        Control(8, 2.0, top_p=0.9),
        Control(7, top_k=9, top_p=0.5, min_p=0.1),
    ]
    some = Controls.of([(wishes * 2)[row] for row in rows], "cpu")
    choice = likeliest.sample_triton(logits[list(rows)], some, 3)
    return choice.ids.tolist(), choice.best.tolist()
