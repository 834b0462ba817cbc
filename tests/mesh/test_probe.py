import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity
from mesh.probe import Phase, Probe, RoundTrip, timeout_s

TARGET = Identity("00000000000000ab", 1, 2)


def a_round(started_at=100.0):
    return Probe(TARGET, 77, started_at, timeout_s=0.1, verdict_s=0.4)


def test_a_round_asks_directly_then_around_and_then_fails():
    probe = a_round()
    assert probe.deadline_at == pytest.approx(100.1)
    assert probe.timed_out(None) is Phase.INDIRECT
    assert probe.deadline_at == pytest.approx(100.4)
    assert probe.timed_out(None) is Phase.FAILED
    assert probe.is_over


@pytest.mark.parametrize("timeouts", [0, 1])
def test_an_ack_of_the_target_answers_the_round_in_either_phase(timeouts):
    probe = a_round()
    for _ in range(timeouts):
        probe.timed_out(None)
    assert probe.acked(TARGET.node)
    assert probe.phase is Phase.ECHOED
    assert not probe.acked(TARGET.node), "once"


def test_only_the_target_and_the_helpers_that_were_asked_may_answer():
    probe = a_round()
    probe.timed_out(None)
    probe.helpers = ("h1",)
    assert not probe.acked("h2")
    assert probe.acked("h1")


def test_a_round_that_has_failed_cannot_be_answered():
    probe = a_round()
    probe.timed_out(None)
    probe.timed_out(None)
    assert not probe.acked(TARGET.node)
    assert probe.phase is Phase.FAILED


def test_whoever_was_heard_during_the_round_is_spared_but_has_not_answered():
    probe = a_round()
    assert probe.timed_out(heard_at=100.05) is Phase.INDIRECT, "it is asked all the same"
    assert probe.timed_out(heard_at=100.2) is Phase.SPARED
    late = a_round()
    late.timed_out(None)
    assert late.timed_out(heard_at=99.0) is Phase.FAILED, "before the round does not count"


def test_a_helpers_word_spares_the_target_and_the_round_waits_for_an_echo():
    probe = a_round()
    probe.timed_out(None)
    probe.helpers = ("h1",)
    assert not probe.acked("h1", echo_needed=True)
    assert probe.phase is Phase.VOUCHED
    assert probe.acked(TARGET.node, echo_needed=True)
    assert probe.phase is Phase.ECHOED
    silent = a_round()
    silent.timed_out(None)
    silent.helpers = ("h1",)
    silent.acked("h1", echo_needed=True)
    assert silent.timed_out(None) is Phase.SPARED


@given(asks=st.integers(1, 20), verdict_s=st.floats(0.1, 5.0))
def test_a_round_asks_as_often_as_it_may_and_ends_by_its_verdict(asks, verdict_s):
    probe = Probe(TARGET, 77, 100.0, timeout_s=0.1, verdict_s=verdict_s, asks=asks)
    times = []
    while not probe.is_over:
        times.append(probe.deadline_at)
        probe.timed_out(None)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(100.0 + verdict_s)
    assert len(times) - 1 <= asks
    assert probe.asked <= asks


def test_who_insists_gets_a_round_that_lasts_from_now():
    probe = a_round()
    probe.timed_out(None)
    probe.insist(100.3, asks=3, verdict_s=0.5)
    assert probe.deadline_at == pytest.approx(100.4)
    probe.timed_out(None)
    probe.timed_out(None)
    assert probe.asked == 3
    assert probe.deadline_at == pytest.approx(100.8)


def test_nacks_count_once_per_helper_that_was_asked():
    probe = a_round()
    probe.helpers = ("h1", "h2")
    for source in ("h1", "h1", "stranger"):
        probe.nacked(source)
    assert probe.nackers == ("h1",)


def test_a_pause_of_ours_costs_the_target_no_time_and_measures_nothing():
    probe = a_round()
    probe.forgive(10.0)
    assert probe.deadline_at == pytest.approx(110.1)
    assert probe.round_trip_s(110.05, TARGET.node, reliable=False) is None


@given(gap_s=st.floats(0.0, 1e6))
def test_what_is_forgiven_makes_no_ping_later_than_it_was(gap_s):
    probe = a_round(started_at=100.0)
    probe.forgive(gap_s)
    assert probe.sent_at == 100.0, "an echo of it proves that we hear as of then, not as of the pause"


def test_only_a_direct_datagram_measures_the_round_trip():
    probe = a_round()
    assert probe.round_trip_s(100.02, TARGET.node, reliable=False) == pytest.approx(0.02)
    assert probe.round_trip_s(100.02, TARGET.node, reliable=True) is None
    assert probe.round_trip_s(100.02, "h1", reliable=False) is None


def test_the_estimate_is_jacobsons():
    """RFC 6298, section 2: first SRTT = R, RTTVAR = R/2; then gains 1/8 and 1/4."""
    first = RoundTrip.first(0.1)
    assert (first.smoothed_s, first.variation_s) == (0.1, 0.05)
    second = first.observe(0.2)
    assert second.smoothed_s == pytest.approx(0.1125)
    assert second.variation_s == pytest.approx(0.0625)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_patience_stays_within_its_bounds_whatever_is_measured(samples):
    estimate = RoundTrip.first(samples[0])
    for sample in samples[1:]:
        estimate = estimate.observe(sample)
        assert min(samples) - 1e-9 <= estimate.smoothed_s <= max(samples) + 1e-9
    assert 0.02 <= timeout_s(estimate, 0.2, 0.02, 1.0) <= 1.0
    assert timeout_s(None, 0.2, 0.02, 1.0) == 0.2
