from hypothesis import given
from hypothesis import strategies as st

from mesh.health import LocalHealth, pause_s


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
