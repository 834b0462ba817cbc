"""How old what is read may be, held against a queue that is worked off by a driver with a bound."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.backlog import LATE_S, Backlog

DRAIN_MAX = 8

# Who is on time drains all: the bound is far above what comes to a process that keeps up.
step = st.tuples(st.floats(0.0, 0.3), st.integers(0, 2 * DRAIN_MAX), st.floats(0.0, 0.2))
"""Time until the timers are next looked at, inputs that come meanwhile, and what each takes."""


@given(st.lists(step, max_size=40))
def test_nothing_is_older_than_is_said_while_a_tick_leaves_no_more_than_the_bound_behind(steps):
    backlog, queue, now_s, due_s = Backlog(), deque(), 0.0, 0.05
    backlog.ran(now_s, 0.0)
    for wait_s, arrivals, cost_s in steps:
        room = max(0, 2 * DRAIN_MAX - len(queue))
        queue.extend(now_s + wait_s * turn / (2 * DRAIN_MAX) for turn in range(min(room, arrivals)))
        now_s = max(now_s, due_s if not queue else now_s + wait_s)
        drained = 0
        while queue and (drained < DRAIN_MAX or now_s - due_s <= LATE_S):
            came_s, drained = queue.popleft(), drained + 1
            backlog.ran(now_s, max(0.0, now_s - due_s))
            told_s = backlog.waited_s(now_s)
            assert told_s >= now_s - came_s - 1e-9 or now_s - due_s <= LATE_S, "or it is not late at all"
            now_s += cost_s
        if now_s >= due_s:
            backlog.ran(now_s, now_s - due_s)
            backlog.ticked(now_s)
            due_s = now_s + 0.05


def test_who_is_on_time_reads_what_has_just_come():
    backlog = Backlog()
    backlog.ran(1.0, 0.0)
    backlog.ran(1.5, LATE_S)
    assert backlog.waited_s(1.5) == 0.0
    backlog.ticked(1.5)
    backlog.ran(1.6, 0.0)
    assert backlog.waited_s(1.6) == 0.0


def test_what_a_late_tick_leaves_behind_came_since_the_tick_before_it():
    backlog = Backlog()
    backlog.ran(1.0, 0.0)
    backlog.ticked(2.0)
    backlog.ran(5.0, 1.0)
    backlog.ticked(5.0)
    assert backlog.waited_s(5.5) == 3.5
    backlog.ran(6.0, 0.0)
    backlog.ticked(6.0)
    assert backlog.waited_s(6.0) == 0.0


def test_a_tick_that_only_seems_on_time_since_deadlines_were_shifted_leaves_old_input_behind():
    backlog = Backlog()
    backlog.ran(1.0, 0.0)
    backlog.ticked(2.0)
    backlog.ran(9.0, 6.0)
    backlog.ran(9.001, 0.0)
    backlog.ticked(9.001)
    assert backlog.waited_s(9.002) == pytest.approx(7.002)
    backlog.ran(9.05, 0.0)
    backlog.ticked(9.05)
    assert backlog.waited_s(9.06) == 0.0
