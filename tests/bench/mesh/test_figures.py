"""Percentiles and the table."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.mesh.figures import Row, percentile, table

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1)


@given(SAMPLES, st.floats(0, 1))
def test_a_percentile_is_a_sample_that_its_share_does_not_exceed(samples: list[float], share: float):
    value = percentile(samples, share)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= share * len(samples) - 1e-6


@given(SAMPLES)
def test_the_whole_share_is_the_maximum(samples: list[float]):
    assert percentile(samples, 1.0) == max(samples)


def test_no_samples_have_no_percentile():
    assert math.isnan(percentile([], 0.5))


def test_a_table_tells_ratios_and_broken_promises():
    rows = (Row("dead", "dead everywhere", "s", 2.5), Row("lost", "lost", "count", 0, digits=0))
    lines = table(rows, {"dead": 2.6, "lost": 0}, {"dead": 5.2})
    assert lines[1].split() == "dead everywhere, s 2.60 5.20 0.5 ≤ 2.5 NO".split()
    assert lines[2].split() == "lost, count 0 - - ≤ 0 yes".split()


def test_what_was_not_measured_is_a_dash_and_keeps_no_promise():
    line = table((Row("dead", "dead everywhere", "s", 2.5),), None, {"dead": math.nan})[1]
    assert line.split() == "dead everywhere, s - - - ≤ 2.5".split()
