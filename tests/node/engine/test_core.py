"""The engine core in conversation: what it answers to each frame, and what it tells unasked."""

import re

import attrs
import pytest

from mesh.attempt import PROBATION_TOKENS, Attempt, Segment
from mesh.frames import (
    Accept,
    Cancel,
    Finish,
    Frame,
    Kind,
    Ping,
    Pong,
    Progress,
    Reject,
    Status,
    Step,
    Tokens,
)
from node.engine.core import STATUS_INTERVAL_S
from node.engine.door import MESSAGE_CHARS_MAX, refused
from node.engine.scheduler import Limits
from node.engine.toy import DIGEST, TEXT_DIGEST, VOCABULARY, ToyRunner, expected_ids, expected_text
from tests.node.engine.conversation import Engine, ask


def test_a_request_is_accepted_streamed_and_finished():
    engine = Engine()
    (accept,) = engine.open(ask())
    assert accept == Accept(5, 0, DIGEST, "toy-policy-1", "here", TEXT_DIGEST)
    engine.run()
    assert [tokens.position for tokens in engine.verbs(Tokens)] == list(range(20))
    assert engine.text() == expected_text("hello", 7, 20)
    assert engine.verbs(Finish) == [Finish(20, "length")]


def test_sixteen_at_once_say_what_each_says_alone():
    engine = Engine(ToyRunner(blocks=256, block_tokens=4))
    for flight in range(1, 17):
        engine.open(ask(f"prompt {flight}", flight, max_tokens=flight), flight)
    engine.run()
    for flight in range(1, 17):
        assert engine.text(flight) == expected_text(f"prompt {flight}", flight, flight)


def test_a_repeated_prompt_is_found_in_the_cache():
    engine = Engine()
    engine.open(ask("a prompt that fills some blocks"))
    engine.run()
    (accept,) = engine.open(ask("a prompt that fills some blocks"), 2)
    assert accept.cached_tokens == 28


def test_tenants_do_not_share_a_cache():
    engine = Engine()
    engine.open(ask("a prompt that fills some blocks", tenant="one"))
    engine.run()
    assert engine.open(ask("a prompt that fills some blocks", tenant="two"), 2)[0].cached_tokens == 0


def test_priorities_are_kept_and_the_lower_comes_first():
    engine = Engine(limits=Limits(running_max=1))
    for flight, priority in ((1, 0), (2, 1), (3, -1)):
        engine.open(ask(priority=priority), flight)
    engine.run()
    assert [flight for flight, _, verb in engine.said if isinstance(verb, Finish)] == [3, 1, 2]


def test_frames_carry_flight_and_attempt():
    engine = Engine()
    engine.open(ask(max_tokens=2), 5, 3)
    engine.run()
    assert {(flight, attempt) for flight, attempt, _ in engine.said if flight} == {(5, 3)}


def test_cancel_ends_it_and_frees_everything():
    engine = Engine()
    engine.open(ask())
    engine.step()
    assert engine.hear(Cancel().frame(1, 1)) == []
    assert engine.core.idle
    assert engine.core.scheduler.blocks.available == 64
    assert not engine.step()
    assert engine.verbs(Finish) == []


def test_cancel_during_a_step_silences_its_result():
    engine = Engine()
    engine.open(ask())
    plan, _ = engine.core.plan(0.0)
    engine.hear(Cancel().frame(1, 1))
    frames = engine.core.commit(0.1, plan, engine.runner.run(plan))
    assert [frame.kind for frame in frames] == []


def test_cancel_of_another_attempt_or_flight_is_ignored():
    engine = Engine()
    engine.open(ask(), 1, 2)
    engine.hear(Cancel().frame(1, 1), Cancel().frame(9, 2))
    engine.run()
    assert len(engine.ids()) == 20


def test_a_later_attempt_replaces_the_earlier_and_a_repeated_one_does_not():
    engine = Engine()
    engine.open(ask(), 1, 1)
    engine.step()
    assert engine.open(ask(), 1, 1) == []
    engine.open(ask(emitted=expected_ids(b"hello", 7, 3)), 1, 2)
    engine.run()
    tokens = [(attempt, v.position) for _, attempt, v in engine.said if isinstance(v, Tokens)]
    assert tokens == [(1, 0)] + [(2, position) for position in range(3, 20)]


