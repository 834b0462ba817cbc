"""The forwarder in conversation: routes, moves, retries, gives up, forgets."""

import random

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from mesh.effects import Report, SendFrame, Wake
from mesh.flight import State
from mesh.forward import Forwarder, ForwardOptions
from mesh.frames import Accept, Finish, Frame, Kind, Reject, Tokens
from mesh.now import Now
from mesh.route import Candidate

REQUEST = Attempt("m", (Segment("text", "hi"),), Parameters(max_tokens=100), 7)


@attrs.define
class Entry:
    """A forwarder, the candidates it sees, and a clock."""

    candidates: list[Candidate] = attrs.Factory(list)
    now: float = 0.0
    forwarder: Forwarder = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.forwarder = Forwarder(
            lambda now, model: tuple(self.candidates), random.Random(1), ForwardOptions()
        )

    @property
    def at(self) -> Now:
        return Now(self.now, self.now)

    def submit(self, timeout_s: float | None = None) -> tuple[int, list]:
        return self.forwarder.submit(self.at, REQUEST, timeout_s)

    def say(self, node: str, verb, flight: int, attempt: int) -> list:
        return self.forwarder.receive(self.at, node, verb.frame(flight, attempt))

    def tick(self, seconds: float) -> list:
        outputs = []
        end = self.now + seconds
        while (deadline := self.forwarder.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            outputs += self.forwarder.tick(self.at)
        self.now = end
        return outputs

    def check(self) -> None:
        """The forwarder's invariant."""
        for id, flight in self.forwarder.flights.items():
            at = [node for node in "abcdefgh" if id in self.forwarder._sent.flights(node)]
            assert at == ([flight.target] if flight.target and not flight.ended else [])
        assert self.forwarder.active == sum(not one.ended for one in self.forwarder.flights.values())


def sent(outputs: list, kind: Kind) -> list[SendFrame]:
    return [o for o in outputs if isinstance(o, SendFrame) and o.frame.kind == kind]


def two() -> Entry:
    return Entry(
        [Candidate("a", digest="d"), Candidate("b", digest="d", queued_tokens=10_000, tokens_per_s=100)]
    )


def start(entry: Entry) -> int:
    id, outputs = entry.submit()
    (opened,) = sent(outputs, Kind.OPEN)
    assert opened.node == "a"
    assert Wake(id) in entry.say("a", Accept(2, 0, "d", "p", "A"), id, 1)
    return id


def test_the_least_expected_wait_is_asked_first() -> None:
    start(two())


def test_a_lost_worker_moves_its_flights_in_the_same_call() -> None:
    entry = two()
    id = start(entry)
    entry.say("a", Tokens(0, (1, 2), "xy"), id, 1)
    entry.candidates.pop(0)
    outputs = entry.forwarder.node_lost(entry.at, "a", "link lost")
    (opened,) = sent(outputs, Kind.OPEN)
    attempt = Attempt.read(opened.frame)
    assert (opened.node, opened.frame.attempt, attempt.emitted) == ("b", 2, (1, 2))
    assert sent(outputs, Kind.CANCEL)[0].node == "a", "the old worker is told, should it hear again"
    entry.check()


def test_late_tokens_of_the_lost_worker_are_dropped_and_counted() -> None:
    entry = two()
    id = start(entry)
    entry.candidates.pop(0)
    entry.forwarder.node_lost(entry.at, "a", "silent")
    assert entry.say("a", Tokens(0, (1,), "x"), id, 1) == []
    assert entry.forwarder.flights[id].ids == []
    assert entry.forwarder.statistics.stale_frames == 1


def test_words_of_a_node_that_was_not_asked_are_dropped() -> None:
    entry = two()
    id = start(entry)
    assert entry.say("b", Tokens(0, (1,), "x"), id, 1) == []


def test_a_busy_worker_is_passed_over_for_the_next() -> None:
    entry = two()
    id, _ = entry.submit()
    outputs = entry.say("a", Reject("busy"), id, 1)
    assert [s.node for s in sent(outputs, Kind.OPEN)] == ["b"]
    entry.check()


def test_when_all_say_that_it_cannot_begin_in_time_it_ends_at_once() -> None:
    entry = two()
    id, _ = entry.submit(timeout_s=30)
    late = Reject("deadline_exceeded")
    assert sent(entry.say("a", late, id, 1), Kind.OPEN)
    entry.say("b", late, id, 2)
    flight = entry.forwarder.flights[id]
    assert (flight.state, flight.failure.code) == (State.FAILED, "deadline_exceeded")
    entry.check()


def test_when_all_are_busy_it_waits_and_tries_again() -> None:
    entry = two()
    id, _ = entry.submit()
    entry.say("a", Reject("busy"), id, 1)
    assert sent(entry.say("b", Reject("busy"), id, 2), Kind.OPEN) == []
    assert [s.node for s in sent(entry.tick(0.2), Kind.OPEN)] == ["a"]


def test_a_flight_that_nobody_can_serve_is_routed_as_soon_as_somebody_can() -> None:
    entry = Entry()
    id, outputs = entry.submit()
    assert sent(outputs, Kind.OPEN) == []
    entry.candidates.append(Candidate("c", digest="d"))
    (opened,) = sent(entry.forwarder.view_changed(entry.at), Kind.OPEN)
    assert (opened.node, entry.forwarder.flights[id].state) == ("c", State.ROUTING)


def test_a_flight_that_nobody_can_serve_fails_in_the_end() -> None:
    entry = Entry()
    id, _ = entry.submit()
    outputs = entry.tick(40)
    assert entry.forwarder.flights[id].failure.code == "no_worker"
    assert Wake(id) in outputs
    assert entry.forwarder.next_deadline() is None


def test_a_flight_that_all_keep_turning_down_fails_in_the_end() -> None:
    entry = two()
    id, outputs = entry.submit()
    while not (flight := entry.forwarder.flights[id]).ended and entry.now < 100:
        for opened in sent(outputs, Kind.OPEN):
            outputs = entry.say(opened.node, Reject("busy"), id, flight.attempt)
        outputs = sent(outputs, Kind.OPEN) or entry.tick(0.1)
    assert flight.failure.code == "no_worker" and 30 <= entry.now < 33
    assert flight.attempt < 80, "it backs off"


def test_a_resumed_flight_takes_no_other_model_digest() -> None:
    entry = two()
    id = start(entry)
    entry.candidates[:] = [Candidate("b", digest="another")]
    outputs = entry.forwarder.node_lost(entry.at, "a", "link lost")
    assert sent(outputs, Kind.OPEN) == []
    assert not entry.forwarder.flights[id].ended


def test_a_worker_that_never_answers_loses_the_attempt() -> None:
    entry = two()
    entry.submit()
    outputs = entry.tick(10.1)
    assert len(sent(outputs, Kind.OPEN)) == 1 and sent(outputs, Kind.CANCEL)


def test_time_runs_out_wherever_the_flight_is() -> None:
    entry = two()
    id, _ = entry.submit(timeout_s=5)
    entry.say("a", Accept(2, 0, "d", "p", "A"), id, 1)
    outputs = entry.tick(6)
    assert entry.forwarder.flights[id].failure.code == "deadline_exceeded"
    assert sent(outputs, Kind.CANCEL)[0].node == "a"
    entry.check()


def test_the_remaining_time_travels_and_shrinks() -> None:
    entry = two()
    _, outputs = entry.submit(timeout_s=5)
    assert Attempt.read(sent(outputs, Kind.OPEN)[0].frame).remaining_ms == 5000
    entry.now = 2
    outputs = entry.forwarder.node_lost(entry.at, "a", "gone")
    assert Attempt.read(sent(outputs, Kind.OPEN)[0].frame).remaining_ms == 3000


def test_an_end_that_lacks_tokens_moves_the_flight() -> None:
    entry = two()
    id = start(entry)
    outputs = entry.say("a", Finish(3, "stop"), id, 1)
    assert sent(outputs, Kind.OPEN) and not entry.forwarder.flights[id].ended


def test_releasing_a_running_flight_cancels_it_at_its_worker() -> None:
    entry = two()
    id = start(entry)
    outputs = entry.forwarder.release(entry.at, id)
    assert sent(outputs, Kind.CANCEL)[0].node == "a"
    assert entry.forwarder.flights == {} and entry.forwarder.next_deadline() is None


def test_a_flight_leaves_one_line_in_the_log() -> None:
    entry = two()
    id = start(entry)
    entry.now = 0.5
    entry.say("a", Tokens(0, (1, 2), "xy"), id, 1)
    entry.now = 2.0
    (told,) = [o for o in entry.say("a", Finish(2, "length"), id, 1) if isinstance(o, Report)]
    fields = dict(told.fields)
    assert (told.event, fields["end"], fields["worker"], fields["tokens"]) == ("flight", "length", "A", 2)
    assert (fields["ttft_ms"], fields["ms"], fields["moves"]) == (500, 2000, 0)


def test_many_flights_spread_by_what_was_sent_before_any_figure_returns() -> None:
    entry = Entry([Candidate(n, digest="d") for n in "abcd"])
    nodes = [sent(entry.submit()[1], Kind.OPEN)[0].node for _ in range(40)]
    assert sorted(nodes.count(n) for n in "abcd") == [10, 10, 10, 10]


def test_random_words_never_break_the_invariant() -> None:
    entry = Entry([Candidate(n, digest="d") for n in "abc"])
    rng = random.Random(3)
    ids = [entry.submit()[0] for _ in range(10)]
    for _ in range(2000):
        id, node = rng.choice(ids), rng.choice("abc")
        flight = entry.forwarder.flights[id]
        verb = rng.choice(
            [
                Accept(1, 0, "d", "p", node),
                Tokens(flight.delivered, (1,), "x"),
                Tokens(0, (1,), "x"),
                Finish(flight.delivered, "stop"),
                Reject("busy"),
                Reject("engine_lost", crashed=True, alone=rng.random() < 0.2),
            ]
        )
        entry.say(node, verb, id, max(0, flight.attempt - rng.choice([0, 0, 0, 1])))
        if rng.random() < 0.1:
            entry.forwarder.node_lost(entry.at, node, "gone")
        entry.tick(rng.random() / 10)
        entry.check()


def test_a_worker_that_talks_nonsense_loses_the_attempt() -> None:
    entry = two()
    id, _ = entry.submit()
    outputs = entry.forwarder.receive(entry.at, "a", Frame(Kind.ACCEPT, id, 1, b"\xc1"))
    assert len(sent(outputs, Kind.OPEN)) == 1 and sent(outputs, Kind.CANCEL)[0].node == "a"
    entry.check()
