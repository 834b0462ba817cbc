"""What an entry can say afterwards about whom it asked."""

import json

import attrs

from mesh.decisions import DECISIONS_MAX
from mesh.frames import Reject
from mesh.route import Candidate
from tests.mesh.test_forward import Entry


def test_every_attempt_is_explained_with_the_figures_it_went_by() -> None:
    busy = Candidate("busy", queued_tokens=900, tokens_per_s=100, age_s=0.5)
    entry = Entry([Candidate("idle", age_s=0.25), busy])
    flight, _ = entry.submit()
    entry.say("idle", Reject("overloaded", "full", retryable=True), flight, 1)
    first, second = (one.account() for one in entry.forwarder.decisions.of(flight))
    assert (first["chosen"], second["chosen"]) == ("idle", "busy")
    assert [(c["node"], c["age_s"]) for c in first["candidates"]] == [("idle", 0.25), ("busy", 0.5)]
    assert first["candidates"][1]["wait_s"] > 9
    assert (second["attempt"], second["declined"], second["able"]) == (2, {"idle": "overloaded"}, 1)
    json.dumps([first, second])


def test_what_was_sent_from_here_stands_among_the_figures() -> None:
    entry = Entry([Candidate("a")])
    entry.submit()
    flight, _ = entry.submit()
    (decision,) = entry.forwarder.decisions.of(flight)
    assert decision.account()["candidates"][0]["sent_flights"] == 1


def test_a_search_leaves_one_line_however_often_it_tries() -> None:
    entry = Entry()
    flight, _ = entry.submit()
    entry.tick(20.0)
    (decision,) = entry.forwarder.decisions.of(flight)
    assert decision.account()["why"] == "no worker serves the model"
    entry.candidates.append(Candidate("a"))
    entry.tick(5.0)
    assert [one.account()["chosen"] for one in entry.forwarder.decisions.of(flight)] == [None, "a"]


def test_the_oldest_decision_is_forgotten_first() -> None:
    entry = Entry([Candidate("a")])
    flights = [entry.submit()[0] for _ in range(DECISIONS_MAX + 1)]
    decisions = entry.forwarder.decisions
    assert len(decisions) == DECISIONS_MAX
    assert not list(decisions.of(flights[0])) and list(decisions.of(flights[1]))


def test_a_worker_that_is_chosen_again_after_its_loss_is_explained_twice() -> None:
    entry = Entry([Candidate("a"), Candidate("b", queued_tokens=10**6)])
    flight, _ = entry.submit()
    entry.forwarder.node_lost(entry.at, "a", "its link was reset")
    assert attrs.asdict(list(entry.forwarder.decisions.of(flight))[1])["declined"] == (
        ("a", "its link was reset"),
    )