@pytest.mark.parametrize(
    ("attempt", "code", "retryable", "param", "words"),
    [
        (ask(model_digest="other"), "model_digest_mismatch", True, "", "`other` is pinned"),
        (ask("x" * 512, max_tokens=None), "context_length_exceeded", False, "prompt", r"`513` tokens .* 256"),
        (
            ask("x" * 100, max_tokens=157),
            "context_length_exceeded",
            False,
            "prompt",
            "lower `max_tokens` to 156",
        ),
        (ask("x" * 8193), "context_length_exceeded", False, "prompt", "`8193` bytes"),
        (ask(""), "invalid_request", False, "prompt", "no tokens"),
        (ask(adapter="a"), "unsupported_parameter", False, "adapter", "`adapter`"),
        (ask(grammar=b"g"), "unsupported_parameter", False, "response_format", "`response_format`"),
        (ask(kv_dtype="fp8"), "unsupported_parameter", False, "kv_dtype", "`kv_dtype`"),
        (ask(echo=True), "unsupported_parameter", False, "echo", "`echo`"),
        (ask(parallel=2), "unsupported_parameter", False, "parallel", "`parallel`"),
        (ask(logit_bias=((VOCABULARY, 1.0),)), "invalid_request", False, "logit_bias", f"`{VOCABULARY}`"),
        (ask(stop_ids=(VOCABULARY,)), "invalid_request", False, "stop_token_ids", f"`{VOCABULARY}`"),
        (ask(emitted=(VOCABULARY,)), "invalid_request", False, "emitted", f"`{VOCABULARY}`"),
    ],
)
def test_a_refusal_names_value_limit_and_field(
    attempt: Attempt, code: str, retryable: bool, param: str, words: str
):
    engine = Engine()
    (reject,) = engine.open(attempt)
    assert (reject.code, reject.retryable, reject.param) == (code, retryable, param)
    assert re.search(words, reject.message)
    assert engine.core.idle


def test_a_chat_that_is_too_long_names_its_messages():
    messages = Segment("messages", '{"messages": [{"role": "user", "content": "' + "x" * 600 + '"}]}')
    (reject,) = Engine().open(attrs.evolve(ask(), prompt=(messages,)))
    assert (reject.code, reject.param) == ("context_length_exceeded", "messages")


def test_a_refusal_can_be_sent_whatever_its_words():
    message = refused("code", "\ud800" + "é" * 5000).reject
    assert Reject.read(message.frame(1, 1)).message == "?" + "é" * (MESSAGE_CHARS_MAX - 1)


def test_bytes_that_are_no_attempt_are_refused():
    (reject,) = Engine().hear(Frame(Kind.OPEN, 1, 1, b"\x01"))
    assert (reject.code, reject.retryable) == ("malformed", False)


def test_the_whole_context_can_be_used_and_no_more():
    engine = Engine()
    engine.open(ask("x" * 250, max_tokens=6))
    engine.open(ask("x" * 255, max_tokens=None), 2)
    engine.run()
    assert [f.position for f in (*engine.verbs(Finish), *engine.verbs(Finish, 2))] == [6, 1]


def test_a_full_queue_is_busy_and_says_when_to_come_back():
    engine = Engine(limits=Limits(running_max=1, waiting_max=2))
    engine.open(ask(), 1)
    engine.step()
    engine.open(ask(), 2)
    engine.open(ask(), 3)
    (reject,) = engine.open(ask(), 4)
    assert (reject.code, reject.retryable) == ("busy", True)
    assert reject.retry_after_ms >= 100
    engine.run()
    assert engine.text(3) == expected_text("hello", 7, 20)


def test_time_that_is_over_ends_it():
    engine = Engine()
    engine.open(ask(remaining_ms=50, max_tokens=200), 1)
    engine.open(ask(max_tokens=10), 2)
    engine.run()
    (reject,) = engine.verbs(Reject)
    assert (reject.code, reject.retryable) == ("deadline_exceeded", False)
    assert len(engine.ids()) == 5
    assert len(engine.ids(2)) == 10


def test_what_cannot_begin_in_time_is_refused_at_once_with_the_figures():
    engine = Engine(ToyRunner(blocks=256, block_tokens=4, context_max=512), limits=Limits(step_tokens=64))
    engine.open(ask("x" * 400, max_tokens=1), 1)
    while engine.step(cost_s=0.5):
        pass
    engine.open(ask("y" * 400, max_tokens=5), 2)
    blocks = engine.core.scheduler.blocks.available
    (reject,) = engine.open(ask("z" * 100, max_tokens=5, remaining_ms=2000), 3)
    assert (reject.code, reject.retryable) == ("deadline_exceeded", True)
    assert "2000` ms are left" in reject.message
    assert engine.core.scheduler.blocks.available == blocks
    (accept,) = engine.open(ask("z" * 100, max_tokens=5, remaining_ms=60_000), 4)
    assert isinstance(accept, Accept)
    engine.run()


