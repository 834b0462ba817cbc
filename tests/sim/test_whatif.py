"""What-if: topologies are read or refused in words, and what is told is what happened."""

import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.__main__ import main
from sim.cli.common import BAD_USAGE
from sim.cli.whatif import said
from sim.configuration import ConfigurationError
from sim.faults import Crash, CrashRestart, Partition
from sim.stream import random_of
from sim.topology import Asked, Site, Topology, load
from sim.whatif import capacity, findings, observe, requests
from tests.tidy.tree import ROOT

EXAMPLE = ROOT / "examples/sim/two-regions.toml"
SMALL = """
name = "small"
preset = "local"
seconds = 8.0
[[site]]
name = "a"
workers = 2
stream_tokens_per_s = 100.0
[[site]]
name = "b"
entries = 0
workers = 1
[[path]]
between = ["a", "b"]
delay_ms = 20.0
jitter_ms = 0.0
[requests]
rate_per_s = 3.0
tokens = 60
prompt_tokens = 20
[[event]]
at = 3.0
kind = "kill"
what = "a-3"
"""


@pytest.fixture(scope="module")
def small() -> Topology:
    return load(SMALL)


@pytest.fixture(scope="module")
def found(small: Topology) -> dict:
    return findings(small, observe(small, 1))


# -- what is told ---------------------------------------------------------------------------------


def test_a_killed_worker_leaves_routing_and_every_stream_is_served(found: dict):
    (event,) = found["events"]
    assert event["what"] == "kill a-3"
    assert 0.0 < event["out_of_routing_s"]["max"] <= event["dead_everywhere_s"]["max"] < 5.0
    assert found["clients"]["outcomes"] == {"done": found["clients"]["count"]}
    assert (found["failed"], found["waiting"], found["violation"]) == (0, 0, None)


def test_a_cut_is_noticed_by_those_outside(small: Topology):
    cut = attrs.evolve(small, troubles=(attrs.evolve(small.troubles[0], kind="cut", what="b", for_s=4.0),))
    (event,) = findings(cut, observe(cut, 1))["events"]
    assert 0.0 < event["out_of_routing_s"]["max"] < 4.0


def test_load_is_told_of_workers_and_stays_away_from_entries_and_the_dead(found: dict):
    assert found["load"]["a-1"] == {"mean": 0.0, "most": 0, "busy": 0.0}
    assert found["load"]["a-2"]["mean"] > found["load"]["a-3"]["mean"]


def test_one_seed_is_one_history(small: Topology, found: dict):
    assert findings(small, observe(small, 1)) == found
    assert findings(small, observe(small, 2))["trace_digest"] != found["trace_digest"]


def test_far_workers_answer_later_than_near_ones():
    near = load(
        SMALL.replace("delay_ms = 20.0", "delay_ms = 1.0").replace("[[event]]", "[[event]]\nfor_s = 1.0")
    )
    far = attrs.evolve(near, paths=tuple(attrs.evolve(path, delay_ms=60.0) for path in near.paths))
    p99 = [findings(each, observe(each, 3))["clients"]["first_token_s"]["p99"] for each in (near, far)]
    assert p99[0] < p99[1]


def test_more_than_the_mesh_can_give_does_not_hold():
    heavy = load(
        SMALL.replace("rate_per_s = 3.0", "rate_per_s = 60.0").replace("stream_tokens_per_s = 100.0", "")
    )
    slow = attrs.evolve(
        heavy,
        seconds=4.0,
        troubles=(),
        sites=tuple(attrs.evolve(s, stream_tokens_per_s=20.0, total_tokens_per_s=40.0) for s in heavy.sites),
    )
    assert "it does not hold: " in said(slow, [findings(slow, observe(slow, 1))])


def test_capacity_is_what_is_left_at_the_worst_moment():
    site = Site("x", workers=3, total_tokens_per_s=1000.0, prefill_tokens_per_s=1e7)
    topology = attrs.evolve(
        load(SMALL), sites=(site,), paths=(), asked=Asked(1.0, 1, 100), troubles=load(SMALL).troubles
    )
    told = capacity(attrs.evolve(topology, troubles=(attrs.evolve(topology.troubles[0], what="x-2"),)))
    assert told["wanted"] == 100.0
    assert told["at_first"] == pytest.approx(3000, rel=0.01)
    assert told["at_worst"] == pytest.approx(2000, rel=0.01)


# -- topologies -----------------------------------------------------------------------------------


