"""The laws of the papers at small sizes, and how they are drawn."""

import json
import math
import xml.etree.ElementTree as ET

import pytest

from mesh.swim_options import SwimOptions
from sim.shapes import EULER, first, load, main, plots, spread
from tests.tidy.tree import ROOT


def test_on_the_shared_timetable_every_crash_is_met_within_a_period():
    assert first(16, SwimOptions.lan())["max"] == 1


def test_the_round_robin_takes_the_papers_mean():
    assert first(32, SwimOptions.plain_swim())["mean"] == pytest.approx(EULER, rel=0.1)
    assert pytest.approx(1.582, abs=0.001) == EULER


def test_a_rumour_reaches_all_and_is_slower_in_a_larger_mesh():
    small, large = (spread(size, SwimOptions.lan()) for size in (4, 32))
    assert small["missed"] == large["missed"] == 0
    assert small["p50"] < large["p50"] < 3 * math.log(32)


def test_an_idle_node_sends_as_much_in_a_larger_mesh():
    small, large = (load(size, SwimOptions.lan()) for size in (8, 32))
    assert large["bytes_per_s"] == pytest.approx(small["bytes_per_s"], rel=0.02)
    assert large["packets_per_s"] == pytest.approx(4.0, rel=0.02)


def test_what_was_measured_is_drawn(tmp_path):
    rows = [
        {"law": "first", "case": "one", "nodes": size, "mean": 1.0}
        | {"p50": 1.0, "max": 2.0, "bytes_per_s": 258.0, "packets_per_s": 4.0}
        for size in (8, 16)
    ]
    rows += [{**row, "law": law} for row in rows for law in ("spread", "load")]
    (tmp_path / "shapes.json").write_text(json.dumps(rows))
    assert main(["draw", str(tmp_path / "shapes.json"), str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.svg")} == set(plots(rows))
    assert all(ET.parse(path).getroot().tag.endswith("svg") for path in tmp_path.glob("*.svg"))


def test_the_figures_of_the_page_are_drawn_from_its_numbers(tmp_path):
    folder = ROOT / "docs/explanation/plots"
    assert main(["draw", str(folder / "shapes.json"), str(tmp_path)]) == 0
    for drawn in tmp_path.glob("*.svg"):
        assert (folder / drawn.name).read_text() == drawn.read_text()
