"""A flight as a machine: what counts, what is dropped, when it ends."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.attempt import PROBATION_TOKENS, Attempt, Parameters, Segment
from mesh.flight import CRASHES_MAX, MOVES_MAX, TRANSITIONS, Flight, State
from mesh.frames import Accept, Finish, Reject, Tokens

REQUEST = Attempt("m", (Segment("text", "hi"),), Parameters(max_tokens=100), 7)
ACCEPT = Accept(2, 0, "digest", "policy", "w1")


def routed() -> Flight:
    flight = Flight(1, REQUEST)
    flight.route()
    return flight


def running(worker: str = "w1") -> Flight:
    flight = routed()
    flight.open(worker, 0)
    assert flight.accept(1, ACCEPT)
    return flight


def test_running_to_routing_is_the_only_way_back() -> None:
    order = list(State)
    back = [(a, b) for a, to in TRANSITIONS.items() for b in to if order.index(b) < order.index(a)]
    assert back == [(State.RUNNING, State.ROUTING)]


def test_tokens_go_into_the_log_once_and_in_order() -> None:
    flight = running()
    assert flight.tokens(1, Tokens(0, (5, 6), "ab"))
    assert not flight.tokens(1, Tokens(0, (5, 6), "ab")), "a repetition"
    assert not flight.tokens(1, Tokens(3, (8,), "d")), "a gap"
    assert flight.tokens(1, Tokens(2, (7,), "c"))
    assert flight.ids == [5, 6, 7]
    assert "".join(chunk.text for chunk in flight.log) == "abc"


def test_a_worker_that_wakes_after_the_move_cannot_splice_its_text_in() -> None:
    flight = running()
    flight.tokens(1, Tokens(0, (5,), "a"))
    flight.lost(1, "silent")
    attempt = flight.open("w2", 0)
    assert attempt.emitted == (5,)
    assert flight.accept(2, ACCEPT)
    assert not flight.tokens(1, Tokens(1, (6,), "X")), "the old attempt's right position"
    assert not flight.finished(1, Finish(1, "stop"))
    assert not flight.rejected(1, Reject("engine_lost"))
    assert flight.tokens(2, Tokens(1, (6,), "b"))
    assert flight.ids == [5, 6]


def test_a_later_attempt_pins_the_model_and_prefers_the_policy() -> None:
    flight = running()
    flight.lost(1, "silent")
    attempt = flight.open("w2", 40)
    assert (attempt.model_digest, attempt.policy_digest, attempt.remaining_ms) == ("digest", "policy", 40)


def test_a_change_of_policy_is_remembered() -> None:
    flight = running()
    flight.lost(1, "silent")
    flight.open("w2", 0)
    flight.accept(2, Accept(2, 0, "digest", "other", "w2"))
    assert flight.policy_changed
    assert flight.started.policy_digest == "policy"


def test_an_end_before_its_tokens_is_no_end() -> None:
    flight = running()
    assert not flight.finished(1, Finish(1, "stop"))
    assert flight.state is State.RUNNING


def test_text_held_back_comes_with_the_end() -> None:
    flight = running()
    flight.tokens(1, Tokens(0, (5,), "a"))
    assert flight.finished(1, Finish(1, "length", "é"))
    assert [chunk.text for chunk in flight.log] == ["a", "é"]


def test_a_refusal_that_nobody_else_may_retry_ends_the_flight() -> None:
    flight = routed()
    flight.open("w1", 0)
    flight.rejected(1, Reject("context_length_exceeded", "too long", False, "prompt"))
    assert flight.state is State.FAILED
    assert (flight.failure.code, flight.failure.param) == ("context_length_exceeded", "prompt")


def test_a_busy_worker_is_remembered_until_somebody_accepts() -> None:
    flight = routed()
    flight.open("w1", 0)
    flight.rejected(1, Reject("busy"))
    assert flight.state is State.ROUTING and flight.tried == {"w1": "busy"} and flight.moves == 0
    flight.open("w2", 0)
    flight.accept(2, ACCEPT)
    assert flight.tried == {}


def test_after_a_crash_it_is_tried_alone_and_a_second_crash_alone_is_its_own_doing() -> None:
    flight = running()
    flight.rejected(1, Reject("engine_lost", crashed=True, alone=False))
    attempt = flight.open("w2", 0)
    assert attempt.alone
    flight.accept(2, ACCEPT)
    flight.rejected(2, Reject("engine_lost", crashed=True, alone=True))
    assert flight.state is State.FAILED and flight.failure.code == "engine_crash"


def test_an_accident_long_after_the_first_is_not_its_own_doing() -> None:
    flight = running()
    flight.rejected(1, Reject("engine_lost", crashed=True, alone=True))
    flight.open("w2", 0)
    flight.accept(2, ACCEPT)
    flight.tokens(2, Tokens(0, tuple(range(PROBATION_TOKENS)), "x"))
    flight.rejected(2, Reject("engine_lost", crashed=True, alone=True))
    assert flight.state is State.ROUTING
    flight.open("w3", 0)
    flight.accept(3, ACCEPT)
    flight.rejected(3, Reject("engine_lost", crashed=True, alone=True))
    assert flight.failure.code == "engine_crash"


def test_a_first_crash_alone_is_forgiven_once() -> None:
    flight = running()
    flight.rejected(1, Reject("engine_lost", crashed=True, alone=True))
    assert flight.state is State.ROUTING


def test_crashes_in_company_are_bounded_too() -> None:
    flight = running()
    for attempt in range(1, CRASHES_MAX + 2):
        flight.rejected(attempt, Reject("engine_lost", crashed=True, alone=False))
        if not flight.ended:
            flight.open(f"w{attempt}", 0)
            flight.accept(attempt + 1, ACCEPT)
    assert flight.failure.code == "engine_crash"


def test_a_bystander_of_a_crash_is_moved_not_blamed() -> None:
    flight = running()
    flight.rejected(1, Reject("engine_lost", crashed=False))
    assert (flight.moves, flight.crashes) == (1, 0)
    assert not flight.open("w2", 0).alone


def test_moves_are_bounded() -> None:
    flight = running()
    for attempt in range(1, MOVES_MAX + 2):
        flight.lost(attempt, "link lost")
        if not flight.ended:
            flight.open("w1", 0)
            flight.accept(attempt + 1, ACCEPT)
    assert flight.failure.code == "too_many_moves"


def test_nothing_changes_a_cancelled_flight() -> None:
    flight = running()
    assert flight.cancel() and not flight.cancel()
    assert (
        not flight.tokens(1, Tokens(0, (1,), "a"))
        and not flight.lost(1, "late")
        and not flight.fail("x", "y")
    )
    assert flight.state is State.CANCELLED


class Workers(RuleBasedStateMachine):
    """Any mixture of current and stale words leaves the log a prefix of the true stream."""

    TRUTH = tuple(range(1000, 1100))

    def __init__(self) -> None:
        super().__init__()
        self.flight = routed()

    @precondition(lambda self: not self.flight.ended and self.flight.target is None)
    @rule(worker=st.sampled_from("abc"))
    def open(self, worker: str) -> None:
        attempt = self.flight.open(worker, 0)
        assert attempt.emitted == self.TRUTH[: self.flight.delivered]

    @rule(back=st.integers(0, 2))
    def accept(self, back: int) -> None:
        self.flight.accept(self.flight.attempt - back, ACCEPT)

    @rule(back=st.integers(0, 2), start=st.integers(-3, 3), count=st.integers(0, 4))
    def tokens(self, back: int, start: int, count: int) -> None:
        position = max(0, self.flight.delivered + start)
        ids = self.TRUTH[position : position + count]
        self.flight.tokens(self.flight.attempt - back, Tokens(position, ids, "".join(map(chr, ids))))

    @rule(back=st.integers(0, 2), crashed=st.booleans(), alone=st.booleans(), retryable=st.booleans())
    def reject(self, back: int, crashed: bool, alone: bool, retryable: bool) -> None:
        reject = Reject("busy", retryable=retryable, crashed=crashed, alone=alone)
        self.flight.rejected(self.flight.attempt - back, reject)

    @rule(back=st.integers(0, 2))
    def lose(self, back: int) -> None:
        self.flight.lost(self.flight.attempt - back, "link lost")

    @rule(back=st.integers(0, 2), off=st.integers(-1, 1))
    def finish(self, back: int, off: int) -> None:
        self.flight.finished(
            self.flight.attempt - back, Finish(max(0, self.flight.delivered + off), "length")
        )

    @invariant()
    def the_log_is_a_prefix_of_the_truth(self) -> None:
        flight = self.flight
        assert tuple(flight.ids) == self.TRUTH[: flight.delivered]
        assert "".join(chunk.text for chunk in flight.log) == "".join(map(chr, flight.ids))

    @invariant()
    def an_ended_flight_has_no_target_or_is_done(self) -> None:
        flight = self.flight
        assert flight.state is State.DONE or not flight.ended or flight.target is None


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_position_beyond_the_log_cannot_be_reached_by_an_assertion_of_ours() -> None:
    with pytest.raises(AssertionError):
        running().open("w2", 0)
