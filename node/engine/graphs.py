"""Steps that are recorded once and replayed: which sizes there are, and what recording them may cost.

A decode step is some three hundred launches, and launching each from Python takes longer than most of them
run. A recorded step (a CUDA graph) is launched as one. It has fixed sizes and addresses, so a step is filled
up to the next of a dozen batch sizes, and its inputs are copied to where the recording reads them.

Nothing is recorded at load. A size runs plainly when it is first met (which compiles its kernels, and that
may not happen while recording), is recorded when it is met again, and replayed from then on. Recordings keep
memory: past `bytes_max` or `graphs_max` no more are made, and sizes without one run plainly. The kernels are
the same either way, so the bits are.

This file decides; `Recorder` does. The engine's is `node.engine.cuda_graphs`, the tests have another.
"""

from collections.abc import Callable
from typing import Protocol

import attrs

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows that a decode step is filled up to. Below 64 the weights cost the same to read and the matrix unit's
tile is filled up anyway, so steps are wide."""
GRAPHS_MAX = 64
"""Most recordings: thirteen batches, at about as many lengths as each meets."""
GRAPH_BYTES = 2 << 30
"""Default bound on the device memory that recordings may keep."""

Body = Callable[[], None]


@attrs.frozen
class Size:
    """What a recording is made for."""

    batch: int
    """Rows, filled up."""
    items: int
    """Chunks of attention over all rows, filled up to a power of two."""
    choosing: bool = True
    """Whether the tokens are chosen in it, too."""


def size_of(rows: int, items: int, choosing: bool, batches: tuple[int, ...] = BATCHES) -> Size | None:
    """The least size that holds so many rows and chunks; None if there are more rows than any has."""
    batch = next((batch for batch in batches if rows <= batch), None)
    if batch is None:
        return None
    filled = items + batch - rows  # a row that fills up has one chunk
    return Size(batch, 1 << (filled - 1).bit_length(), choosing)


class Recorder(Protocol):
    """Records launches without running them."""

    def record(self, body: Body) -> tuple[Body, int]:
        """Return what replays the launches that `body` makes, and the bytes of device memory it keeps."""


@attrs.define
class Graphs:
    """The recordings of one runner, and what they have cost."""

    recorder: Recorder | None
    """None records nothing: every step runs plainly."""
    bytes_max: int = GRAPH_BYTES
    graphs_max: int = GRAPHS_MAX
    bytes: int = attrs.field(init=False, default=0)
    """Device memory that recordings keep."""
    plain: int = attrs.field(init=False, default=0)
    """Steps that ran plainly."""
    replays: int = attrs.field(init=False, default=0)
    _met: set[Size] = attrs.field(init=False, factory=set)
    _replay: dict[Size, Body] = attrs.field(init=False, factory=dict)

    @property
    def recorded(self) -> int:
        """How many recordings there are."""
        return len(self._replay)

    def run(self, size: Size, body: Body) -> None:
        """Do what `body` does: by it, or by a recording of it at this size."""
        if size not in self._replay and self._may_record(size):
            self._replay[size], kept = self.recorder.record(body)
            self.bytes += kept
        self._met.add(size)
        if size in self._replay:
            self.replays += 1
            self._replay[size]()
        else:
            self.plain += 1
            body()

    def _may_record(self, size: Size) -> bool:
        room = self.recorded < self.graphs_max and self.bytes < self.bytes_max
        return self.recorder is not None and size in self._met and room
