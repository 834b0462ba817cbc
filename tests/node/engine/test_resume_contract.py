"""The resume contract: its page is its code, pinned is refused, a bystander decides nothing."""

import re

import attrs
import pytest

from mesh import grammar
from mesh.attempt import Attempt, Parameters
from mesh.flight import Flight
from mesh.frames import Accept, Reject, Tokens
from node.engine.process import ToyGrammars
from node.engine.toy import DIGEST, POLICY, TEXT_DIGEST, expected_ids
from tests.node.engine.conversation import Engine, ask
from tests.tidy.tree import ROOT

PAGE = (ROOT / "docs/reference/resume-contract.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([\w ]+) \|", re.MULTILINE)
FIRST, SECOND = PAGE.split("## The parameters")
ROLES = dict(ROW.findall(FIRST))
MEANS = dict(ROW.findall(SECOND))

BYSTANDERS = {
    "model": "a second name",
    "choice": 3,
    "tenant": "somebody",
    "priority": -5,
    "trace": "a trace",
    "hops": 1,
}
MOVES = {"policy_digest": "another", "remaining_ms": 60_000, "alone": True}


def said(attempt: Attempt) -> tuple[list[int], str]:
    engine = Engine(grammars=ToyGrammars())
    engine.open(attempt)
    engine.run()
    return engine.ids(), engine.text()


def named(role: str) -> set[str]:
    return {field for field, found in ROLES.items() if found == role}


def test_the_page_names_the_fields_of_the_record_in_their_order():
    assert list(ROLES) == [field.name for field in attrs.fields(Attempt)]
    assert list(MEANS) == [field.name for field in attrs.fields(Parameters)]


def test_every_row_has_a_role_that_the_page_explains():
    assert set(ROLES.values()) == {"decides", "grows", "pinned", "moves", "bystander", "reserved"}
    assert set(MEANS.values()) == {"tokens", "the end", "what is told"}


@pytest.mark.parametrize("field", sorted(BYSTANDERS | MOVES))
def test_no_token_depends_on_it(field: str):
    value = (BYSTANDERS | MOVES)[field]
    assert said(attrs.evolve(ask(), **{field: value})) == said(ask())


def test_those_are_all_on_which_nothing_depends():
    assert named("bystander") == set(BYSTANDERS)
    assert named("moves") == set(MOVES)


@pytest.mark.parametrize(
    "other",
    [
        ask("hellp"),
        ask(seed=8),
        ask(max_tokens=19),
        ask(stop=("a",)),
        ask(grammar=grammar.write("regex", "[a-f]*")),
    ],
    ids=["prompt", "seed", "max_tokens", "stop", "grammar"],
)
def test_the_check_would_see_a_field_that_decides(other: Attempt):
    assert said(other) != said(ask())


@pytest.mark.parametrize("field", sorted(named("reserved")))
def test_what_is_reserved_is_refused(field: str):
    (reject,) = Engine().open(attrs.evolve(ask(), **{field: 2 if field == "parallel" else "x"}))
    assert (reject.code, reject.param, reject.retryable) == ("unsupported_parameter", field, False)


@pytest.mark.parametrize("field", sorted(named("pinned")))
def test_what_is_pinned_and_differs_is_refused_and_another_worker_is_asked(field: str):
    (reject,) = Engine().open(attrs.evolve(ask(), **{field: "another"}))
    assert isinstance(reject, Reject)
    assert (reject.code, reject.retryable) == (f"{field}_mismatch", True)
    assert "`another` is pinned" in reject.message


def test_an_accept_says_the_digests_and_a_move_pins_them():
    engine = Engine()
    flight = Flight(1, ask())
    flight.route()
    (accept,) = engine.open(flight.open("w", 0), 1, 1)
    assert (accept.model_digest, accept.policy_digest, accept.text_digest) == (DIGEST, POLICY, TEXT_DIGEST)
    assert flight.accept(1, accept)
    flight.lost(1, "gone")
    again = flight.open("w2", 0)
    assert (again.model_digest, again.policy_digest, again.text_digest) == (DIGEST, POLICY, TEXT_DIGEST)


def test_attempts_of_one_flight_differ_only_where_the_page_says_so():
    flight = Flight(1, ask(tenant="t", trace="tr", priority=3, rendered_at=5))
    flight.route()
    first = flight.open("w", 5000)
    flight.accept(1, Accept(5, 0, "m", "p", "w", "t"))
    flight.tokens(1, Tokens(0, (300, 301), "ab"))
    flight.rejected(1, Reject("engine_crash", crashed=True))
    second = flight.open("w2", 4000)
    names = [field.name for field in attrs.fields(Attempt)]
    differ = {name for name in names if getattr(first, name) != getattr(second, name)}
    assert differ == named("grows") | named("pinned") | named("moves")


def test_a_worker_from_before_text_digests_pins_none():
    flight = Flight(1, ask())
    flight.route()
    flight.open("w", 0)
    flight.accept(1, Accept(5, 0, "m", "p", "w"))
    flight.lost(1, "gone")
    assert flight.open("w2", 0).text_digest == ""


def test_the_record_alone_is_enough_to_go_on():
    """Written, read and continued by an engine that has seen nothing else."""
    ids = expected_ids(b"hello", 7, 20)
    for count in range(20):
        record = ask(emitted=ids[:count], model_digest=DIGEST, text_digest=TEXT_DIGEST)
        engine = Engine()
        engine.open(Attempt.read(record.frame(1, 1)))
        engine.run()
        assert engine.ids() == list(ids[count:])
