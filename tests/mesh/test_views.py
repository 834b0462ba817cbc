"""The view as applications follow it: a snapshot and the changes give what the core believes, in few steps."""

import random

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.agenda import Agenda
from mesh.effects import ViewMoved
from mesh.identity import Identity
from mesh.member import Liveness
from mesh.members import Members
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.views import KEPT, LONGEST_S, QUIET_S, Views
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from tests.mesh.small_world import account

LOCAL = SwimOptions.local()


class Follower:
    """A table, its views, and somebody who follows them."""

    def __init__(self):
        self.members = Members(account(1), random.Random(1))
        self.agenda = Agenda()
        self.views = Views(self.members, self.agenda)
        self.now = 0.0
        first = self.views.snapshot(Now(0.0, 0.0))
        self.number, self.rows = first.number, {row.node: row for row in first.members}
        self.told = []

    def apply(self, row):
        change = self.members.apply(row, self.now)
        if change is not None:
            self.views.note(Now(self.now, 0.0), change.before, change.after)

    def wait(self, seconds):
        end = self.now + seconds
        while (due_at := self.agenda.next_deadline()) is not None and due_at <= end:
            self.now = due_at
            for _ in self.agenda.due(self.now):
                if self.views.due(Now(self.now, 0.0)) is not None:
                    self.told.append(self.now)
        self.now = end

    def catch_up(self):
        for change in self.views.since(self.number):
            assert change.number == self.number + 1
            self.number = change.number
            for row in change.members:
                self.rows[row.node] = row

    def live(self):
        return {node: (row.identity.generation, row.zone) for node, row in self.rows.items() if row.is_live}


def row(index, generation, incarnation, liveness, zone):
    plain = account(index)
    identity = Identity(plain.node, generation, incarnation)
    return attrs.evolve(plain, identity=identity, liveness=liveness, zone=zone)


ROWS = st.builds(
    row,
    st.integers(2, 6),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(Liveness),
    st.sampled_from("ab"),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 0.7), ROWS), max_size=40))
def test_a_snapshot_and_all_changes_give_the_view_that_the_table_holds(steps):
    follower = Follower()
    for wait_s, one in steps:
        follower.wait(wait_s)
        follower.catch_up()
        follower.apply(one)
    follower.wait(LONGEST_S)
    follower.catch_up()
    held = {one.node: (one.identity.generation, one.zone) for one in follower.members.all() if one.is_live}
    assert follower.live() == held


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 0.3), ROWS), max_size=60))
def test_changes_are_told_at_least_a_quiet_time_apart_and_at_most_the_longest_time_late(steps):
    follower = Follower()
    for wait_s, one in steps:
        follower.apply(one)
        begun = follower.agenda.next_deadline()
        assert begun is None or begun <= follower.now + LONGEST_S
        follower.wait(wait_s)
    gaps = [after - before for before, after in zip(follower.told, follower.told[1:], strict=False)]
    assert all(gap >= QUIET_S - 1e-9 for gap in gaps)


def test_what_is_undone_at_once_is_not_told():
    follower = Follower()
    follower.apply(row(2, 1, 0, Liveness.ALIVE, "a"))
    follower.wait(1.0)
    assert follower.told
    follower.told.clear()
    follower.apply(row(2, 1, 0, Liveness.SUSPECT, "a"))
    follower.apply(row(2, 1, 0, Liveness.DEAD, "a"))
    follower.apply(row(2, 1, 1, Liveness.ALIVE, "a"))
    follower.wait(2.0)
    assert not follower.told


def test_a_doubt_alone_is_no_change():
    follower = Follower()
    follower.apply(row(2, 1, 0, Liveness.ALIVE, "a"))
    follower.wait(1.0)
    follower.apply(row(2, 1, 0, Liveness.SUSPECT, "a"))
    assert follower.agenda.next_deadline() is None
    assert follower.views.snapshot(Now(follower.now, 0.0)).members[1].liveness is Liveness.ALIVE


def test_who_falls_too_far_behind_is_sent_back_to_a_snapshot():
    follower = Follower()
    for generation in range(1, KEPT + 10):
        follower.apply(row(2, generation, 0, Liveness.ALIVE, "a"))
        follower.wait(1.0)
    assert follower.views.since(0) is None
    assert len(follower.views.since(follower.views.number - KEPT)) == KEPT
    assert follower.views.since(follower.views.number) == ()
    assert follower.views.since(follower.views.number + 1) is None


def test_a_burst_of_joins_is_a_few_views():
    crowd = Crowd(1, CrowdOptions(swim=LOCAL))
    crowd.start(1)
    for index in range(2, 65):
        crowd.at(index / 64, lambda index=index: crowd.start(index, seeds=[1]))
    crowd.run_for(4.0)
    assert crowd.converged()
    for index in (1, 5, 64):
        moves = [said for _, who, said in crowd.log if who == index and isinstance(said, ViewMoved)]
        assert 1 <= len(moves) <= 4


def test_everybody_is_asked_until_all_share_our_view():
    crowd = Crowd(2, CrowdOptions(swim=LOCAL))
    crowd.form(40)
    crowd.run_for(3.0)

    def unlike():
        peer = crowd[1]
        nodes, outputs = peer.core.ask_unlike(peer.now(crowd.time))
        crowd._carry_out(peer, outputs)
        return nodes

    assert len(unlike()) == 39
    for _ in range(3):
        crowd.run_for(0.1)
        left = unlike()
    assert left == []
    crowd.call(1, "update_me", zone="new")
    assert len(unlike()) == 39, "who agreed with an older view of ours has not agreed with this one"
    for _ in range(20):
        crowd.run_for(0.1)
        left = unlike()
    assert left == []