def test_the_example_is_read_as_it_is_written():
    topology = load(EXAMPLE.read_text())
    assert topology.nodes == ("paris-1", "paris-2", "paris-3", "paris-4", "tokyo-1", "tokyo-2", "tokyo-3")
    assert topology.entries == ("paris-1", "tokyo-1")
    strikes = topology.strikes(5.0)
    assert [strike.fault for strike in strikes] == [Crash("paris-3"), CrashRestart("tokyo-3", 10.0, True)]
    assert [strike.at for strike in strikes] == [15.0, 25.0]


def test_a_site_may_be_struck_whole():
    topology = load(SMALL.replace('kind = "kill"\nwhat = "a-3"', 'kind = "cut"\nwhat = "b"\nfor_s = 2.0'))
    assert topology.strikes(0.0)[0].fault == Partition(("b-1",), 2.0)
    topology = load(SMALL.replace('what = "a-3"', 'what = "a"'))
    assert [strike.fault.host for strike in topology.strikes(0.0)] == ["a-1", "a-2", "a-3"]


def test_a_device_gives_the_speeds_that_were_measured():
    cost = Site("x", stream_tokens_per_s=50.0, total_tokens_per_s=1000.0).device.cost
    assert cost.step_s + cost.decode_row_s == pytest.approx(1 / 50)
    rows = 10**6
    assert rows / (cost.step_s + rows * cost.decode_row_s) == pytest.approx(1000, rel=1e-3)


def test_clients_come_from_the_seed(small: Topology):
    one = requests(small, random_of(1, "whatif"))
    assert one == requests(small, random_of(1, "whatif"))
    assert {request.entry for request in one} == {"a-1"}


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        ('name = "b"', 'name = "a"', "two sites have one name", "its own"),
        ('name = "b"', 'name = "b b"', "`[[site]] name` is `b b`", "dashes"),
        ('between = ["a", "b"]', 'between = ["a", "c"]', "`[[path]] between` names `c`", "a, b"),
        ('between = ["a", "b"]', 'between = ["a"]', "`[[path]] between` is", "tuple"),
        ('kind = "kill"', 'kind = "flood"', "`flood` is no kind of event", "power"),
        ('what = "a-3"', 'what = "a-9"', "`[[event]] what` is `a-9`", "b-1"),
        ("at = 3.0", "at = 9.0", "`[[event]] at` is `9`", "0 to 8"),
        ("seconds = 8.0", "seconds = 0.0", "`seconds` is `0`", "1 to"),
        ("workers = 2", "workers = -1", "`a workers` is `-1`", "0 to"),
        ("stream_tokens_per_s = 100.0", "stream_tokens_per_s = 0.0", "stream_tokens_per_s", "0.1"),
        ("stream_tokens_per_s = 100.0", "total_tokens_per_s = 9.0", "`a total_tokens_per_s` is `9`", "50"),
        ("rate_per_s = 3.0", "rate_per_s = nan", "rate_per_s", "within"),
        ('preset = "local"', 'preset = "moon"', "no preset", "wan"),
        ("[requests]", "[request]", "`request` is unknown", "requests"),
        ('name = "small"', "name =", "no TOML", "what-if.md"),
    ],
)
def test_what_makes_no_sense_is_named(old: str, new: str, says: str, hint: str):
    assert old in SMALL
    with pytest.raises(ConfigurationError) as refused:
        load(SMALL.replace(old, new, 1))
    assert says in str(refused.value)
    assert hint in refused.value.hint


@given(st.text(max_size=200))
def test_any_text_is_a_topology_or_is_refused(text: str):
    with pytest.raises(ConfigurationError):
        load(text)


# -- the command ----------------------------------------------------------------------------------


def test_the_command_answers_in_words_json_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture):
    source, figures, page = (tmp_path / name for name in ("small.toml", "small.json", "small.html"))
    source.write_text(SMALL)
    argv = ["whatif", str(source), "--count", "2", "--json", str(figures), "--html", str(page)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "capacity: 180 tokens/s are asked of" in out
    assert "it holds" in out
    assert "at 3 s: kill a-3" in out
    assert [run["seed"] for run in json.loads(figures.read_text())["runs"]] == [0, 1]
    assert "a-3" in page.read_text()


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture):
    assert main(["whatif", "no-such.toml"]) == BAD_USAGE
    assert "`no-such.toml` cannot be read" in capsys.readouterr().err
