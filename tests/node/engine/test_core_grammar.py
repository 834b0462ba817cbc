"""Constrained streams: valid to the last token, and the same text wherever and however often they are moved."""

import json

import pytest

from mesh import grammar
from mesh.frames import Finish, Reject
from node.engine.process import ToyGrammars
from node.engine.toy import END, ToyRunner, expected_text
from tests.node.engine.conversation import Engine, ask, scripted
from tests.node.engine.schemas import schema_of, shown
from tests.node.engine.test_core_text import moved

jsonschema = pytest.importorskip("jsonschema")

GRAMMARS = ToyGrammars()
SCHEMAS = 200
TOKENS = 3000


def engine(runner=None, **options) -> Engine:
    runner = runner or ToyRunner(blocks=2048, block_tokens=16, context_max=TOKENS + 100)
    return Engine(runner, grammars=GRAMMARS, **options)


def under(seed: int, **more):
    return ask(
        f"schema {seed}", seed, max_tokens=TOKENS, grammar=grammar.write("json", schema_of(seed)), **more
    )


def check(seed: int, text: str) -> None:
    schema = schema_of(seed)
    jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)


def test_two_hundred_schemas_in_one_batch_with_free_streams_are_all_valid():
    one = engine()
    for seed in range(SCHEMAS):
        one.open(under(seed), seed + 1)
    free = range(SCHEMAS + 1, SCHEMAS + 9)
    for flight in free:
        one.open(ask("free", flight, max_tokens=50), flight)
    one.run()
    for seed in range(SCHEMAS):
        (finish,) = one.verbs(Finish, seed + 1)
        assert finish.reason == "stop", shown(seed)
        check(seed, one.text(seed + 1))
    for flight in free:
        assert one.text(flight) == expected_text("free", flight, 50)


@pytest.mark.parametrize("seed", range(0, SCHEMAS, 10))
def test_a_constrained_stream_that_is_killed_at_any_token_says_the_same(seed: int):
    whole, text = moved(under(seed), [], make=engine)
    check(seed, text)
    for index in range(1, len(whole.ids) + 1):
        flight, again = moved(under(seed), [index], make=engine)
        assert (again, flight.ids, flight.finish) == (text, whole.ids, whole.finish)


def test_a_stream_that_is_killed_at_every_token_says_the_same():
    for seed in range(1, SCHEMAS, 20):
        whole, text = moved(under(seed), [], make=engine)
        flight, again = moved(under(seed), [1] * 16, make=engine)
        assert (again, flight.ids) == (text, whole.ids)


def test_the_end_is_taken_only_when_the_output_is_whole():
    one = engine(ToyRunner(blocks=64, block_tokens=4, context_max=512, end_one_in=2))
    one.open(ask(grammar=grammar.write("regex", "[a-c]{5}x*"), max_tokens=200))
    one.run()
    (finish,) = one.verbs(Finish)
    assert (finish.reason, finish.stop) == ("stop", "<end>")
    assert one.ids()[-1] == END
    assert set(one.text()[:5]) <= set("abc")


def test_an_output_that_is_whole_ends_without_an_end_token():
    one = engine()
    one.open(ask(grammar=grammar.write("choice", ["yes", "no"])))
    one.run()
    assert one.text() in ("yes", "no")
    assert END not in one.ids()
    assert one.verbs(Finish)[0].reason == "stop"


@pytest.mark.parametrize("more", [{"ignore_eos": True}, {"min_tokens": 15}, {"bad_words": ("c", "a")}])
def test_bans_give_way_where_the_grammar_leaves_no_other_choice(more: dict):
    one = engine()
    one.open(ask(grammar=grammar.write("regex", "abc?"), max_tokens=20, **more))
    one.run()
    assert one.text() in ("ab", "abc")
    assert one.verbs(Finish)[0].reason == "stop"
    if more.get("ignore_eos") or more.get("min_tokens"):
        assert one.text() == "abc", "an end that is banned is not taken while there is another choice"


def test_a_limit_cuts_a_constrained_output():
    one = engine()
    one.open(ask(grammar=grammar.write("regex", "a{100}"), max_tokens=7))
    one.run()
    assert (one.text(), one.verbs(Finish)[0].reason) == ("a" * 7, "length")


def test_a_grammar_that_cannot_be_compiled_is_refused():
    (reject,) = engine().open(ask(grammar=grammar.write("regex", "(")))
    assert (reject.code, reject.param, reject.retryable) == ("invalid_request", "response_format", False)


def test_emitted_ids_that_stray_are_sent_elsewhere():
    (reject,) = engine().open(ask(grammar=grammar.write("regex", "abc"), emitted=tuple(b"abx")))
    assert (reject.code, reject.retryable) == ("grammar_mismatch", True)


def test_an_engine_without_grammars_refuses_them():
    (reject,) = Engine().open(ask(grammar=grammar.write("regex", "abc")))
    assert (reject.code, reject.param) == ("unsupported_parameter", "response_format")


class Broken:
    """A constraint that fails after two tokens."""

    allowed = bytes([255]) * 48
    complete = False

    def __init__(self) -> None:
        self.pushed = 0

    @property
    def failure(self) -> str:
        return "too complex" if self.pushed >= 2 else ""

    def push(self, id: int) -> None:
        self.pushed += 1

    def begin(self, source: bytes, emitted) -> "Broken":
        return self


def test_a_grammar_that_fails_on_the_way_ends_its_stream_alone():
    one = Engine(scripted("abcdef"), grammars=Broken())
    one.open(ask(grammar=b"x"))
    one.open(ask(max_tokens=6), 2)
    one.run()
    assert one.ids() == [*b"ab"]
    (reject,) = one.verbs(Reject)
    assert (reject.code, reject.message, reject.retryable) == ("invalid_request", "too complex", False)
    assert one.text(2) == "abcdef"
