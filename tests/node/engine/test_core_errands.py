"""Prompts that a text worker prepares: the core goes on without them, and forgets those nobody waits for."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.frames import Accept, Cancel, Finish, Prepared, Reject, Status
from node.engine.text import prepare
from node.engine.toy import ToyText, expected_text
from tests.node.engine.conversation import Engine, ask


def prepared(engine: Engine, number: int, prompt: str = "hello") -> list:
    answer = prepare(ToyText(), ask(prompt))
    return engine.note(engine.core.prepared(engine.now, [(number, answer)]))


def waiting() -> Engine:
    engine = Engine(text_worker=True)
    assert engine.open(ask(), 11) == []
    return engine


def test_an_open_becomes_an_errand_and_its_answer_a_stream():
    engine = waiting()
    (errand,) = engine.core.errands.take()
    assert (errand.flight, errand.attempt, errand.body) == (1, 1, ask().frame().body)
    assert engine.core.idle
    (accept,) = prepared(engine, 1)
    assert isinstance(accept, Accept)
    engine.run()
    assert engine.text(11) == expected_text("hello", 7, 20)


def test_streams_go_on_while_a_prompt_is_prepared():
    engine = waiting()
    prepared(engine, 1)
    engine.open(ask("slow", 8), 12)
    for _ in range(10):
        engine.step()
    assert len(engine.ids(11)) == 10
    assert engine.verbs(Status, 0)[-1].waiting == 1
    prepared(engine, 3, "slow")
    engine.run()
    assert engine.text(12) == expected_text("slow", 8, 20)


def test_a_refusal_goes_to_its_client():
    engine = waiting()
    refusal = Reject("invalid_request", "took longer", False, "messages")
    assert engine.note(engine.core.prepared(0.0, [(1, refusal)])) == [refusal]
    assert engine.core.tickets == ()


def test_a_prompt_that_is_too_long_is_refused_when_it_has_been_counted():
    engine = Engine(text_worker=True)
    engine.open(ask("x" * 500, max_tokens=100), 11)
    (refusal,) = engine.note(engine.core.prepared(0.0, [(1, Prepared((65,) * 500))]))
    assert refusal.code == "context_length_exceeded"


def test_ids_that_the_model_does_not_have_are_refused():
    for answer in (Prepared((9999,)), Prepared((65,), ((9999,),)), Prepared(())):
        (refusal,) = waiting().core.prepared(0.0, [(1, answer)])[:1]
        assert Reject.read(refusal).code == "invalid_request"


def test_a_cancelled_errand_is_dropped_and_its_answer_is_nobodys():
    engine = waiting()
    assert engine.hear(Cancel().frame(11, 1)) == []
    assert engine.core.errands.take() == []
    assert engine.core.tickets == ()
    assert prepared(engine, 1) == []


def test_a_newer_attempt_takes_the_place_of_one_that_is_being_prepared():
    engine = waiting()
    engine.open(ask("other", 9), 11, 2)
    assert engine.open(ask(), 11, 1) == []
    assert prepared(engine, 1) == []
    prepared(engine, 2, "other")
    engine.run()
    assert engine.text(11) == expected_text("other", 9, 20)


def test_a_request_whose_time_is_up_is_not_prepared():
    engine = Engine(text_worker=True)
    engine.open(ask(remaining_ms=100), 11)
    engine.now = 0.2
    engine.step()
    assert [reject.code for reject in engine.verbs(Reject, 11)] == ["deadline_exceeded"]
    assert engine.core.errands.take() == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["open", "answer", "cancel", "step"])), max_size=40)
)
def test_whatever_the_order_every_stream_says_its_own_text(moves):
    engine = Engine(text_worker=True)
    numbers, names, cancelled = {}, {}, set()
    for flight, move in [*moves, *((flight, "answer") for flight in range(4))]:
        flight += 1
        if move == "open" and flight not in numbers:
            engine.open(ask(f"p{flight}", flight), flight)
            numbers[flight] = names[flight] = max(frame.flight for frame in engine.core.errands.take())
        elif move == "answer" and flight in names:
            prepared(engine, names.pop(flight), f"p{flight}")
        elif move == "cancel" and flight in numbers:
            engine.hear(Cancel().frame(flight, 1))
            cancelled.add(flight)
        elif move == "step":
            engine.step()
    engine.run()
    for flight in numbers:
        said = expected_text(f"p{flight}", flight, 20)
        assert said.startswith(engine.text(flight))
        assert engine.text(flight) == said or flight in cancelled
        assert flight in cancelled or len(engine.verbs(Finish, flight)) == 1
