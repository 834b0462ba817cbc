"""How outputs end, and that a moved flight says what it would have said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.attempt import Attempt
from mesh.flight import Flight, State
from mesh.frames import Accept, Finish, Tokens
from node.engine.toy import END, expected_ids, expected_text
from tests.node.engine.conversation import Engine, Scripted, ask, scripted


def test_the_end_token_ends_and_is_counted_but_not_said():
    engine = Engine(scripted("ab", END))
    engine.open(ask())
    engine.run()
    assert engine.text() == "ab"
    assert engine.verbs(Finish) == [Finish(3, "stop", "", "<end>")]
    assert engine.ids() == [97, 98, END]


def test_an_ignored_end_token_is_no_end():
    engine = Engine(scripted("ab", END, 99))
    engine.open(ask(ignore_eos=True, max_tokens=4))
    engine.run()
    assert (engine.text(), engine.verbs(Finish)) == ("abc", [Finish(4, "length")])


def test_a_stop_id_ends():
    engine = Engine(scripted("abc"))
    engine.open(ask(stop_ids=(98,)))
    engine.run()
    assert (engine.text(), engine.verbs(Finish)) == ("a", [Finish(2, "stop", "", "b")])


def test_a_stop_string_ends_and_is_cut():
    engine = Engine(scripted("abcdef"))
    engine.open(ask(stop=("zz", "cd")))
    engine.run()
    assert (engine.text(), engine.verbs(Finish)) == ("ab", [Finish(4, "stop", "", "cd")])


def test_what_was_held_back_comes_with_the_finish():
    engine = Engine(scripted("abc"))
    engine.open(ask(stop=("cX",), max_tokens=3))
    engine.run()
    assert engine.verbs(Finish) == [Finish(3, "length", "c")]


def test_ends_are_banned_until_the_least_tokens_are_said():
    runner = scripted("abcd", END)
    engine = Engine(runner)
    engine.open(ask(min_tokens=2, stop_ids=(65,)))
    engine.run()
    banned = [plan.rows[0].sampling.banned for plan in runner.plans]
    assert banned == [(END, 65)] * 2 + [()] * 3


def test_logprobs_are_given_as_bytes():
    engine = Engine(scripted("a"))
    engine.open(ask(logprobs=2, max_tokens=1))
    engine.run()
    ((logprob,),) = [tokens.logprobs for tokens in engine.verbs(Tokens)]
    assert (logprob.token, logprob.logprob, logprob.top) == (b"a", -0.5, ((b"\x01", -0.5), (b"\x02", -1.5)))


@pytest.mark.parametrize(
    ("emitted", "more", "finish"),
    [
        ((), {"max_tokens": 0}, Finish(0, "length")),
        (b"abc", {"max_tokens": 3}, Finish(3, "length")),
        (b"ab", {"max_tokens": 2, "stop": ("bX",)}, Finish(2, "length", "b")),
        ((97, END), {}, Finish(2, "stop", "", "<end>")),
        (b"abcd", {"stop": ("cd",)}, Finish(4, "stop", "", "cd")),
        (b"ab", {"stop_ids": (98,)}, Finish(2, "stop", "", "b")),
        (b"abcd", {"stop": ("cd",), "max_tokens": 4}, Finish(4, "stop", "", "cd")),
    ],
)
def test_an_attempt_at_its_end_finishes_at_once(emitted, more, finish: Finish):
    engine = Engine(scripted("abcdef"))
    accept, said = engine.open(ask(emitted=tuple(emitted), **more))
    assert isinstance(accept, Accept)
    assert said == finish
    assert engine.core.idle


def moved(attempt: Attempt, kills: list[int], runner=lambda: None, make=Engine) -> tuple[Flight, str]:
    """Run a flight whose engines die after so many steps each; return it and the text its client has."""
    flight = Flight(1, attempt)
    flight.route()
    for steps in [*kills, 10_000]:
        engine = make(runner())
        engine.open(flight.open("worker", 0), 1, flight.attempt)
        for _ in range(steps):
            if not engine.step():
                break
        for _, number, verb in engine.said:
            match verb:
                case Accept():
                    assert flight.accept(number, verb)
                case Tokens():
                    assert flight.tokens(number, verb)
                case Finish():
                    assert flight.finished(number, verb)
        if flight.ended:
            break
        assert flight.lost(flight.attempt, "killed")
    assert flight.state is State.DONE
    return flight, "".join(chunk.text for chunk in flight.log)


@given(st.lists(st.integers(1, 12), max_size=5), st.integers(0, 5))
def test_a_flight_that_is_moved_says_what_it_would_have_said(kills: list[int], seed: int):
    flight, text = moved(ask("hi", seed, max_tokens=40), kills)
    assert tuple(flight.ids) == expected_ids(b"hi", seed, 40)
    assert text == expected_text("hi", seed, 40)


words = st.text("abcé", min_size=1, max_size=3)


@given(
    st.text("abcé€", min_size=1, max_size=20),
    st.lists(words, max_size=2),
    st.lists(st.integers(1, 6), max_size=4),
)
def test_stops_and_characters_survive_moves(said: str, stops: list[str], kills: list[int]):
    attempt = ask(stop=tuple(stops), max_tokens=len(said.encode()) + 3)

    def runner() -> Scripted:
        return scripted(said, END)

    (whole, text), (flight, again) = moved(attempt, [], runner), moved(attempt, kills, runner)
    assert (flight.ids, again, flight.finish.reason) == (whole.ids, text, whole.finish.reason)
    first = min((said.find(stop) + len(stop) for stop in stops if stop in said), default=None)
    assert said.startswith(text)
    assert (first is None) == (text == said)
