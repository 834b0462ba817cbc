"""What a decode step reads from fixed addresses is what a plan made for it would say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import attention_triton
from kernels.attention import Span
from kernels.attention_triton import NO_CHUNK, plan_work
from kernels.sample import draw_key
from node.engine.device_inputs import UNKNOWN, Inputs, draw_keys
from node.engine.graphs import Size, size_of
from node.engine.plan import Row, Sampling

BLOCK, SCRATCH, BATCHES, ITEMS = 16, 99, (1, 2, 4, 8), 64
POSITIONS = st.lists(st.integers(0, 3000), min_size=1, max_size=8)


def rows_at(positions: list[int], first: int = 0) -> tuple[Row, ...]:
    return tuple(
        Row(
            sequence=100 + index,
            ids=(7 * index + position,),
            start=position,
            blocks=tuple((first + index + page) % SCRATCH for page in range(position // BLOCK + 1)),
            sample=True,
            sampling=Sampling(seed=(1 << 63) + index, temperature=index / 4),
        )
        for index, position in enumerate(positions)
    )


def made() -> Inputs:
    return Inputs(torch.device("cpu"), max(BATCHES), ITEMS, 200, BLOCK, SCRATCH)


def size_for(rows: tuple[Row, ...]) -> Size:
    items = sum(row.start // attention_triton.CHUNK + 1 for row in rows)
    return size_of(len(rows), items, True, BATCHES)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.data())
def test_the_keys_of_many_rows_are_the_keys_of_each(seeds: list[int], data: st.DataObject):
    positions = [data.draw(st.integers(0, 2**40)) for _ in seeds]
    expected = [draw_key(seed, position) for seed, position in zip(seeds, positions, strict=True)]
    assert draw_keys(seeds, positions).tolist() == expected


@given(st.lists(POSITIONS, min_size=1, max_size=4))
def test_steps_read_what_a_plan_of_their_rows_says(steps: list[list[int]]):
    inputs = made()
    for number, positions in enumerate(steps):
        rows = rows_at(positions, number)
        size = size_for(rows)
        inputs.fill(rows, size, {})
        step = inputs.step(size, inputs.columns["ids"][: size.batch])
        work, count = step.batches, len(rows)
        wanted = plan_work([Span(row.start, 1, row.blocks) for row in rows], 2, 64, "cpu")
        assert work.latest[:count].tolist() == wanted.latest.tolist()
        assert work.firsts[:count].tolist() == wanted.firsts.tolist()
        assert work.items[: len(wanted.items)].tolist() == wanted.items.tolist()
        for row, line in zip(rows, work.table, strict=False):
            assert tuple(line[: len(row.blocks)].tolist()) == row.blocks
        assert step.ids[:count].tolist() == [row.ids[0] for row in rows]
        assert step.page[:count].tolist() == [row.blocks[-1] for row in rows]
        assert step.slot[:count].tolist() == [row.start % BLOCK for row in rows]
        assert inputs.columns["keys"][:count].tolist() == [
            draw_key(row.sampling.seed, row.start + 1) for row in rows
        ]


@given(POSITIONS)
def test_rows_that_fill_up_write_to_the_scratch_block_alone(positions: list[int]):
    inputs, rows = made(), rows_at([3000] * 8)
    inputs.fill(rows[:1], size_for(rows[:1]), {})
    inputs.fill(rows_at([5] * 8), size_for(rows_at([5] * 8)), {})
    rows = rows_at(positions)
    size = size_for(rows)
    inputs.fill(rows, size, {})
    step = inputs.step(size, inputs.columns["ids"][: size.batch])
    rest = slice(len(rows), size.batch)
    assert set(step.page[rest].tolist()) <= {SCRATCH}
    assert set(step.batches.latest[rest].tolist()) <= {0}
    assert set(step.batches.table[rest, 0].tolist()) <= {SCRATCH}
    listed = [(s, c) for s, c in step.batches.items.tolist() if c != NO_CHUNK]
    assert (
        len(listed)
        == len(set(listed))
        == sum(p // attention_triton.CHUNK + 1 for p in positions) + (size.batch - len(rows))
    )


def test_the_table_is_copied_only_when_a_page_or_a_sequence_is_new():
    inputs = made()
    copies = []
    for positions in ([14, 20], [15, 21], [16, 22], [17, 23], [17]):
        rows = rows_at(positions)
        inputs.fill(rows, size_for(rows), {})
        copies.append(inputs.table_copies)
    assert copies == [1, 1, 2, 2, 2]


def test_a_token_that_nobody_has_read_is_named_by_the_row_that_chose_it():
    inputs = made()
    first, second = rows_at([4, 9])
    unknown = Row(second.sequence, (UNKNOWN,), 10, second.blocks, True, second.sampling)
    size = size_for((first, unknown))
    inputs.fill((first, unknown), size, {second.sequence: 5})
    assert inputs.columns["source"][:2].tolist() == [-1, 5]
    with pytest.raises(KeyError):
        inputs.fill((first, unknown), size, {})
