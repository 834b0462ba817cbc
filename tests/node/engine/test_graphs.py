"""Which steps are recorded, when, and what recordings may cost. The recorder here is a fake: it keeps the body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.graphs import BATCHES, Body, Graphs, Size, size_of


class FakeRecorder:
    """Replays what it was given, and counts; each recording keeps as many bytes as it was told."""

    def __init__(self, kept: int = 100) -> None:
        self.kept, self.recorded, self.replayed = kept, 0, 0

    def record(self, body: Body) -> tuple[Body, int]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            body()

        return replay, self.kept


SIZES = st.builds(Size, st.sampled_from(BATCHES), st.sampled_from((1, 2, 4, 256, 512)), st.booleans())


@given(st.lists(SIZES, max_size=60), st.integers(0, 1000), st.integers(0, 5), st.integers(0, 300))
def test_every_step_is_done_once_and_the_bounds_hold(
    steps: list[Size], bytes_max: int, graphs_max: int, kept: int
):
    recorder, done = FakeRecorder(kept), []
    graphs = Graphs(recorder, bytes_max, graphs_max)
    for size in steps:
        graphs.run(size, lambda size=size: done.append(size))
    assert done == steps
    assert graphs.plain + graphs.replays == len(steps)
    assert (graphs.recorded, graphs.replays) == (recorder.recorded, recorder.replayed)
    assert graphs.recorded <= graphs_max
    assert graphs.bytes == kept * graphs.recorded
    assert graphs.bytes < bytes_max + max(kept, 1)


def test_a_size_runs_plainly_is_recorded_when_met_again_and_then_replayed():
    recorder = FakeRecorder()
    graphs, size = Graphs(recorder), Size(8, 8)
    counts = []
    for _ in range(4):
        graphs.run(size, lambda: None)
        counts.append((graphs.plain, recorder.recorded, graphs.replays))
    assert counts == [(1, 0, 0), (1, 1, 1), (1, 1, 2), (1, 1, 3)]


def test_without_a_recorder_every_step_runs_plainly():
    graphs = Graphs(None)
    for _ in range(3):
        graphs.run(Size(1, 1), lambda: None)
    assert (graphs.plain, graphs.recorded) == (3, 0)


@given(st.integers(1, 256), st.integers(0, 5000), st.booleans())
def test_a_size_holds_its_rows_and_chunks_and_wastes_at_most_half(rows: int, extra: int, choosing: bool):
    size = size_of(rows, rows + extra, choosing)
    assert size.batch in BATCHES
    assert size.batch >= rows
    needed = rows + extra + size.batch - rows
    assert needed <= size.items < 2 * needed
    assert size.items & (size.items - 1) == 0


@pytest.mark.parametrize("rows", [257, 5000])
def test_more_rows_than_any_size_have_none(rows: int):
    assert size_of(rows, rows, False) is None


def test_there_are_about_a_dozen_batch_sizes_in_order():
    assert list(BATCHES) == sorted(set(BATCHES))
    assert 10 <= len(BATCHES) <= 14
