"""Whom a router trusts: echoes lift, flapping costs more each time, a pause in pieces costs little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.trust import PAST_MAX, Trust, TrustOptions

OPTIONS = TrustOptions()
PEERS = 10


def outage(trust, at, lasts_s, node="a"):
    """Lose a peer for some seconds; return when it was trusted again, asked ten times a second."""
    trust.lose(at, node, "no answer")
    now = at + lasts_s
    while not trust.echoed(now, node, PEERS):
        now += 0.1
    return now


def test_the_first_echo_lifts_the_first_quarantine():
    trust = Trust()
    assert trust.lose(0.0, "a", "no answer")
    assert not trust.lose(1.0, "a", "again"), "it was not trusted"
    assert "a" in trust
    assert trust.echoed(5.0, "a", PEERS)
    assert trust.lost == ()
    assert not trust.echoed(6.0, "a", PEERS), "nothing to lift"


def test_each_further_outage_costs_twice_the_last():
    trust, at, waits = Trust(), 0.0, []
    for _ in range(8):
        back = outage(trust, at, 20.0)
        waits.append(back - at - 20.0)
        at = back + 20.0
    assert waits[0] == 0.0
    assert waits[1:] == pytest.approx([30, 60, 120, 240, 480, 600, 600], abs=0.2)


def test_one_that_is_cut_off_every_twenty_seconds_is_lost_once_not_for_ever():
    trust, lifts = Trust(), 0
    for tenth in range(36_000):
        now = tenth / 10
        if now % 40 < 20:
            trust.lose(now, "a", "no answer")
        else:
            lifts += trust.echoed(now, "a", PEERS)
    assert lifts == 1


def test_a_pause_in_seven_pieces_is_one_outage_and_soon_over():
    trust, at = Trust(), 0.0
    for _ in range(7):
        trust.lose(at, "a", "no answer")
        trust.echoed(at + 16.4, "a", PEERS)
        at += 16.464
    assert outage(trust, at, 16.4) - at - 16.4 < 1.0


def test_a_link_that_is_replaced_at_once_is_no_outage():
    trust = Trust()
    for at in range(100):
        assert outage(trust, 10.0 * at, 0.01) == 10.0 * at + 0.01


def test_old_outages_are_forgotten():
    trust = Trust()
    outage(trust, 0.0, 20.0)
    at = 20.0 + OPTIONS.memory_s + 1
    assert outage(trust, at, 20.0) == at + 20.0


def test_a_failure_during_probation_begins_it_anew():
    trust = Trust()
    outage(trust, 0.0, 20.0)
    trust.lose(40.0, "a", "no answer")
    assert not trust.echoed(50.0, "a", PEERS)
    assert trust.on_probation("a")
    trust.lose(75.0, "a", "no answer")
    assert not trust.on_probation("a")
    assert not trust.echoed(81.0, "a", PEERS)
    assert trust.echoed(111.0, "a", PEERS)


def test_nobody_is_on_probation_while_most_peers_are_lost():
    trust = Trust()
    outage(trust, 0.0, 20.0)
    for node in "abcdef":
        trust.lose(40.0, node, "no answer")
    assert trust.echoed(41.0, "a", PEERS)


def test_death_ends_an_outage_and_return_from_it_is_a_flap_like_any_other():
    trust = Trust()
    trust.lose(0.0, "a", "no answer")
    trust.died(2.0, "a")
    assert not trust.returned(20.0, "a"), "the first time is forgiven"
    trust.lose(40.0, "a", "no answer")
    trust.died(42.0, "a")
    assert trust.returned(60.0, "a")
    assert not trust.echoed(60.1, "a", PEERS)
    assert trust.echoed(90.2, "a", PEERS)


def test_a_new_life_begins_with_a_clean_slate():
    trust = Trust()
    outage(trust, 0.0, 20.0)
    trust.lose(40.0, "a", "no answer")
    trust.forget("a")
    assert outage(trust, 41.0, 20.0) == 61.0


def test_the_memory_is_bounded():
    trust = Trust()
    for index in range(PAST_MAX + 50):
        outage(trust, float(index), 1.0, str(index))
    assert len(trust._past) == PAST_MAX


@given(
    st.lists(st.tuples(st.sampled_from(["lose", "echo", "die", "return"]), st.floats(0, 100)), max_size=60)
)
def test_who_is_not_lost_again_is_trusted_in_the_end(events):
    trust, now = Trust(), 0.0
    for event, wait_s in events:
        now += wait_s
        match event:
            case "lose":
                trust.lose(now, "a", "no answer")
            case "echo":
                trust.echoed(now, "a", PEERS)
            case "die":
                trust.died(now, "a")
            case "return":
                trust.returned(now, "a")
    assert "a" not in trust or not trust.echoed(now, "a", PEERS) or "a" not in trust
    trust.echoed(now + OPTIONS.probation_max_s + 1, "a", PEERS)
    trust.echoed(now + 2 * OPTIONS.probation_max_s + 2, "a", PEERS)
    assert "a" not in trust


def test_an_outage_that_ends_in_death_counts_however_short():
    trust = Trust(TrustOptions())
    trust.lose(0.0, "a", "no answer")
    trust.died(0.3, "a")
    assert not trust.returned(20.0, "a"), "the first costs nothing"
    trust.lose(40.0, "a", "no answer")
    trust.died(40.3, "a")
    assert trust.returned(60.0, "a"), "the second does"


def test_one_that_dies_and_returns_for_a_moment_again_and_again_is_trusted_soon_after_the_last():
    """A quarter of the nodes stopped for 16.4 s, seven times, 64 ms apart: one outage, not seven."""
    trust, now = Trust(), 100.0
    for _ in range(7):
        trust.lose(now + 0.7, "n", "no answer")
        trust.died(now + 1.2, "n")
        now += 16.4
        trust.returned(now, "n")
        now += 0.064
    trust.echoed(now, "n", 9)
    assert trust.echoed(now + TrustOptions().relapse_probation_s, "n", 9) or "n" not in trust


def test_one_that_dies_and_returns_and_stays_a_while_each_time_is_kept_out_for_longer_and_longer():
    trust, now, sentences = Trust(), 100.0, []
    for _ in range(4):
        trust.lose(now + 0.7, "n", "no answer")
        trust.died(now + 1.2, "n")
        trust.returned(now + 20.0, "n")
        trust.echoed(now + 20.0, "n", 9)
        sentences.append(trust.probation_s("n"))
        now += 40.0
    assert sentences == sorted(sentences)
    assert sentences[-1] >= TrustOptions().probation_s
