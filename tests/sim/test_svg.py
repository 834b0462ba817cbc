"""Plots as SVG: what is drawn where, that any text is harmless, and that odd values do no damage."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.svg import Axis, Bars, Line, Plot, Row, Scale, Span, Timeline, draw, number, scale, ticks

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1e6, 1e6)
texts = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Cn")), max_size=20)


def parsed(figure: Plot | Bars | Timeline) -> ET.Element:
    return ET.fromstring(draw(figure))


def words(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


@given(texts, st.lists(st.tuples(numbers, numbers), max_size=20), st.booleans(), st.booleans())
def test_any_points_and_any_words_give_well_formed_svg_without_nan(text, points, x_log, y_log):
    figure = Plot(text, (Line(text, points), Line("b", points)), Axis(text, x_log), Axis(text, y_log))
    root = parsed(figure)
    assert root.get("aria-label") == text
    for path in root.iter(f"{SVG}path"):
        assert "nan" not in path.get("d")
        assert "inf" not in path.get("d")


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e6), st.booleans(), st.floats(0, 1))
def test_a_scale_is_monotone_and_stays_within_its_ends(low, factor, log, share):
    of = Scale(low, low * factor, 100.0, 300.0, log)
    value = low + (low * factor - low) * share
    assert 100.0 - 1e-6 <= of.at(value) <= 300.0 + 1e-6
    assert of.at(low) == pytest.approx(100.0)
    assert of.at(low * factor) == pytest.approx(300.0)
    assert of.at(value) <= of.at(low * factor) + 1e-6


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_a_linear_axis_has_a_few_round_ticks_within_it(low, width):
    values = ticks(Scale(low, low + width, 0.0, 1.0))
    assert 2 <= len(values) <= 12
    assert all(low - width * 1e-6 <= value <= low + width * (1 + 1e-6) for value in values)


def test_a_logarithmic_axis_has_decades():
    assert ticks(Scale(8, 10_000, 0.0, 1.0, log=True)) == [10.0, 100.0, 1000.0, 10_000.0]
    assert ticks(Scale(1, 100, 0.0, 1.0, log=True)) == [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]


def test_a_scale_widens_to_a_round_number_unless_its_end_is_given():
    assert scale(Axis(), [0.0, 9.7], 0.0, 1.0).high == 10.0
    assert scale(Axis(high=9.0), [0.0, 9.7], 0.0, 1.0).high == 9.0


@pytest.mark.parametrize(
    ("value", "said"), [(0.05, "0.05"), (1000, "1,000"), (2e6, "2e6"), (0.0, "0"), (1e-5, "1e-5"), (-3, "-3")]
)
def test_numbers_read_as_a_person_writes_them(value, said):
    assert number(value) == said


def test_points_that_cannot_be_drawn_are_left_out():
    root = parsed(Plot("t", (Line("a", [(1, 1), (2, math.nan), (3, 0.0), (4, 2)]),), y=Axis(log=True)))
    (line,) = [path for path in root.iter(f"{SVG}path") if "line" in path.get("class")]
    assert len(re.findall(r"[ML]", line.get("d"))) == 2


def test_a_band_lies_behind_its_line():
    text = draw(Plot("t", (Line("a", [(0, 1), (1, 2)], [(0, 0, 2), (1, 1, 3)]),)))
    assert 0 < text.index('class="band c0"') < text.index('class="line c0"')


def test_bars_stand_beside_each_other_with_their_values():
    root = parsed(Bars("b", ("x", "y"), (("one", (1, 2)), ("two", (3, math.nan)))))
    cells = [rect for rect in root.iter(f"{SVG}rect") if "cell" in rect.get("class")]
    bars = [cell for cell in cells if cell.find(f"{SVG}title") is not None]
    assert [bar.find(f"{SVG}title").text for bar in bars] == ["x, one: 1", "x, two: 3", "y, one: 2"]
    assert {"one", "two", "x", "y"} <= set(words(root))


def test_a_timeline_has_a_row_for_each_name_and_a_box_for_each_span():
    rows = (Row("n0", (Span(0, 5, 2, "alive"), Span(5, 9, 1, "x" * 99))), Row("n1", (Span(0, 9),)))
    root = parsed(Timeline("t", rows, legend=((2, "means well"),)))
    assert {"n0", "n1", "alive", "means well"} <= set(words(root))
    assert "x" * 99 not in words(root), "a text that does not fit is shown when pointed at"
    assert "x" * 99 in draw(Timeline("t", rows))


def test_words_are_escaped():
    assert "<script>" not in draw(Timeline("<script>", (Row("<script>", (Span(0, 1, 0, "<script>"),)),)))


def test_only_a_standalone_figure_carries_the_style():
    figure = Plot("t", (Line("a", [(0, 1)]),))
    assert "prefers-color-scheme" in draw(figure)
    assert "<style>" not in draw(figure, standalone=False)


def test_a_figure_is_a_function_of_its_value():
    figure = Plot("t", (Line("a", [(0, 1 / 3), (1, 2 / 3)]),))
    assert draw(figure) == draw(figure)
