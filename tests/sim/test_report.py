"""Figures and pages of runs: true to what happened, bounded, harmless whatever the words."""

import itertools
import json
import xml.etree.ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.fault import Strike
from sim.faults import Crash, CrashRestart, Partition, Pause
from sim.journal import Event, Journal
from sim.page import page
from sim.page_verdicts import WHY, explained, rows, told
from sim.report import detections, quantile, report
from sim.report_beliefs import beliefs, truths
from sim.scenario import Result, Scenario, run
from sim.workload import Request
from sim.world import Violation

NAMES = ("node-0", "node-1", "node-2", "node-3")
STREAMS = tuple(Request("node-0", 2.0 + index, f"story {index}", 7 + index, 300) for index in range(3))
CALM = Scenario('<b>kill & "co"</b>', 3, 4, 2, STREAMS, (), 7.0, NAMES)


def seen(*strikes: Strike) -> tuple[Result, Journal]:
    journal = Journal()
    return run(attrs.evolve(CALM, strikes=strikes), listen=journal.attach), journal


@pytest.fixture(scope="module")
def killed() -> tuple[Result, Journal]:
    return seen(Strike(3.0, Crash("node-3")), Strike(4.0, CrashRestart("node-2", 2.0)))


def member(at: float, who: str, of: str, state: str) -> Event:
    return Event(at, who, "member", (), of, state)


# -- figures --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_is_a_value_that_enough_do_not_exceed(values, share):
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_a_detection_names_the_first_and_the_last_who_noticed():
    journal = Journal()
    journal.events = [
        *(Event(0.0, name, "started") for name in NAMES[:3]),
        Event(5.0, "node-2", "crashed"),
        Event(5.5, "node-0", "quarantined", (), "node-2"),
        member(6.0, "node-0", "node-2", "dead"),
        member(7.0, "node-1", "node-2", "dead"),
        Event(9.0, "node-2", "started"),
        member(9.5, "node-1", "node-2", "dead"),
    ]
    (found,) = detections(journal)
    assert (found.out_of_routing_first_s, found.out_of_routing_all_s) == (0.5, 2.0)
    assert (found.dead_first_s, found.dead_all_s, found.back_s) == (1.0, 2.0, 4.0)


def test_who_never_noticed_leaves_no_figure_for_all_and_who_crashed_is_not_waited_for():
    journal = Journal()
    journal.events = [*(Event(0.0, name, "started") for name in NAMES[:3]), Event(5.0, "node-2", "crashed")]
    journal.events.append(member(6.0, "node-0", "node-2", "dead"))
    assert detections(journal)[0].dead_all_s is None
    journal.events.append(Event(6.5, "node-1", "crashed"))
    assert detections(journal)[0].dead_all_s == 1.0


def test_who_is_stopped_is_not_waited_for():
    journal = Journal()
    journal.events = [
        *(Event(0.0, name, "started") for name in NAMES),
        Event(4.0, "node-0", "paused"),
        Event(5.0, "node-3", "crashed"),
        Event(5.5, "node-1", "paused"),
        member(6.0, "node-2", "node-3", "dead"),
    ]
    assert detections(journal)[0].dead_all_s == 1.0


def test_the_report_of_a_run_says_what_happened_and_is_json(killed: tuple[Result, Journal]):
    result, journal = killed
    figures = json.loads(json.dumps(report(result, journal, "replay me")))
    assert figures["trace_digest"] == result.world.trace.digest()
    assert figures["faults"] == {"Crash": 1, "CrashRestart": 1}
    assert [found["host"] for found in figures["detections"]] == ["node-3", "node-2"]
    assert 0.0 < figures["detections"][0]["dead_all_s"] < 3.0
    assert figures["membership"]["false_deaths"] == 0
    assert figures["clients"]["outcomes"] == {"done": 3}
    assert figures["violation"] is None
    assert figures["replay"] == "replay me"


def test_whoever_never_dies_costs_no_figure():
    figures = report(*seen())
    assert figures["membership"]["dead_everywhere_s"] == {"count": 0, "p50": None, "p99": None, "max": None}


# -- beliefs --------------------------------------------------------------------------------------


