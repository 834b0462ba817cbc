"""Checks of tables, judgements and traffic: each is seen to fail on a bug planted for it."""

import attrs
import pytest

from mesh.beliefs import Beliefs
from mesh.detector import Detector, RoundFailed
from mesh.effects import Effect, SendDatagram
from mesh.facts import QuarantineLifted
from mesh.flight import Flight
from mesh.identity import Identity
from mesh.load import LoadTable, _Held
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.now import Now
from mesh.swim import Swim
from mesh.views import Views
from node.core import NodeCore
from sim.checks import SAFETY, safety
from sim.faults import Crash, Liar
from sim.liveness import LIVENESS
from sim.world import Violation, World
from tests.sim import test_checks, test_checks_liveness, test_records, test_sealed
from tests.sim.planted import CYCLE, KILL, PAUSE, STREAMS, caught, core

POWER = (3.0, Crash("node-3", power=True))


def test_own_word_catches_who_speaks_for_others(monkeypatch: pytest.MonkeyPatch):
    def ahead(self: Beliefs, now: Now, failed: RoundFailed) -> None:
        target = failed.target
        row = self.live_peer(target.node)
        self._accuse(now, attrs.evolve(row, identity=target.above(), liveness=Liveness.SUSPECT), (self._me,))

    monkeypatch.setattr(Beliefs, "_round_failed", ahead)
    assert caught(PAUSE) == "own_word"


def test_strangers_catches_a_member_who_never_lived():
    class Haunted(NodeCore):
        def start(self, now: Now, seeds: tuple) -> list[Effect]:
            ghost = Member(Identity("00000000000000aa"), "ghost", ("10.0.0.1", 1))
            self.swim._members.apply(ghost, now.mono)
            return super().start(now, seeds)

    assert caught(options=core(Haunted)) == "strangers"


def test_left_itself_catches_who_takes_the_dead_for_the_departed(monkeypatch: pytest.MonkeyPatch):
    def bury(self: Beliefs, now: Now, row: Member, evidence: str) -> None:
        self._apply(now, attrs.evolve(row, liveness=Liveness.LEFT))

    monkeypatch.setattr(Beliefs, "_bury", bury)
    assert caught(POWER, requests=()) == "left_itself"


def test_digest_truth_catches_a_digest_that_tells_nothing_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Members, "digest", lambda self: bytes(8))
    assert caught() == "digest_truth"


def test_peace_catches_a_death_long_after_the_healing():
    world = World(1, checks=safety())
    world.excused = frozenset(("false_death",))
    names = world.cluster(4)
    world.run_for(3.0)
    world.healed_at = world.time - 25.0
    world.split((tuple(names[:2]), tuple(names[2:])))
    with pytest.raises(Violation, match="peace"):
        world.run_for(20.0)


def test_death_cause_catches_a_death_on_hearsay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Beliefs, "_trusts", lambda self, now, dead: False)
    lie = (3.0, Liar("node-1", "node-4", "dead", 0, 1.0))
    assert caught(lie, requests=(), excused=("false_death",)) == "death_cause"


def test_false_death_catches_a_goodbye_on_hearsay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Beliefs, "_is_hearsay", lambda self, *_: False)
    lie = (3.0, Liar("node-1", "node-4", "left", 0, 1.0))
    assert caught(lie, requests=()) == "false_death"


def test_a_goodbye_on_hearsay_that_is_looked_at_is_no_false_death():
    lies = [(3.0, Liar("node-1", "node-4", "left", ahead, 2.0)) for ahead in (0, 1, 7)]
    assert caught(*lies, requests=()) == ""


def test_fair_trial_catches_a_suspicion_that_ends_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mesh.cases.suspicion_min_s", lambda *_: 0.01)
    assert caught(POWER, requests=()) == "fair_trial"


def test_quarantine_fresh_catches_a_quarantine_that_just_ends(monkeypatch: pytest.MonkeyPatch):
    honest = Detector.round_due

    def lenient(self: Detector, now: Now, nonce: int) -> list:
        lifted = [QuarantineLifted(node) for node in self.trust.lost]
        for node in self.trust.lost:
            self.trust.forget(node)
        return [*honest(self, now, nonce), *lifted]

    monkeypatch.setattr(Detector, "round_due", lenient)
    assert caught(POWER, requests=()) == "quarantine_fresh"


def test_gone_routing_catches_an_attempt_that_is_opened_at_the_dead(monkeypatch: pytest.MonkeyPatch):
    honest, gone = Flight.open, World(3).add("node-3").id

    def open_there(self: Flight, target: str, remaining_ms: int) -> object:
        return honest(self, gone, remaining_ms)

    monkeypatch.setattr(Flight, "open", open_there)
    late = tuple(attrs.evolve(request, at=7.0) for request in STREAMS)
    assert caught(POWER, requests=late, end_s=8.0) == "gone_routing"


def test_awake_catches_a_core_that_wants_to_sleep_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Swim, "next_deadline", lambda self: 1e12)
    assert caught() == "awake"


@pytest.mark.parametrize(
    ("address", "count", "check"),
    [(("10.66.6.6", 1), 1, "addresses"), (("10.0.0.1", 7946), 100, "traffic_budget")],
    ids=["addresses", "traffic_budget"],
)
def test_traffic_checks_catch_who_shouts_at_nobody_or_too_much(address: tuple, count: int, check: str):
    class Wordy(NodeCore):
        def tick(self, now: Now) -> list[Effect]:
            return [*super().tick(now), *[SendDatagram(address, b"x")] * count]

    assert caught(options=core(Wordy), excused=("rumour_bound",)) == check


def test_rumour_bound_catches_rumours_that_never_tire(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mesh.voice.sends_max", lambda *_: 10**6)
    assert caught(KILL, requests=()) == "rumour_bound"


def test_load_age_catches_figures_that_do_not_age(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_Held, "age_at", lambda self, now: self.age_ms)
    assert caught(requests=()) == "load_age"


def test_exception_catches_a_core_that_raises(monkeypatch: pytest.MonkeyPatch):
    class Fragile(NodeCore):
        def tick(self, now: Now) -> list[Effect]:
            raise KeyError("gone")

    assert caught(options=core(Fragile)) == "exception"


def test_every_check_has_a_bug_that_was_planted_for_it():
    planted = [
        name
        for module in (test_checks, test_checks_liveness, test_records, test_sealed)
        for name in vars(module)
    ]
    planted += list(globals())
    said = " ".join(name for name in planted if name.startswith("test_")) + " addresses traffic_budget"
    missing = [check for check in (*SAFETY, *LIVENESS) if check not in said]
    assert missing == []


def test_load_life_catches_figures_of_an_earlier_life(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LoadTable, "forget", lambda self, node: None)
    assert caught(CYCLE, (4.5, Crash("node-2"))) == "load_life"


def test_stream_true_catches_a_change_that_followers_are_not_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Views, "note", lambda self, now, before, after: None)
    assert caught(requests=()) == "stream_true"
