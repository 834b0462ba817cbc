from hypothesis import given
from hypothesis import strategies as st

from mesh.health import ANNOUNCE_S, Announcements, LocalHealth, pause_s


@given(st.lists(st.sampled_from(["answered", "alone", "missing", "nacked", "refuted"]), max_size=60))
def test_the_score_stays_within_its_bounds(events):
    health = LocalHealth(8)
    for event in events:
        before = health.score
        match event:
            case "answered":
                health.round_answered()
            case "alone":
                health.round_failed(0, 0)
            case "missing":
                health.round_failed(3, 2)
            case "nacked":
                health.round_failed(3, 3)
            case "refuted":
                health.refuted()
        moves = {"answered": -1, "alone": 1, "missing": 1, "nacked": 0, "refuted": 1}
        assert health.score == min(8, max(0, before + moves[event]))
        assert health.multiplier == health.score + 1


def test_only_a_late_wake_up_is_a_pause():
    assert pause_s(None, 100.0, 0.5) == 0.0
    assert pause_s(100.0, 99.0, 0.5) == 0.0
    assert pause_s(100.0, 100.5, 0.5) == 0.0
    assert pause_s(100.0, 103.0, 0.5) == 3.0


@given(
    st.lists(st.floats(0.01, 30.0), min_size=1, max_size=50),
    st.integers(1, 10_000),
)
def test_announcements_of_a_mesh_are_bounded_whatever_its_size(gaps: list[float], live: int):
    turns, now_s, told = Announcements(), 0.0, 0
    for gap_s in gaps:
        now_s += gap_s
        told += turns.take(now_s, live)
    assert told >= 1, "the first is never withheld"
    assert (told - 1) * ANNOUNCE_S * max(1.0, live / 8) <= sum(gaps)