def test_beliefs_are_the_worst_that_anybody_holds_without_gaps():
    journal = Journal()
    journal.events = [
        member(1.0, "a", "c", "alive"),
        member(1.0, "b", "c", "alive"),
        Event(2.0, "a", "quarantined", (), "c"),
        member(3.0, "a", "c", "suspect"),
        member(4.0, "a", "c", "dead"),
        member(5.0, "b", "c", "dead"),
    ]
    found = beliefs(journal, ("c",), 9.0)["c"]
    assert [(stretch.begin, stretch.state) for stretch in found] == [
        (1.0, "alive"),
        (2.0, "quarantined by some"),
        (3.0, "suspected by some"),
        (4.0, "dead to some"),
        (5.0, "dead everywhere"),
    ]
    assert all(one.end == other.begin for one, other in itertools.pairwise(found))
    assert found[-1].end == 9.0


def test_what_a_host_holds_of_its_own_past_is_no_judgement_of_it():
    """Who has lost its directory, or is not the only one of its name, hears its old account like any other's."""
    journal = Journal()
    journal.events = [
        Event(0.0, "a", "member", (), "c", "alive"),
        Event(0.0, "b", "member", (), "c", "alive"),
        Event(1.0, "c", "member", (), "c", "suspect"),
        Event(1.0, "c", "quarantined", (), "c"),
        Event(2.0, "a", "member", (), "c", "suspect"),
        Event(3.0, "b", "member", (), "c", "suspect"),
    ]
    found = beliefs(journal, ("c",), 9.0)["c"]
    assert [(stretch.begin, stretch.state, stretch.note) for stretch in found] == [
        (0.0, "alive", ""),
        (2.0, "suspected by some", "2 of 2"),
    ]


WHO = st.sampled_from("abcd")
TOLD = st.one_of(
    st.builds(
        lambda who, subject, state: Event(0.0, who, "member", (), subject, state),
        WHO,
        WHO,
        st.sampled_from(("alive", "suspect", "dead", "left")),
    ),
    st.builds(lambda who, subject: Event(0.0, who, "quarantined", (), subject), WHO, WHO),
    st.builds(
        lambda who, event: Event(0.0, who, event), WHO, st.sampled_from(("paused", "resumed", "crashed"))
    ),
)


@given(st.lists(TOLD, max_size=30))
def test_no_more_hold_something_than_there_are(told):
    journal = Journal()
    journal.events = [attrs.evolve(event, at=float(at)) for at, event in enumerate(told)]
    for stretches in beliefs(journal, tuple("abcd"), 99.0).values():
        for note in (stretch.note for stretch in stretches if stretch.note):
            held, by = map(int, note.split(" of "))
            assert 1 <= held <= by <= 3


def test_the_note_of_a_stretch_is_of_its_worst_moment():
    journal = Journal()
    names = tuple(f"node-{index}" for index in range(11))
    journal.events = [Event(0.0, name, "member", (), "c", "alive") for name in names]
    journal.events += [Event(1.0 + at, name, "member", (), "c", "suspect") for at, name in enumerate(names)]
    assert [stretch.note for stretch in beliefs(journal, ("c",), 99.0)["c"]] == ["", "11 of 11"]


def test_what_a_crashed_observer_held_counts_no_more():
    journal = Journal()
    journal.events = [
        member(1.0, "a", "c", "dead"),
        member(1.0, "b", "c", "alive"),
        Event(2.0, "a", "crashed"),
    ]
    assert [stretch.state for stretch in beliefs(journal, ("c",), 3.0)["c"]] == ["dead to some", "alive"]


def test_what_a_stopped_observer_holds_counts_for_nothing_until_it_goes_on():
    journal = Journal()
    journal.events = [
        member(1.0, "a", "c", "alive"),
        member(1.0, "b", "c", "alive"),
        Event(2.0, "b", "paused"),
        member(3.0, "a", "c", "dead"),
        Event(4.0, "b", "resumed"),
    ]
    states = [stretch.state for stretch in beliefs(journal, ("c",), 5.0)["c"]]
    assert states == ["alive", "dead everywhere", "dead to some"]


def test_truth_is_when_a_host_was_down_or_stopped():
    _, journal = seen(Strike(3.0, Pause("node-2", 1.5)), Strike(4.0, Crash("node-3")))
    found = truths(journal, NAMES, 8.0)
    assert [(s.begin, s.end, s.state) for s in found["node-2"]] == [(3.0, 4.5, "stopped")]
    assert found["node-3"][0].state == "down"
    assert found["node-0"] == []


