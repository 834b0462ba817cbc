from hypothesis import given
from hypothesis import strategies as st

from mesh.replay import WINDOW, ReplayWindow

counters = st.lists(st.integers(0, 3 * WINDOW), max_size=200)


@given(st.integers(0, 10), counters)
def test_it_agrees_with_a_set_that_remembers_everything(start, counters):
    window, seen, top = ReplayWindow(start), set(range(start + 1)), start
    for counter in counters:
        fresh = counter not in seen and counter > top - WINDOW
        assert window.is_fresh(counter) == fresh
        if fresh:
            window.note(counter)
            seen.add(counter)
            top = max(top, counter)


def test_nothing_at_or_below_its_start_is_ever_fresh():
    window = ReplayWindow(5000)
    assert not any(window.is_fresh(counter) for counter in range(5001))


def test_a_packet_may_be_late_by_less_than_the_window():
    window = ReplayWindow(0)
    window.note(WINDOW)
    assert window.is_fresh(1)
    window.note(WINDOW + 1)
    assert not window.is_fresh(1) and window.is_fresh(2)


def test_a_leap_forgets_what_was_open():
    window = ReplayWindow(0)
    window.note(10**9)
    assert not window.is_fresh(10**9) and window.is_fresh(10**9 - 1)
    assert not window.is_fresh(10**9 - WINDOW)
