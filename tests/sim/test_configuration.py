"""Options as people write them: read, turned, described; what makes no sense is refused in words."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.swim_options import SwimOptions
from node.core import NodeOptions
from sim.configuration import PRESETS, ConfigurationError, describe, differences, fit, parse


@given(
    st.sampled_from(sorted(PRESETS)),
    st.floats(0.01, 100.0),
    st.integers(1, 9),
    st.booleans(),
    st.integers(1, 4096),
    st.floats(0.0, 1.0),
)
def test_what_is_described_is_read_back(name, period_s, helpers, shared, flights, near):
    text = (
        f"{name}, swim.probe_period_s={period_s!r}, swim.helpers={helpers},swim.shared_probing={shared},"
        f"node.flights_max={flights},route.near_ratio={near!r}"
    )
    options = parse(text)
    assert options.swim.probe_period_s == period_s
    assert options.forward.route.near_ratio == near
    assert parse(describe(options)) == options


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_differs_in_nothing(name: str):
    assert parse(name) == NodeOptions(PRESETS[name]())
    assert differences(parse(name)) == (name, {})


def test_knobs_alone_turn_the_local_preset():
    assert parse("swim.helpers=2") == NodeOptions(attrs.evolve(SwimOptions.local(), helpers=2))


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("lam", "`lam` is no preset", "local"),
        ("lan,swim.x=1", "`swim.x` is no knob", "probe_period_s"),
        ("lan,swim.helpers=many", "`swim.helpers` is `many`", "int"),
        ("lan,swim.helpers=1.5", "`swim.helpers` is `1.5`", "int"),
        ("lan,swim.helpers=true", "`swim.helpers` is `True`", "int"),
        ("lan,quic.x=1", "`quic.x` names no part", "swim"),
        ("lan,helpers", "`helpers` is not of the form", "swim.probe_period_s=0.5"),
        ("lan,node.swim=1", "`node.swim` is no knob", "flights_max"),
        ("", "`` is no preset", "local"),
    ],
)
def test_nonsense_is_refused_with_what_would_make_sense(text: str, says: str, hint: str):
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert says in str(refused.value)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("value", "wanted", "made"),
    [
        (3, float, 3.0),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([["a"], ["b", "c"]], tuple[tuple[str, ...], ...], (("a",), ("b", "c"))),
        (["h", 1], tuple[str, int], ("h", 1)),
        (2, float | None, 2.0),
        (None, float | None, None),
    ],
)
def test_values_become_what_a_field_wants(value, wanted, made):
    assert fit(value, wanted, "there") == made


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("3", float),
        (True, float),
        (True, int),
        ([1], tuple[str, ...]),
        ([1, 2], tuple[int]),
        ([], str),
        (None, str),
    ],
)
def test_values_that_do_not_fit_are_refused(value, wanted):
    with pytest.raises(ConfigurationError):
        fit(value, wanted, "there")