# -- the page -------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_asks_nobody_for_anything(killed: tuple[Result, Journal]):
    html = page(*killed, "python -m sim run --seed 3")
    body = html.split("<body>")[1].split("</body>")[0]
    ET.fromstring(f"<body>{body}</body>")
    assert "default-src 'none'" in html
    assert "<script" not in html
    rest = html.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in rest
    assert "https:" not in rest
    assert "url(" not in rest


def test_the_page_escapes_whatever_a_scenario_is_called(killed: tuple[Result, Journal]):
    html = page(*killed, "<script>alert(1)</script>")
    assert "<script" not in html
    assert "&lt;b&gt;kill &amp; &quot;co&quot;&lt;/b&gt;" in html


def test_the_page_tells_verdicts_with_who_accused_and_the_digest(killed: tuple[Result, Journal]):
    result, journal = killed
    html = page(result, journal, "replay")
    assert result.world.trace.digest() in html
    assert "accused by" in html
    assert "dead everywhere" in html
    assert "every check held" in html


def test_the_page_of_a_failed_run_says_which_check(killed: tuple[Result, Journal]):
    result, journal = killed
    failed = attrs.evolve(result, violation=Violation("text_exact", "<i>wrong</i>"))
    assert "text_exact: &lt;i&gt;wrong&lt;/i&gt;" in page(failed, journal, "")


def test_a_large_mesh_is_drawn_as_a_spread(killed: tuple[Result, Journal], monkeypatch: pytest.MonkeyPatch):
    assert "spread over" not in page(*killed, "")
    monkeypatch.setattr("sim.page.LINES_MAX", 3)
    assert "spread over 4 nodes" in page(*killed, "")


# -- verdicts -------------------------------------------------------------------------------------


def quarantine(at: float, who: str, of: str, is_false: bool = False) -> Event:
    return Event(at, who, "quarantined", (("node", of), ("reason", "no answer")), of, "", None, is_false)


def test_verdicts_that_are_alike_are_one_row_and_the_wrong_ones_come_first():
    journal = Journal()
    journal.events = [
        quarantine(1.0, "a", "x"),
        quarantine(1.2, "b", "x"),
        quarantine(1.3, "b", "x"),
        quarantine(3.0, "a", "x"),
        quarantine(4.0, "a", "y", is_false=True),
    ]
    assert rows(journal, {}) == [
        ("4.000", "4.000", "quarantine", "y", "a", "no answer", "no: it ran"),
        ("1.000", "1.300", "quarantine", "x", "a and 1 more", "no answer", "yes"),
        ("3.000", "3.000", "quarantine", "x", "a", "no answer", "yes"),
    ]


def test_accusers_are_called_by_their_names():
    journal = Journal()
    fields = (("node", "ff"), ("name", "x"), ("accusers", "aa,bb"))
    journal.events = [Event(1.0, "a", "member_dead", fields, "x")]
    assert rows(journal, {"aa": "a", "bb": "b"})[0][5] == "accused by a, b"


def test_a_node_that_is_buried_while_it_runs_is_marked_as_such():
    journal = Journal()
    cut = attrs.evolve(CALM, strikes=(Strike(3.0, Partition(("node-3",), 3.5)),))
    run(cut, listen=journal.attach)
    wrong = [row for row in rows(journal, {}) if row[-1].startswith("no")]
    assert all("its own health" in row[5] for row in wrong)
    assert any("pings, patience" in row[5] for row in wrong)
    assert ("dead", "node-3") in {(row[2], row[3]) for row in wrong}


def test_figures_say_what_each_verdict_rested_on(killed: tuple[Result, Journal]):
    result, journal = killed
    verdicts = told(journal)
    deaths = [verdict for verdict in verdicts if verdict["verdict"] == "dead" and verdict["of"] == "node-3"]
    assert deaths
    assert not deaths[0]["is_false"]
    assert deaths[0]["evidence"]["round"]["outcome"] == "failed"
    assert set(deaths[0]["by"]) <= {"node-0", "node-1", "node-2"}
    assert json.loads(json.dumps(report(result, journal)))["verdicts"] == json.loads(json.dumps(verdicts))


def test_a_trace_says_below_each_verdict_why_and_loses_no_line(killed: tuple[Result, Journal]):
    result, journal = killed
    lines = list(result.world.trace.lines)
    names = {host.id: name for name, host in result.world.hosts.items()}
    text = list(explained(lines, journal, names))
    assert [line for line in text if not line.startswith(WHY)] == lines
    below = [line for before, line in itertools.pairwise(text) if " member_dead " in before]
    assert below
    assert all(line.startswith(WHY) and "its own health" in line for line in below)
