"""Each check is seen to fail on a bug planted for it: a check that never failed is none."""

from collections.abc import Callable
from functools import partial

import attrs
import pytest

from mesh.attempt import Attempt
from mesh.beliefs import Beliefs
from mesh.effects import Effect, SendDatagram
from mesh.flight import Chunk, Flight
from mesh.forward import Forwarder, ForwardOptions
from mesh.frames import Ping, Tokens
from mesh.hearing import Hearing
from mesh.identity import Identity
from mesh.inquest import Inquest
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.myself import Myself
from mesh.now import Now
from mesh.relay import Relay, SendEngine, Ticket
from node.core import NodeCore
from node.policy.engines import EngineOptions
from sim.faults import Crash, EngineCrash, Partition, Pause, Restart, RumourFlood
from sim.host import Host
from tests.sim.planted import CYCLE, DEFAULTS, KILL, PAUSE, STREAMS, caught, core


def with_identity(
    choose: Callable[[int], int], me: Member, models: dict, options: object, rng: object
) -> NodeCore:
    """Build a node that chooses its generation badly."""
    identity = Identity(me.node, choose(me.identity.generation))
    return NodeCore(attrs.evolve(me, identity=identity), models, options, rng)


def test_without_a_bug_nothing_is_caught():
    assert caught(CYCLE, (4.5, Pause("node-2", 2.0)), (3.5, EngineCrash("node-4"))) == ""


# -- safety ---------------------------------------------------------------------------------------


def test_text_exact_catches_tokens_that_are_taken_twice(monkeypatch: pytest.MonkeyPatch):
    def twice(self: Flight, attempt: int, tokens: Tokens) -> bool:
        for _ in range(2 if tokens.position == 7 else 1):
            self.log.append(Chunk(self.delivered, tokens.ids, tokens.text))
            self.ids.extend(tokens.ids)
        return True

    monkeypatch.setattr(Flight, "tokens", twice)
    assert caught() == "text_exact"


def test_text_exact_catches_a_successor_that_has_not_replayed_what_was_produced(
    monkeypatch: pytest.MonkeyPatch,
):
    def blank(self: Flight, target: str, remaining_ms: int) -> Attempt:
        """Open every attempt as if it were the first, and take its tokens from wherever it is."""
        self.attempt += 1
        self.target = target
        return self.request

    def from_anywhere(self: Flight, attempt: int, tokens: Tokens) -> bool:
        if not self.is_current(attempt):
            return False
        self.log.append(Chunk(self.delivered, tokens.ids, tokens.text))
        self.ids.extend(tokens.ids)
        return True

    monkeypatch.setattr(Flight, "open", blank)
    monkeypatch.setattr(Flight, "tokens", from_anywhere)
    assert caught(KILL) == "text_exact"


def corrupting(corrupt: Callable[[Members, Member], Member]) -> Callable[..., object]:
    """Return a `Members.apply` that spoils the other rows whenever it is used."""
    honest = Members.apply

    def apply(self: Members, new: Member, now_s: float) -> object:
        for row in self.all():
            spoilt = row if row.node in (self._me, new.node) else corrupt(self, row)
            if spoilt != row:
                self._put(row, spoilt, now_s)
        return honest(self, new, now_s)

    return apply


def test_account_ages_catches_a_table_that_forgets_incarnations(monkeypatch: pytest.MonkeyPatch):
    def younger(table: Members, row: Member) -> Member:
        return attrs.evolve(row, identity=Identity(row.node, row.identity.generation, 0))

    monkeypatch.setattr(Members, "apply", corrupting(younger))
    assert caught(PAUSE, (5.5, Crash("node-2"))) == "account_ages"


def test_gone_returns_catches_a_table_in_which_the_dead_rise(monkeypatch: pytest.MonkeyPatch):
    def risen(table: Members, row: Member) -> Member:
        return attrs.evolve(row, liveness=Liveness.ALIVE) if row.liveness is Liveness.DEAD else row

    monkeypatch.setattr(Members, "apply", corrupting(risen))
    assert caught((3.0, Crash("node-3")), (5.0, Crash("node-2"))) == "gone_returns"


def test_own_age_catches_a_generation_that_is_not_remembered():
    options = core(partial(with_identity, lambda generation: 9 - generation))
    assert caught(CYCLE, options=options) == "own_age"


def test_own_age_catches_a_raised_generation_that_is_not_written_down(monkeypatch: pytest.MonkeyPatch):
    raised = ((3.0, RumourFlood("node-2", 20.0, 2.5)), (6.0, Restart("node-2")))
    assert caught(*raised) == ""
    monkeypatch.setattr(Host, "_keep", lambda self, generation: None)
    assert caught(*raised) == "own_age"


def test_own_life_catches_a_node_that_believes_rumours_of_its_death(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Myself, "hear", lambda self, now, rumour, _by: self._members.apply(rumour, now.mono))
    assert caught((3.0, Partition(("node-3",), 3.0))) == "own_life"


def test_one_truth_catches_two_accounts_of_one_age():
    def elsewhere(me: Member, models: dict, options: object, rng: object) -> NodeCore:
        me = attrs.evolve(me, zone=f"zone {me.identity.generation}", identity=Identity(me.node, 0))
        return NodeCore(me, models, options, rng)

    assert caught(CYCLE, options=core(elsewhere)) == "one_truth"


