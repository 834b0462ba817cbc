"""Attention that looks back through a window: the same bits however the work is cut, and no more read than seen."""

import pytest
import torch

import kernels
from kernels import probe
from kernels.attention import Batch, Geometry, Look, Span, attend, plan_attention

GEOMETRY = Geometry(4, 2, 32, 32, torch.float32, rows_multiple=8)


@pytest.mark.parametrize("window", [1, 20, 35, 4096])
def test_a_rows_bits_do_not_depend_on_how_a_windowed_step_is_cut(window: int):
    assert probe.attention_is_exact(torch.float32, GEOMETRY, Look(window))


def test_the_probe_sees_a_window_that_moves_with_the_chunk():
    def plan(spans: list[Span]) -> tuple[Batch, ...]:
        return plan_attention(spans, GEOMETRY, Look(20 if len(spans) > 1 else 21))

    assert not probe.attends_exactly(attend, plan, GEOMETRY)


def test_windows_longer_than_the_probes_text_are_probed_within_it():
    assert [look.window for look in probe.looks_of((0, 4096, 10), 32)] == [0, 10, 35]


def test_a_step_is_planned_for_each_window_and_each_layer_takes_its_own():
    chosen = kernels.select((torch.float32,), 4, 2, 32, 32, windows=(0, 40))
    several = kernels.looking(chosen, (0, 40))
    generator = torch.Generator().manual_seed(1)
    q, cache = torch.randn(1, 4, 32, generator=generator), torch.randn(4, 2, 2, 32, 32, generator=generator)
    plans = several.plan_attention([Span(100, 1, (3, 1, 0, 2))])
    for look in (Look(), Look(40)):
        alone = chosen.attend(q, cache, chosen.plan_attention([Span(100, 1, (3, 1, 0, 2))], look), 0.2)
        assert torch.equal(several.attend(q, cache, plans, 0.2, look), alone)


def test_chunks_that_nobody_sees_are_not_read():
    spans = (Span(1000, 1, tuple(range(32))),)
    (batch,) = plan_attention(spans, GEOMETRY, Look(40))
    assert batch.chunk.tolist() == [30, 31]
    (whole,) = plan_attention(spans, GEOMETRY)
    assert len(whole.chunk) == 32
