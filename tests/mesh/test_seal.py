"""Sealed datagrams as conversations between two nodes in memory."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mesh import seal as sealing
from mesh.codec import DATAGRAM_BYTES_MAX, PACKET_BYTES_MAX
from mesh.cookie import LIFE_MAX_S
from mesh.envelope import ANSWER_BYTES_MIN
from mesh.keyring import Keyring, MeshKey
from mesh.now import Now
from mesh.seal import Seal, SealOptions
from mesh.sessions import FORGET_S, IDLE_S
from tests.mesh.sealed_pair import Talk, acquainted, kinds, ring, secret


def rejected(party) -> dict[str, int]:
    return dict(party.seal.statistics.rejected)


# -- getting to know each other --------------------------------------------------------------------


def test_the_first_packet_arrives_after_a_knock_and_a_challenge():
    talk = Talk()
    talk.add("a")
    b = talk.add("b")
    talk.say("a", b.address, b"hello")
    assert kinds(talk.wire) == ["KNOCK", "CHALLENGE", "ADMIT"]
    assert b.got == [(b"hello", talk.parties["a"].address)]


def test_once_acquainted_both_ways_cost_one_datagram():
    talk, a, b = acquainted()
    before = len(talk.wire)
    talk.say("a", b.address, b"one")
    talk.say("b", a.address, b"two")
    assert kinds(talk.wire[before:]) == ["DATA", "DATA"]


def test_sealing_adds_thirty_bytes_and_never_passes_the_datagram_limit():
    talk, _, b = acquainted()
    text = b"x" * (PACKET_BYTES_MAX - 2)
    (data,) = talk.post("a", b.address, text)
    assert len(data) == len(text) + 2 + 30
    talk.forget()
    talk.add("c")
    talk.say("c", b.address, text)
    assert kinds(talk.wire[-1:]) == ["ADMIT"] and len(talk.wire[-1][2]) == DATAGRAM_BYTES_MAX


def test_what_is_said_cannot_be_read_on_the_wire():
    talk, _, b = acquainted()
    talk.say("a", b.address, b"a secret that nobody sees")
    assert all(b"a secret that nobody sees" not in data for _, _, data in talk.wire)


def test_packets_wait_for_the_session_of_their_receiver_the_newest_kept():
    talk = Talk()
    a, b = talk.add("a"), talk.add("b")
    for number in range(sealing.WAITING_PACKETS + 3):
        talk.post("a", b.address, bytes([number]))
    talk.carry()
    assert [text for text, _ in b.got] == [bytes([n]) for n in range(3, sealing.WAITING_PACKETS + 3)]
    assert a.seal.statistics.unsent == 3


def test_a_packet_that_waited_too_long_is_dropped():
    talk = Talk()
    a, b = talk.add("a"), talk.add("b")
    talk.post("a", b.address, b"old")
    talk.forget()
    talk.mono += sealing.WAITING_S + 0.1
    talk.say("a", b.address, b"new")
    assert [text for text, _ in b.got] == [b"new"]
    assert a.seal.statistics.unsent == 1


def test_an_address_that_does_not_answer_is_knocked_at_in_moderation():
    talk = Talk()
    a = talk.add("a")
    for _ in range(100):
        talk.post("a", ("10.9.9.9", 1), b"?")
        talk.mono += 0.01
    assert 5 <= a.seal.statistics.knocked <= 6


def test_both_may_knock_at_once():
    talk = Talk()
    a, b = talk.add("a"), talk.add("b")
    talk.post("a", b.address, b"from a")
    talk.post("b", a.address, b"from b")
    talk.carry()
    assert [text for text, _ in a.got] == [b"from b"]
    assert [text for text, _ in b.got] == [b"from a"]


# -- restarts, forgetting, moving ------------------------------------------------------------------


def test_a_restarted_receiver_gets_the_packet_it_could_not_open():
    talk, _, b = acquainted()
    b.seal = Talk().add("b", seed=77).seal
    b.got.clear()
    talk.say("a", b.address, b"again, please, to your new life: 56 bytes make an answer")
    assert [text for text, _ in b.got] == [b"again, please, to your new life: 56 bytes make an answer"]


def test_a_restarted_sender_is_met_as_a_new_session():
    talk, a, b = acquainted()
    a.seal = Talk().add("a", seed=78).seal
    talk.say("a", b.address, b"reborn")
    assert b.got[-1] == (b"reborn", a.address)
    before = len(talk.wire)
    talk.say("b", a.address, b"welcome")
    assert a.got[-1] == (b"welcome", b.address)
    assert kinds(talk.wire[before:]) == ["DATA"]


def test_a_recorded_packet_opens_in_no_later_life():
    talk, a, b = acquainted()
    talk.say("a", b.address, b"once")
    recorded = [data for source, to, data in talk.wire if to == b.address]
    b.seal = Talk().add("b", seed=79).seal
    b.got.clear()
    for data in recorded:
        talk.deliver(a.address, b.address, data)
    assert b.got == []


def test_silence_is_answered_by_a_knock():
    talk, _, b = acquainted()
    for _ in range(sealing.REKNOCK_PACKETS - 1):
        talk.post("a", b.address, b"?")
    talk.forget()
    talk.mono += sealing.REKNOCK_S + 0.1
    before = len(talk.wire)
    talk.say("a", b.address, b"??")
    assert kinds(talk.wire[before:]) == ["DATA", "KNOCK", "CHALLENGE"]


def test_an_answer_that_nobody_answers_is_no_silence():
    talk, _, b = acquainted()
    for _ in range(20):
        talk.mono += 10 * sealing.REKNOCK_S
        talk.say("b", talk.parties["a"].address, b"ping")
        before = len(talk.wire)
        talk.say("a", b.address, b"ack")
        assert kinds(talk.wire[before:]) == ["DATA"]


def test_a_forgotten_session_comes_back_and_its_old_packets_do_not():
    talk, a, b = acquainted()
    recorded = [data for source, to, data in talk.wire if to == b.address]
    talk.mono += FORGET_S + 1
    talk.add("c")
    talk.say("c", b.address, b"make room")
    assert len(b.seal) == 1
    b.got.clear()
    talk.say("a", b.address, b"remember me? this needs some bytes so that it is answered")
    assert len(b.got) == 1
    for data in recorded:
        talk.deliver(a.address, b.address, data)
    assert len(b.got) == 1


def test_a_full_table_forgets_the_idle_and_refuses_newcomers_before_the_living(monkeypatch):
    monkeypatch.setattr("mesh.sessions.SESSIONS_MAX", 2)
    talk = Talk()
    b = talk.add("b")
    for name in ("c", "d", "e"):
        talk.add(name)
        talk.say(name, b.address, b"hello")
    assert len(b.seal) == 2 and len(b.got) == 2
    assert rejected(b) == {"full": 1}
    talk.mono += IDLE_S + 1
    talk.say("d", b.address, b"still here")
    talk.say("e", b.address, b"and may I come in at last?")
    assert [text for text, _ in b.got[2:]] == [b"still here", b"and may I come in at last?"]
    assert len(b.seal) == 2


def test_a_cookie_dies_before_a_session_may_be_forgotten():
    assert LIFE_MAX_S < IDLE_S


def test_a_packet_from_a_new_address_is_answered_at_the_old_one_until_it_is_proved():
    talk, a, b = acquainted()
    old, a.address = a.address, ("192.0.2.7", 4000)
    (data,) = talk.post("a", b.address, b"I have moved to another place")
    talk.forget()
    (challenge,) = talk.deliver(a.address, b.address, data)
    assert b.got[-1] == (b"I have moved to another place", old)
    assert talk.wire[-1][1] == a.address and len(challenge) <= len(data)
    talk.carry()
    talk.say("a", b.address, b"and I live here")
    assert b.got[-1] == (b"and I live here", a.address)


def test_who_copies_a_packet_from_elsewhere_does_not_turn_the_answers_to_itself():
    talk, a, b = acquainted()
    thief = ("198.51.100.66", 666)
    (data,) = talk.post("a", b.address, b"mine")
    talk.deliver(thief, b.address, data)
    assert b.got[-1] == (b"mine", a.address)
    talk.forget()
    talk.say("a", b.address, b"still mine")
    assert b.got[-1] == (b"still mine", a.address)
    assert b.seal.send(talk.now(), thief, b"\1\0x")[0].data[10] >> 6 == 2  # a knock: nobody is known there


def test_packets_that_were_sent_after_a_knock_open_in_any_order():
    talk = Talk()
    a, b = talk.add("a"), talk.add("b")
    for number in range(sealing.WAITING_PACKETS):
        talk.post("a", b.address, bytes([number]))
    knock = talk.wire[0][2]
    (challenge,) = talk.deliver(a.address, b.address, knock)
    admissions = talk.deliver(b.address, a.address, challenge)
    for data in reversed(admissions):
        talk.deliver(a.address, b.address, data)
    assert sorted(text for text, _ in b.got) == [bytes([n]) for n in range(sealing.WAITING_PACKETS)]


# -- rotation --------------------------------------------------------------------------------------


def test_keys_are_rotated_in_three_steps_and_every_packet_arrives():
    talk, a, b = acquainted(1)
    got = 0
    for keys in ((1, 2), (2, 1), (2,)):
        for name in ("a", "b"):
            talk.parties[name].seal.rekey(talk.now(), ring(*keys))
            for sender, receiver in (("a", b), ("b", a)):
                talk.say(sender, receiver.address, b"a packet that is long enough to be answered %d" % got)
                assert receiver.got[-1][0].endswith(b" %d" % got)
                got += 1
    assert rejected(a).keys() | rejected(b).keys() <= {"stranger"}
    assert talk.wire[-1][2][1] == 2


def test_a_key_that_was_taken_away_opens_nothing_more():
    talk, _, b = acquainted(1)
    b.seal.rekey(talk.now(), ring(2))
    b.got.clear()
    talk.say("a", b.address, b"with the old key")
    assert b.got == []
    assert rejected(b) == {"unknown_key": 1}


def test_a_session_is_drawn_anew_in_time_and_no_counter_is_used_twice(monkeypatch):
    monkeypatch.setattr(sealing, "SESSION_PACKETS_MAX", 20)
    talk, a, b = acquainted()
    for number in range(100):
        talk.say("a", b.address, b"packet %3d, long enough to be answered if it is strange" % number)
        talk.say("b", a.address, b"packet %3d, long enough to be answered if it is strange" % number)
    assert len({data[:10] for source, _, data in talk.wire if source == a.address}) > 4
    assert len({data[:16] for _, _, data in talk.wire}) == len(talk.wire)
    assert len(a.got) == len(b.got) == 101


# -- telling why -----------------------------------------------------------------------------------


def test_a_wrong_key_a_wrong_name_an_unknown_id_and_a_wrong_clock_are_told_apart():
    talk = Talk()
    b = talk.add("b", 1)
    talk.add("key", 1).seal = Seal(SealOptions(Keyring((MeshKey(1, secret(1001)),))), Random(5).randbytes)
    talk.add("label", 1, label="other")
    talk.add("id", 9)
    for name in ("key", "label", "id"):
        talk.say(name, b.address, b"let me in")
    assert rejected(b) == {"wrong_key": 1, "wrong_label": 1, "unknown_key": 1}
    assert [dict(report.fields)["reason"] for report in b.reports] == [
        "wrong_key",
        "wrong_label",
        "unknown_key",
    ]
    late = talk.add("late", 1)
    late_now = Now(talk.mono, talk.wall - 3600)
    talk.take(late, late.seal.send(late_now, b.address, b"\1\0hello"))
    talk.carry()
    assert rejected(b)["wrong_clock"] == 1
    assert dict(b.reports[-1].fields)["ahead_s"] == -3600
    assert b.got == [(b"hello", late.address)]


def test_the_same_refusal_is_reported_once_in_a_while():
    talk = Talk()
    b = talk.add("b")
    for _ in range(50):
        talk.deliver(("192.0.2.1", 1), b.address, bytes((1, 0)) + bytes(60))
    assert rejected(b) == {"clear": 50}
    assert len(b.reports) == 1


# -- laws ------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 2**46 - 1), st.integers(0, 300))
def test_whatever_comes_is_answered_by_fewer_bytes_or_none(tail, kind, counter, cut):
    talk, a, b = acquainted()
    talk.forget()
    header = b.seal._prefix[:2] + a.seal._session[:7] + b"?" + (kind << 46 | counter).to_bytes(6, "big")
    data = (header + tail)[: cut + 16]
    answers = talk.deliver(("192.0.2.1", 1), b.address, data)
    assert sum(map(len, answers)) <= len(data)
    assert len(b.got) == 1


@given(st.data())
def test_a_flipped_bit_or_a_lost_byte_opens_nothing(data):
    talk, a, b = acquainted()
    (sealed,) = talk.post("a", b.address, b"something that matters")
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    if data.draw(st.booleans()):
        spoiled = bytearray(sealed)
        spoiled[at // 8] ^= 1 << at % 8
        spoiled = bytes(spoiled)
    else:
        spoiled = sealed[: at // 8]
    talk.deliver(a.address, b.address, spoiled)
    assert len(b.got) == 1
    talk.deliver(a.address, b.address, sealed)
    assert b.got[-1][0] == b"something that matters"


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=20))
def test_each_packet_opens_once_in_any_order(order, again):
    talk, a, b = acquainted()
    sealed = [talk.post("a", b.address, bytes([n]))[0] for n in range(12)]
    for index in [*order, *again]:
        talk.deliver(a.address, b.address, sealed[index])
    assert sorted(text for text, _ in b.got[1:]) == [bytes([n]) for n in range(12)]
    assert rejected(b).get("replayed", 0) == len(again)


def test_a_packet_for_one_node_opens_at_no_other():
    talk, a, b = acquainted()
    c = talk.add("c")
    talk.say("a", c.address, b"you too")
    (sealed,) = talk.post("a", b.address, b"for b alone")
    talk.deliver(a.address, c.address, sealed)
    assert rejected(c) == {"forged": 1}
    assert [text for text, _ in c.got] == [b"you too"]


def test_a_replayed_knock_or_challenge_or_admission_changes_nothing():
    talk, a, b = acquainted()
    recorded = list(talk.wire)
    sizes = (len(a.seal), len(b.seal))
    for source, to, data in recorded * 3:
        for answer in talk.deliver(source, to, data):
            assert len(answer) <= ANSWER_BYTES_MIN
    talk.forget()
    assert (len(a.seal), len(b.seal)) == sizes
    assert len(a.got) == len(b.got) == 1


def test_a_flood_of_unknown_sessions_is_answered_within_a_budget_and_leaves_nothing():
    talk = Talk()
    b = talk.add("b")
    answers = 0
    for number in range(5000):
        data = bytes((1, 1)) + number.to_bytes(8, "big") + bytes(60)
        answers += len(talk.deliver(("192.0.2.1", number), b.address, data))
    assert answers == sealing.STRANGERS_PER_S
    assert len(b.seal) == 0
    talk.forget()
    talk.add("a")
    talk.say("a", b.address, b"a member comes in all the same")
    assert [text for text, _ in b.got] == [b"a member comes in all the same"]
