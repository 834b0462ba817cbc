"""What a journal sees of a run, and that seeing changes nothing."""

import itertools

import attrs
import pytest

from mesh.swim import Swim
from sim.fault import Strike
from sim.faults import Crash, Pause
from sim.journal import Journal
from sim.scenario import Result, Scenario, StopRun, run
from sim.swarm import draw
from sim.workload import Request

NAMES = ("node-0", "node-1", "node-2", "node-3")
STREAM = Request("node-0", 2.0, "story", 7, 400)
CALM = Scenario("test", 3, 4, 2, (STREAM,), (), 6.0, NAMES)


def seen(*strikes: Strike) -> tuple[Journal, Result]:
    journal = Journal()
    result = run(attrs.evolve(CALM, strikes=strikes), listen=journal.attach)
    return journal, result


@pytest.mark.parametrize("seed", [2, 12])
def test_a_run_with_a_journal_has_the_digest_of_one_without(seed: int):
    journal = Journal()
    scenario = draw(seed, seconds=4.0)
    assert run(scenario, listen=journal.attach).world.trace.digest() == run(scenario).world.trace.digest()


def test_it_knows_who_was_held_dead_by_whom_and_that_it_was_true():
    journal, _ = seen(Strike(3.0, Crash("node-3")))
    deaths = [event for event in journal.events if event.state == "dead"]
    assert {(event.who, event.subject) for event in deaths} == {(name, "node-3") for name in NAMES[:3]}
    assert not any(event.is_false for event in deaths)
    assert journal.faults == [(3.0, "Crash(host='node-3', power=False)")]
    assert journal.healed_at == 6.0


def test_who_quarantines_one_that_runs_is_wrong_and_one_that_is_stopped_right():
    journal, _ = seen(Strike(3.0, Pause("node-3", 2.0)))
    quarantines = [
        event for event in journal.events if event.event == "quarantined" and event.subject == "node-3"
    ]
    assert quarantines
    assert not any(event.is_false for event in quarantines if event.at < 5.0)


def test_samples_are_as_many_as_times_and_counters_only_grow():
    journal, result = seen(Strike(3.0, Crash("node-3")))
    for samples in journal.samples.values():
        assert len(samples) == len(journal.times)
        assert all(one.bytes <= other.bytes for one, other in itertools.pairwise(samples))
    sent = sum(samples[-1].datagrams for samples in journal.samples.values())
    assert 0.9 * result.world.network.statistics.sent < sent <= result.world.network.statistics.sent
    assert max(sample.attempts for samples in journal.samples.values() for sample in samples) == 1


def test_what_a_core_raises_fails_the_run_by_name(monkeypatch: pytest.MonkeyPatch):
    def broken(self: Swim, now: object, *more: object, **named: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(Swim, "receive", broken)
    violation = run(CALM).violation
    assert violation.check == "exception"
    assert "planted" in violation.message
    assert "broken" in violation.message


def test_a_run_can_be_given_up():
    def late(time: float) -> None:
        if time > 2.0:
            raise StopRun

    with pytest.raises(StopRun):
        run(CALM, late)
