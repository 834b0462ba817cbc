"""What a node says of its engines, and what an entry reads from it."""

import attrs

from mesh.frames import Ready, Status
from mesh.identity import Identity
from mesh.load import LoadRecord, ModelLoad
from mesh.member import Member
from mesh.now import Now
from node.policy.capacity import (
    KNOWN_MODELS_MAX,
    MODEL_MEMORY_S,
    KnownModels,
    candidates_of,
    cards_of,
    load_record,
)
from node.policy.engines import Engines, EngineState, Replica

ONE = Member(Identity("a" * 16, 2), "one", ("127.0.0.1", 1), zone="z")
TWO = Member(Identity("b" * 16), "two", ("127.0.0.1", 2))
LOADED = Replica("m", "m", EngineState.READY, ready=Ready("m", "digest", "policy", True, 2048))


def engines(replica: Replica) -> Engines:
    return Engines({replica.name: replica})


def test_an_engine_that_is_not_ready_is_named_but_offers_nothing() -> None:
    record = load_record(ONE, engines(Replica("m", "m", EngineState.STARTING)), False, 0)
    assert record.models == (ModelLoad("m"),)
    assert candidates_of("m", [(ONE, record)], "x", lambda node: True) == ()


def test_a_ready_engine_tells_its_figures() -> None:
    replica = attrs.evolve(LOADED, status=Status(2, 3, 500, 0.25, 1000.0, 50.0))
    record = load_record(ONE, engines(replica), False, 0.1)
    (model,) = record.models
    assert (model.ready, model.digest, model.policy, model.context_max) == (True, "digest", "policy", 2048)
    assert (model.queued_tokens, model.running, model.kv_free_ratio, record.lag_ms) == (500, 5, 0.25, 100)
    (candidate,) = candidates_of("m", [(ONE, record)], ONE.node, lambda node: True)
    assert (candidate.node, candidate.local, candidate.queued_tokens, candidate.tokens_per_s) == (
        ONE.node,
        True,
        500,
        50,
    )


def test_an_engine_that_is_not_exact_promises_no_policy() -> None:
    inexact = attrs.evolve(LOADED, ready=attrs.evolve(LOADED.ready, exact=False))
    assert load_record(ONE, engines(inexact), False, 0).models[0].policy == ""


READY = LoadRecord(TWO.node, models=(ModelLoad("m", "d", ready=True, context_max=100),))


def test_whoever_drains_or_is_distrusted_is_no_candidate() -> None:
    def ask(member: Member, record: LoadRecord, trusted: bool = True) -> int:
        return len(candidates_of("m", [(member, record)], ONE.node, lambda node: trusted))

    assert ask(TWO, READY) == 1
    assert ask(TWO, READY, trusted=False) == 0
    assert ask(TWO, attrs.evolve(READY, draining=True)) == 0
    assert ask(attrs.evolve(TWO, draining=True), READY) == 0


def test_models_are_listed_once_with_everybody_who_holds_them() -> None:
    loading = LoadRecord(ONE.node, models=(ModelLoad("m"), ModelLoad("a")))
    cards = cards_of([(ONE, loading), (TWO, READY)])
    assert cards == [("a", "", 0, False, ("one",)), ("m", "d", 100, True, ("one", "two"))]


def test_a_model_is_known_for_a_while_after_it_was_held() -> None:
    known = KnownModels()
    known.note(Now(5, 0), ["m"])
    assert known.had(Now(5 + MODEL_MEMORY_S - 1, 0), "m")
    assert not known.had(Now(5 + MODEL_MEMORY_S, 0), "m")
    assert not known.had(Now(5, 0), "never")


def test_what_is_known_is_bounded_and_the_oldest_goes_first() -> None:
    known = KnownModels()
    for index in range(KNOWN_MODELS_MAX + 1):
        known.note(Now(index / 100, 0), [f"m{index}"])
    assert not known.had(Now(11, 0), "m0")
    assert known.had(Now(11, 0), f"m{KNOWN_MODELS_MAX}")