def test_short_prompts_say_nothing_of_how_fast_a_long_one_would_be():
    engine = Engine()
    for flight in range(1, 9):
        engine.open(ask("x", max_tokens=1), flight)
        engine.step(cost_s=1.0)
    (accept,) = engine.open(ask("y" * 200, remaining_ms=5000), 9)
    assert isinstance(accept, Accept)


def test_before_any_speed_is_known_no_deadline_is_refused():
    (accept,) = Engine().open(ask(remaining_ms=1))
    assert isinstance(accept, Accept)


def test_what_a_deadline_ends_in_the_queue_leaves_it_at_the_next_step():
    engine = Engine(limits=Limits(running_max=1))
    engine.open(ask(max_tokens=100), 1)
    engine.open(ask(remaining_ms=55), 2)
    while not engine.verbs(Reject, 2):
        engine.step()
    assert engine.now == pytest.approx(0.07)
    assert engine.core.scheduler.load == (0, 1)
    engine.run()


def test_long_prefills_tell_how_far_they_are():
    engine = Engine(limits=Limits(step_tokens=16))
    engine.open(ask("x" * 40, max_tokens=1))
    engine.run()
    assert engine.verbs(Progress) == [Progress(16, 40), Progress(32, 40)]


def test_a_step_is_named_when_others_are_in_it():
    engine = Engine()
    engine.open(ask(max_tokens=5), 11)
    engine.step()
    engine.step()
    engine.open(ask(max_tokens=1), 12)
    engine.run()
    assert [step.tickets for step in engine.verbs(Step, 0)] == [(11,), (11, 12), (11,)]


def test_a_suspect_is_named_alone():
    engine = Engine()
    engine.open(ask(max_tokens=40), 11)
    engine.open(ask(max_tokens=40, alone=True), 12)
    engine.run()
    steps = [step.tickets for step in engine.verbs(Step, 0)]
    together = steps.index((11, 12))
    assert steps[:together] == ([(12,), (11,)] * PROBATION_TOKENS)[:-1]


def test_load_is_told_when_it_changes_and_every_second():
    engine = Engine()
    engine.open(ask(max_tokens=100))
    while engine.step(cost_s=0.1):
        pass
    statuses = engine.verbs(Status, 0)
    assert [(s.waiting, s.running) for s in statuses[:2]] == [(1, 0), (0, 1)]
    assert (statuses[-1].waiting, statuses[-1].running) == (0, 0)
    assert statuses[-1].queued_tokens == 0
    assert len(statuses) >= 100 * 0.1 / STATUS_INTERVAL_S
    assert statuses[-1].decode_tokens_per_s == pytest.approx(10)


def test_queued_tokens_count_prompts_and_bounded_outputs():
    engine = Engine()
    engine.open(ask("12345", max_tokens=7), 1)
    engine.open(ask("12345", max_tokens=None), 2)
    assert engine.core.queued_tokens == 5 + 7 + 5


def test_a_slow_device_gets_smaller_chunks():
    engine = Engine(ToyRunner(blocks=256, block_tokens=4, context_max=1024), step_s_max=0.25)
    engine.open(ask("x" * 900, max_tokens=1))
    engine.step(cost_s=2.0)
    assert engine.core.scheduler.step_tokens == 32


def test_chunks_leave_room_for_the_time_that_decoding_takes():
    engine = Engine(ToyRunner(blocks=256, block_tokens=4, context_max=1024), step_s_max=0.25)
    engine.open(ask("x", max_tokens=100))
    for _ in range(5):
        engine.step(cost_s=0.15)
    engine.open(ask("x" * 900, max_tokens=1), 2)
    engine.step(cost_s=0.15 + 1.0)
    tokens = 255 / 1.0 * (0.25 - 0.15)
    assert engine.core.scheduler.step_tokens == pytest.approx(tokens + 1, abs=2)


def test_a_sequence_that_spoils_a_step_is_given_up_and_the_others_go_on():
    engine = Engine()
    engine.open(ask(), 1)
    engine.open(ask(), 2)
    plan, _ = engine.core.plan(0.0)
    engine.note(engine.core.fail(0.0, plan, plan.rows[0].sequence, "not finite"))
    (reject,) = engine.verbs(Reject, 1)
    assert (reject.crashed, reject.alone, reject.retryable) == (True, False, True)
    engine.run()
    assert engine.text(2) == expected_text("hello", 7, 20)


def test_an_echo_is_answered():
    engine = Engine()
    engine.hear(Ping(77).frame())
    assert engine.said == [(0, 0, Pong(77))]
