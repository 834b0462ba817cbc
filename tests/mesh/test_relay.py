"""The relay: tickets issued, answers returned, crashes told apart."""

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from mesh.effects import LOCAL, SendFrame
from mesh.frames import Accept, Cancel, Finish, Kind, Reject, Tokens
from mesh.relay import TICKETS_MAX, Relay, SendEngine

ATTEMPT = Attempt("m", (Segment("text", "hi"),), Parameters(), 7)


def relay() -> Relay:
    return Relay(lambda model: "engine" if model == "m" else None)


def opened(relay: Relay, port: int, flight: int, attempt: int = 1) -> int:
    """Open an attempt; return its ticket."""
    (send,) = [
        o
        for o in relay.receive(port, f"n{port}", ATTEMPT.frame(flight, attempt))
        if o.frame.kind == Kind.OPEN
    ]
    assert isinstance(send, SendEngine) and send.replica == "engine"
    return send.frame.flight


def test_two_entries_may_use_the_same_flight_id() -> None:
    r = relay()
    assert opened(r, 3, 99) != opened(r, 4, 99)


def test_an_answer_goes_back_on_the_port_under_the_entrys_own_names() -> None:
    r = relay()
    ticket = opened(r, 3, 99, 2)
    assert r.answer(Accept(1).frame(ticket, 2)) == [SendFrame("n3", Accept(1).frame(99, 2), 3)]
    tokens = Tokens(0, (1,), "x")
    assert r.answer(tokens.frame(ticket, 2)) == [SendFrame("n3", tokens.frame(99, 2), 3)]


def test_a_local_request_takes_the_same_path() -> None:
    r = relay()
    ticket = opened(r, LOCAL, 5)
    assert r.answer(Accept(1).frame(ticket, 1))[0].port == LOCAL


def test_the_end_of_an_attempt_ends_its_ticket() -> None:
    r = relay()
    ticket = opened(r, 3, 99)
    r.answer(Finish(0, "stop").frame(ticket, 1))
    assert r.tickets == {} and r.answer(Tokens(0, (1,)).frame(ticket, 1)) == []
    other = opened(r, 3, 98)
    r.answer(Reject("busy").frame(other, 1))
    assert r.tickets == {}


def test_a_cancel_reaches_the_engine_and_later_answers_go_nowhere() -> None:
    r = relay()
    ticket = opened(r, 3, 99)
    (send,) = r.receive(3, "n3", Cancel("gone").frame(99, 1))
    assert (send.frame.kind, send.frame.flight) == (Kind.CANCEL, ticket)
    assert r.answer(Tokens(0, (1,)).frame(ticket, 1)) == []


def test_a_cancel_of_an_earlier_attempt_does_not_touch_the_present_one() -> None:
    r = relay()
    opened(r, 3, 99, 2)
    assert r.receive(3, "n3", Cancel("late").frame(99, 1)) == []
    assert len(r.tickets) == 1


def test_a_new_attempt_of_a_flight_replaces_the_old_one() -> None:
    r = relay()
    first = opened(r, 3, 99, 1)
    second = opened(r, 3, 99, 2)
    assert list(r.tickets) == [second] and first != second


def test_a_model_that_is_not_here_is_refused_and_another_may_try() -> None:
    (send,) = relay().receive(3, "n3", attrs.evolve(ATTEMPT, model="x").frame(9, 1))
    reject = Reject.read(send.frame)
    assert (reject.code, reject.retryable, send.port) == ("no_engine", True, 3)


def test_more_attempts_than_the_bound_are_refused_as_busy() -> None:
    r = relay()
    for flight in range(TICKETS_MAX):
        opened(r, 3, flight + 1)
    (send,) = r.receive(3, "n3", ATTEMPT.frame(TICKETS_MAX + 1, 1))
    assert Reject.read(send.frame).code == "busy"


def test_a_lost_port_frees_its_attempts_and_no_others() -> None:
    r = relay()
    gone, kept = opened(r, 3, 1), opened(r, 4, 2)
    assert [send.frame.flight for send in r.port_lost(3)] == [gone]
    assert list(r.tickets) == [kept]


def rejects(outputs: list) -> dict[int, Reject]:
    return {send.frame.flight: Reject.read(send.frame) for send in outputs}


def test_a_dead_engine_tells_who_was_in_its_step() -> None:
    r = relay()
    one, two, _ = opened(r, 3, 1), opened(r, 3, 2), opened(r, 3, 3)
    told = rejects(r.engine_lost("engine", "killed by signal 9", (one, two)))
    assert [told[n].crashed for n in (1, 2, 3)] == [True, True, False]
    assert not any(reject.alone for reject in told.values())
    assert r.tickets == {}


def test_a_step_of_one_is_told_as_such() -> None:
    r = relay()
    one = opened(r, 3, 1)
    opened(r, 3, 2)
    told = rejects(r.engine_lost("engine", "killed", (one,)))
    assert told[1].alone and not told[2].alone and not told[2].crashed
