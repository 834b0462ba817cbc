"""The inputs of a decode step at fixed addresses on the device, with their twin in pinned host memory.

The twin is filled by numpy, column by column, and copied in one piece, without waiting. The table of pages
is copied apart, and only when a row has another sequence or another page than the step before. Rows that fill
a batch up are real rows, of one token in a scratch block that no sequence has, so no kernel knows of them.

There are two twins, used in turn: the next step may be filled in while the copy of this one is still waiting
for the device. A third would have to wait for the first, and does: `fill` waits for the copy before last.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kernels import attention_triton
from kernels.attention_triton import NO_CHUNK, Work
from kernels.choose import NONE, Controls
from kernels.sample import GOLDEN, MIX
from node.engine.device_sampler import floor_of, temperature_of
from node.engine.graphs import Size
from node.engine.model import Step
from node.engine.plan import Row

UNKNOWN = -1
"""Stands in a row's `ids` for the token that the step before chose and that has not been read yet."""

WIDE = ("ids", "positions", "page", "slot", "keys", "source")
"""int64 columns, one element per row. source: the row of the step before whose token is this row's id, or -1."""
APART_MAX = 8
"""Rows of the table that are copied one by one; more go with all others in one copy."""
_MASK = (1 << 64) - 1


def draw_keys(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """`kernels.sample.draw_key` for many rows at once: int64."""
    golden = np.uint64(GOLDEN)
    inner = _mix(np.array([p & _MASK for p in positions], dtype=np.uint64) + golden)
    return _mix(np.array([s & _MASK for s in seeds], dtype=np.uint64) + inner).view(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    for factor in MIX:
        value = (value ^ (value >> np.uint64(33))) * np.uint64(factor)
    return value ^ (value >> np.uint64(33))


class _Twin:
    """One host buffer, its columns as numpy arrays, and the event after its last copy."""

    def __init__(self, layout: "Layout", device: torch.device) -> None:
        self.buffer = torch.zeros(layout.bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.columns = {name: view.numpy() for name, view in layout.views(self.buffer).items()}
        self.copied = torch.cuda.Event() if device.type == "cuda" else None

    def wait(self) -> None:
        """Wait until the device has read the buffer."""
        if self.copied is not None:
            self.copied.synchronize()


class Layout:
    """Where the columns lie in a buffer of bytes."""

    def __init__(self, batch: int, items: int) -> None:
        columns = [(name, torch.int64, batch) for name in WIDE]
        columns += [("knobs", torch.float32, 5 * batch), ("latest", torch.int32, batch)]
        columns += [("firsts", torch.int32, batch), ("items", torch.int32, 2 * items)]
        columns += [("top_k", torch.int32, batch), ("top_p", torch.float64, batch)]
        self._columns, end = [], 0
        for name, dtype, count in columns:
            self._columns.append((name, dtype, end, end + count * dtype.itemsize))
            end += -(-count * dtype.itemsize // 16) * 16  # kernels are promised multiples of 16 bytes
        self.bytes = end

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The columns of a buffer, each under its name."""
        return {name: buffer[low:high].view(dtype) for name, dtype, low, high in self._columns}


class Inputs:
    """A decode step's inputs. One per runner; `fill` and then run what reads the views."""

    def __init__(self, device: torch.device, batch: int, items: int, pages: int, block: int, scratch: int):
        """batch, items: the largest size. pages: most per sequence. block: tokens. scratch: a block's number."""
        layout = Layout(batch, items)
        self._device_buffer = torch.zeros(layout.bytes, dtype=torch.uint8, device=device)
        self.columns = layout.views(self._device_buffer)
        self.table = torch.full((batch, pages), scratch, dtype=torch.int32, device=device)
        self._table = torch.full((batch, pages), scratch, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._pages: list[tuple[int, ...]] = [()] * batch
        self._table_copied = torch.cuda.Event() if device.type == "cuda" else None
        self._twins = (_Twin(layout, device), _Twin(layout, device))
        self._slots = torch.full((batch, 2), NONE, dtype=torch.int32, device=device)
        self._turn = 0
        self._block, self._scratch = block, scratch
        self.items_max = items
        self.table_copies = 0
        """How often the table went to the device."""

    def fill(self, rows: Sequence[Row], size: Size, chosen: Mapping[int, int]) -> None:
        """Copy one step's rows, of one token each, filled up to a size.

        chosen: for sequences whose id is `UNKNOWN`, the row of the step before that chose it. KeyError if
        one is missing: the caller's mistake, and nothing has been copied.
        """
        source = [chosen[row.sequence] if row.ids[0] == UNKNOWN else -1 for row in rows]
        self._turn ^= 1
        twin = self._twins[self._turn]
        twin.wait()
        self._fill_columns(twin.columns, rows, source, size)
        self._device_buffer.copy_(twin.buffer, non_blocking=True)
        if twin.copied is not None:
            twin.copied.record()
        self._fill_table(rows, size.batch)

    def _fill_columns(
        self, columns: dict[str, np.ndarray], rows: Sequence[Row], source: list[int], size: Size
    ) -> None:
        count, block = len(rows), self._block
        starts = np.array([row.start for row in rows], dtype=np.int64)
        values = {
            "ids": [max(row.ids[0], 0) for row in rows],
            "positions": starts,
            "page": [row.blocks[row.start // block] for row in rows],
            "slot": starts % block,
            "keys": draw_keys([row.sampling.seed for row in rows], [row.start + 1 for row in rows]),
            "source": source,
            "top_k": [row.sampling.top_k for row in rows],
            "top_p": [row.sampling.top_p for row in rows],
            "latest": starts,
        }
        filling = {"page": self._scratch, "source": -1, "top_p": 1.0}
        for name, column in values.items():
            columns[name][:count] = column
            columns[name][count : size.batch] = filling.get(name, 0)
        knobs = columns["knobs"].reshape(-1, 5)
        knobs[:count] = [
            (temperature_of(s), 1.0, 0.0, 0.0, floor_of(s)) for s in (row.sampling for row in rows)
        ]
        knobs[count : size.batch] = (0.0, 1.0, 0.0, 0.0, 0.0)
        self._fill_items(columns, starts, size)

    @staticmethod
    def _fill_items(columns: dict[str, np.ndarray], starts: np.ndarray, size: Size) -> None:
        """A row's chunks side by side; rows that fill up have one; programs beyond the list end at once."""
        depths = np.ones(size.batch, dtype=np.int64)
        depths[: len(starts)] = starts // attention_triton.CHUNK + 1
        ends = depths.cumsum()
        firsts = ends - depths
        columns["firsts"][: size.batch] = firsts
        items = columns["items"].reshape(-1, 2)
        sequence = np.repeat(np.arange(size.batch), depths)
        items[: ends[-1], 0] = sequence
        items[: ends[-1], 1] = np.arange(ends[-1]) - firsts[sequence]
        items[ends[-1] : size.items] = (0, NO_CHUNK)

    def _fill_table(self, rows: Sequence[Row], batch: int) -> None:
        """Write the rows of the table that have changed, and copy it if any has."""
        wanted = [row.blocks for row in rows] + [(self._scratch,)] * (batch - len(rows))
        changed = [index for index, pages in enumerate(wanted) if pages != self._pages[index]]
        if not changed:
            return
        if self._table_copied is not None:
            self._table_copied.synchronize()  # the device may still be reading the last one
        for index in changed:
            self._table[index, : len(wanted[index])] = torch.tensor(wanted[index], dtype=torch.int32)
            self._pages[index] = wanted[index]
        self._copy_table(changed)
        if self._table_copied is not None:
            self._table_copied.record()

    def _copy_table(self, changed: list[int]) -> None:
        self.table_copies += 1
        if len(changed) > APART_MAX:
            self.table.copy_(self._table, non_blocking=True)
            return
        for index in changed:
            pages = slice(0, len(self._pages[index]))
            self.table[index, pages].copy_(self._table[index, pages], non_blocking=True)

    def controls(self, size: Size) -> Controls:
        """What a step's rows wish, where it is numbers: no row has a table."""
        column = {name: view[: size.batch] for name, view in self.columns.items()}
        knobs = self.columns["knobs"].view(-1, 5)[: size.batch]
        return Controls(column["keys"], knobs, column["top_k"], column["top_p"], self._slots[: size.batch])

    def step(self, size: Size, ids: Tensor) -> Step:
        """The views of one size as a model's step; ids: [batch], which may differ from the column's."""
        column = {name: view[: size.batch] for name, view in self.columns.items()}
        work = Work(
            latest=column["latest"],
            items=self.columns["items"].view(-1, 2)[: size.items],
            firsts=column["firsts"],
            tiles=column["latest"].new_empty(0, 4),
            table=self.table[: size.batch],
            rows=size.batch,
        )
        return Step(ids, column["positions"], column["page"], column["slot"], work)