def test_deaf_verdict_catches_who_buries_others_from_within_a_hole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Hearing, "is_answered", lambda self: True)
    monkeypatch.setattr(Hearing, "heard_just_now", lambda self, now: True)

    def bury(self: Beliefs, now: Now, failed: Inquest) -> None:
        self._bury(now, self.live_peer(failed.identity.node), "silent")

    monkeypatch.setattr(Beliefs, "_listen", bury)
    assert caught((3.0, Partition(("node-4",), 20.0)), requests=()) == "deaf_verdict"


def test_flight_forward_catches_a_log_that_is_cut(monkeypatch: pytest.MonkeyPatch):
    honest = Flight.lost

    def forgetful(self: Flight, attempt: int, reason: str) -> bool:
        del self.ids[5:]
        return honest(self, attempt, reason)

    monkeypatch.setattr(Flight, "lost", forgetful)
    assert caught(KILL) == "flight_forward"


def test_quarantine_routing_catches_a_router_that_trusts_everybody():
    class Trusting(NodeCore):
        def _is_trusted(self, node: str) -> bool:
            return True

    options = core(Trusting)
    crowd = tuple(attrs.evolve(r, at=3.0 + 0.02 * i, tokens=20) for i, r in enumerate(STREAMS * 6))
    assert caught((3.0, Crash("node-3", power=True)), options=options, requests=crowd) == "quarantine_routing"


def test_tickets_match_catches_a_cancel_that_never_reaches_the_engine(monkeypatch: pytest.MonkeyPatch):
    def drop(self: Relay, ticket: Ticket, reason: str) -> SendEngine:
        self._forget(ticket)
        return SendEngine(ticket.replica, Ping(1).frame())

    monkeypatch.setattr(Relay, "_drop", drop)
    cancelled = tuple(attrs.evolve(request, cancel_after_s=0.3) for request in STREAMS)
    assert caught(requests=cancelled) == "tickets_match"


def test_timers_catches_a_deadline_that_stays_in_the_past():
    class Restless(NodeCore):
        def next_deadline(self) -> float:
            return 0.0

    assert caught(options=core(Restless)) == "timers"


def test_bounds_catches_a_table_that_forgets_its_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Members, "_make_room", lambda self: True)
    node = attrs.evolve(DEFAULTS.node, swim=attrs.evolve(DEFAULTS.node.swim, members_max=3))
    assert caught(options=attrs.evolve(DEFAULTS, node=node)) == "bounds"


def test_datagram_size_catches_one_byte_too_many():
    class Wordy(NodeCore):
        def tick(self, now: Now) -> list[Effect]:
            return [*super().tick(now), SendDatagram(self.me.address, bytes(1401))]

    assert caught(options=core(Wordy)) == "datagram_size"


def test_false_death_catches_a_death_where_none_should_be():
    class Cut(Partition):
        breaks = ()

    assert caught((3.0, Partition(("node-4",), 4.0)), end_s=10.0) == ""
    assert caught((3.0, Cut(("node-4",), 4.0))) == "false_death"


# -- liveness -------------------------------------------------------------------------------------


def test_views_agree_catches_a_mesh_that_does_not_heal():
    swim = attrs.evolve(DEFAULTS.node.swim, heal_period_s=1e6)
    options = attrs.evolve(DEFAULTS, node=attrs.evolve(DEFAULTS.node, swim=swim))
    cut = (3.0, Partition(("node-0", "node-1"), 17.0))
    assert caught(cut, options=options, requests=(), end_s=20.0) == "views_agree"


def test_clients_served_catches_flights_that_stay_with_the_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Forwarder, "node_lost", lambda self, now, node, reason: [])
    assert caught(KILL) == "clients_served"


def test_outcomes_catches_a_request_that_fails_for_no_good_reason():
    impatient = attrs.evolve(DEFAULTS.node, forward=ForwardOptions(moves_max=0))
    assert caught(KILL, options=attrs.evolve(DEFAULTS, node=impatient)) == "outcomes"


def test_engines_back_catches_an_engine_that_is_not_started_again():
    lazy = attrs.evolve(DEFAULTS.node, engines=EngineOptions(backoff_s=1e6, backoff_max_s=1e6))
    options = attrs.evolve(DEFAULTS, node=lazy)
    assert caught((3.0, EngineCrash("node-3")), options=options) == "engines_back"


def test_nothing_left_catches_flights_that_are_never_forgotten():
    class Hoarder(NodeCore):
        def release(self, now: Now, flight: int) -> list[Effect]:
            return []

    assert caught(options=core(Hoarder)) == "nothing_left"


def test_nothing_left_catches_blocks_that_an_engine_keeps(monkeypatch: pytest.MonkeyPatch):
    def keep(self: object, frame: object) -> None:
        """Ignore CANCEL but in name."""

    monkeypatch.setattr("node.engine.core.EngineCore._cancel", keep)
    monkeypatch.setattr("sim.checks.TicketCheck.after", lambda *_: None)
    endless = tuple(attrs.evolve(request, tokens=4000, cancel_after_s=0.3) for request in STREAMS)
    assert caught(requests=endless) == "nothing_left"
