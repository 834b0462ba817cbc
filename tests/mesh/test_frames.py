"""Frames keep their bytes for ever: golden bodies, growth, round trips."""

import contextlib

import attrs
import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.charter import Charter, Choice, Follow, Found, Kept, Piece, Seek, Taken, Unkeep
from mesh.errors import DecodeError
from mesh.frames import (
    Accept,
    Cancel,
    Finish,
    Frame,
    Hello,
    Kind,
    Logprob,
    Ping,
    Pong,
    Prepared,
    Progress,
    Prompt,
    PromptToken,
    Ranked,
    Ready,
    Reject,
    Status,
    Step,
    Tokens,
    Verb,
)

ATTEMPT = Attempt(
    model="ember-py",
    prompt=(Segment("text", "def f("), Segment("ids", ids=(1, 2, 3))),
    parameters=Parameters(
        0.8,
        0.9,
        40,
        0.05,
        0.1,
        0.2,
        1.1,
        ((7, -1.5),),
        3,
        64,
        2,
        ("\n\n",),
        (5,),
        True,
        False,
        False,
        0.5,
        ("no",),
        1,
    ),
    seed=2**64 - 1,
    emitted=(9, 8),
    choice=1,
    model_digest="m",
    policy_digest="p",
    adapter="a",
    rendered_at=1_700_000_000,
    remaining_ms=5000,
    tenant="t",
    priority=-3,
    trace="tr",
    parallel=2,
    kv_dtype="bf16",
    alone=True,
    hops=1,
    grammar=b"g",
    text_digest="x",
    pooling="mean",
)
TEXT_ONLY = Attempt("m", (Segment("text", "hi"),), Parameters(), 0)

GOLDEN: dict[str, tuple[Verb, str]] = {
    "hello": (
        Hello(1, "00000000000000aa", 3, "one", "127.0.0.1:7946", ("x",)),
        "9701b03030303030303030303030303030616103a36f6e65ae3132372e302e302e313a3739343691a178a0",
    ),
    "ping": (Ping(7), "9107"),
    "pong": (Pong(7, 12), "92070c"),
    "accept": (Accept(5, 4, "m", "p", "w", "x"), "960504a16da170a177a178"),
    "reject": (
        Reject("busy", "full", True, "model", True, False, 20),
        "97a462757379a466756c6cc3a56d6f64656cc3c214",
    ),
    "tokens": (
        Tokens(3, (1, 500), "ab", (Logprob(b"a", -0.5, ((b"a", -0.5),)),)),
        "940392 01cd01f4 a26162 9193c40161cbbfe00000000000009192c40161cbbfe0000000000000",
    ),
    "finish": (Finish(9, "stop", "z", "\n", b"v"), "9509a473746f70a17aa10ac40176"),
    "cancel": (Cancel("gone"), "91a4676f6e65"),
    "progress": (Progress(256, 1000), "92cd0100cd03e8"),
    "status": (
        Status(1, 2, 300, 0.5, 1000.0, 50.0, 9, 8, 7),
        "990102cd012ccb3fe0000000000000cb408f400000000000cb4049000000000000090807",
    ),
    "prompt": (
        Prompt(3, (PromptToken(7, b"a", -0.5, 2, (Ranked(8, b"b", -0.25),)),)),
        "9203 91 9507c40161cbbfe000000000000002 91 9308c40162cbbfd0000000000000",
    ),
    "step": (Step((1, 2)), "91920102"),
    "prepared": (Prepared((1, 500), ((7,), (32, 7))), "92 9201cd01f4 92 9107 922007"),
    "keep": (
        Charter((Choice(7, 5, 4, "m", "p", "x", "w"),), b"n"),
        "92 91 97070504a16da170a178a177 c4016e",
    ),
    "kept": (Kept(True), "91c3"),
    "follow": (
        Follow((Piece(1, 3, (1, 500), "ab", (Logprob(b"a", -0.5),)),)),
        "91 91 950103 9201cd01f4 a26162 9193c40161cbbfe000000000000090",
    ),
    "unkeep": (Unkeep(), "90"),
    "seek": (Seek(), "90"),
    "found": (
        Found((Charter((Choice(7, 5),), b"n"),), (Piece(0, 0, (9,), "c"),), "00aa"),
        "93 91 92 91 97070500a0a0a0a0 c4016e 91 9500009109a16390 a430306161",
    ),
    "taken": (Taken(), "90"),
    "ready": (
        Ready("m", "d", "p", True, 2048, 4096, 9999, "cpu", "bf16", (("load", 12),), "x"),
        "9ba16da164a170c3cd0800cd1000cd270fa3637075a46266313691 92a46c6f61640ca178",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_frame_do_not_change(name: str) -> None:
    verb, golden = GOLDEN[name]
    assert verb.frame().body.hex() == golden.replace(" ", "")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_still_mean_the_same(name: str) -> None:
    verb, _ = GOLDEN[name]
    assert type(verb).read(verb.frame()) == verb


def test_the_bytes_of_an_attempt_do_not_change(golden_bytes) -> None:
    golden_bytes("attempt.hex", ATTEMPT.frame().body)


def test_an_attempt_from_before_typical_p_means_the_same(golden_file) -> None:
    before = attrs.evolve(ATTEMPT.parameters, typical_p=1.0, bad_words=(), prompt_logprobs=None)
    old = Frame(Kind.OPEN, body=golden_file("attempt-1.hex"))
    assert Attempt.read(old) == attrs.evolve(ATTEMPT, parameters=before, text_digest="", pooling="")


def test_an_attempt_from_before_text_digests_means_the_same(golden_file) -> None:
    old = Frame(Kind.OPEN, body=golden_file("attempt-2.hex"))
    assert Attempt.read(old) == attrs.evolve(ATTEMPT, text_digest="", pooling="")


def test_an_attempt_from_before_embeddings_means_the_same(golden_file) -> None:
    old = Frame(Kind.OPEN, body=golden_file("attempt-3.hex"))
    assert Attempt.read(old) == attrs.evolve(ATTEMPT, pooling="")


def test_a_finish_from_before_embeddings_means_the_same() -> None:
    old = Frame(Kind.FINISH, body=bytes.fromhex("9409a473746f70a17aa10a"))
    assert Finish.read(old) == Finish(9, "stop", "z", "\n")


def test_an_accept_from_before_text_digests_means_the_same() -> None:
    old = Frame(Kind.ACCEPT, body=bytes.fromhex("950504a16da170a177"))
    assert Accept.read(old) == Accept(5, 4, "m", "p", "w")


def test_a_status_from_before_guesses_means_the_same() -> None:
    old = bytes.fromhex("960102cd012ccb3fe0000000000000cb408f400000000000cb4049000000000000")
    assert Status.read(Frame(Kind.STATUS, body=old)) == Status(1, 2, 300, 0.5, 1000.0, 50.0)


def test_an_attempt_survives_the_wire() -> None:
    assert Attempt.read(ATTEMPT.frame(1, 2)) == ATTEMPT
    assert Attempt.read(TEXT_ONLY.frame(1, 2)) == TEXT_ONLY


def test_every_kind_with_a_body_has_a_golden() -> None:
    covered = {verb.KIND for verb, _ in GOLDEN.values()} | {Kind.OPEN, Kind.GOSSIP}
    assert covered == set(Kind)


def test_a_body_of_another_verb_is_refused_or_read_never_raised() -> None:
    for writer, _ in GOLDEN.values():
        for reader, _ in GOLDEN.values():
            with contextlib.suppress(DecodeError):
                type(reader).read(writer.frame())
