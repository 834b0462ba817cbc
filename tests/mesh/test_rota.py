"""Whose turn it is: everybody exactly once a period, whatever clocks and views may do short of that."""

import itertools
import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.effects import SendDatagram
from mesh.facts import MemberChanged, Quarantined
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.messages import Ping
from mesh.now import Now
from mesh.rota import Rota, moment, offset
from tests.mesh.small_world import LOCAL, World, account

PERIOD_S = LOCAL.probe_period_s
COUNTS = st.integers(2, 70)
PERIODS = st.integers(-(2**40), 2**40)


def probed(period, view):
    """Whom each member of a view probes, by id."""
    ranks = sorted(view)
    step = offset(period, len(ranks))
    return {node: ranks[(rank + step) % len(ranks)] for rank, node in enumerate(ranks)}


# The timetable.


@given(PERIODS, COUNTS)
def test_each_member_is_probed_exactly_once_a_period_and_never_by_itself(period, count):
    turns = probed(period, range(count))
    assert sorted(turns.values()) == list(range(count))
    assert all(prober != target for prober, target in turns.items())


@given(st.integers(-(2**30), 2**30), COUNTS)
def test_each_ordered_pair_has_its_turn_once_in_each_block(block, count):
    first = block * (count - 1)
    offsets = [offset(period, count) for period in range(first, first + count - 1)]
    assert sorted(offsets) == list(range(1, count))


@given(PERIODS, st.integers(3, 40))
def test_the_turns_of_one_pair_are_at_most_2n_minus_3_periods_apart(start, count):
    for wanted in (1, count - 1):
        at = [p for p in range(start, start + 6 * count) if offset(p, count) == wanted]
        assert max(b - a for a, b in itertools.pairwise(at)) <= 2 * count - 3


def test_the_offsets_of_successive_blocks_differ():
    blocks = {tuple(offset(b * 6 + k, 7) for k in range(6)) for b in range(40)}
    assert len(blocks) >= 8


@given(PERIODS, st.integers(3, 40), st.data())
def test_two_views_leave_few_unprobed_and_nobody_probed_thrice(period, count, data):
    """Some nodes have not heard yet that one member came (or went)."""
    newcomer = data.draw(st.integers(0, count - 1))
    unaware = data.draw(st.sets(st.sampled_from([n for n in range(count) if n != newcomer])))
    both = range(count)
    one, other = probed(period, both), probed(period, [n for n in both if n != newcomer])
    load = dict.fromkeys(both, 0)
    for node in both:
        load[other[node] if node in unaware else one[node]] += 1
    assert max(load.values()) <= 2
    assert sum(not times for times in load.values()) <= min(len(unaware), count - len(unaware))


@given(PERIODS, COUNTS)
def test_the_probes_of_a_period_are_spread_evenly_over_it(period, count):
    moments = [moment(period, rank, count) - period for rank in range(count)]
    assert all(0 < at < 1 for at in moments)
    assert all(b - a == pytest.approx(1 / count, abs=1e-3) for a, b in itertools.pairwise(moments))


# The turns of one node.


def rota(count, me=1):
    members = Members(account(me), random.Random(1))
    for index in range(1, count + 1):
        members.apply(account(index), 0.0)
    return Rota(LOCAL, members), members


def follow(turns, wall_at, until_s):
    """Take turns as the agenda would; return (monotonic moment, target) of each."""
    mono, taken = 0.0, []
    while mono < until_s:
        target, wait_s = turns.turn(Now(mono, wall_at(mono)))
        taken.append((mono, target.node if target is not None else None))
        assert 0.0 <= wait_s <= 2 * PERIOD_S
        mono += wait_s
    return taken


@given(st.integers(2, 12), st.floats(-1e9, 2e9))
def test_everybody_is_probed_by_us_within_two_blocks(count, epoch):
    turns, _ = rota(count)
    taken = follow(turns, lambda mono: epoch + mono, 6 * count * PERIOD_S)
    for index in range(2, count + 1):
        at = [when for when, node in taken if node == f"{index:016x}"]
        gaps = [b - a for a, b in itertools.pairwise(at)]
        assert at[0] <= 2 * count * PERIOD_S
        assert all(gap <= (2 * count - 2) * PERIOD_S + 1e-6 for gap in gaps)


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(-1e6, 1e6)), max_size=5))
def test_a_clock_that_is_set_neither_stops_nor_doubles_our_turns(jumps):
    """However often and far it is set: as many turns as periods, two more for each time at most."""
    turns, _ = rota(6)

    def wall_at(mono):
        return 1.7e9 + mono + sum(by for at, by in jumps if mono >= at)

    taken = follow(turns, wall_at, 60.0)
    due = 60.0 / PERIOD_S
    assert due - 2 * len(jumps) - 2 <= len(taken) <= due + 2 * len(jumps) + 2
    longest = max(b - a for (a, _), (b, _) in itertools.pairwise(taken))
    assert longest <= 2 * PERIOD_S


def test_a_late_timer_still_takes_the_turn_that_was_planned():
    turns, _ = rota(6)
    wall, period = 1.7e9 + 0.01, int(1.7e9 / PERIOD_S)
    turns.turn(Now(0.0, wall))
    expected = probed(period + 1, [f"{index:016x}" for index in range(1, 7)])[f"{1:016x}"]
    late = (period + 2) * PERIOD_S + 0.01
    target, wait_s = turns.turn(Now(late - wall, late))
    assert target.node == expected
    assert 0.0 <= wait_s <= PERIOD_S


@given(st.floats(0, 1), st.floats(-1, 1), st.integers(2, 9))
def test_a_clock_that_is_set_a_little_leaves_waits_within_their_bounds(phase, set_s, count):
    turns, _ = rota(count)
    wall = 1.7e9 + phase
    for step in range(4):
        _, wait_s = turns.turn(Now(step * 0.01, wall + step * (set_s + 0.01)))
        assert 0.0 <= wait_s <= 2 * PERIOD_S


def test_an_unhealthy_node_takes_fewer_turns():
    turns, _ = rota(6)
    _, wait_s = turns.turn(Now(0.0, 1.7e9), stretch=4)
    assert 3 * PERIOD_S <= wait_s <= 5 * PERIOD_S


def test_who_is_alone_has_nobody_to_probe():
    turns, members = rota(1)
    assert turns.turn(Now(0.0, 1.7e9)) == (None, PERIOD_S)
    members.apply(account(2), 0.0)
    assert turns.turn(Now(0.5, 1.7e9 + 0.5))[0].node == f"{2:016x}"


def test_ranks_follow_the_live_members_by_id():
    members = Members(account(5), random.Random(1))
    for index in (9, 2, 7):
        members.apply(account(index), 0.0)
    assert members.rank == 1
    assert [members.ranked(rank).name for rank in range(members.live)] == ["n2", "n5", "n7", "n9"]
    for gone in (2, 7):
        members.apply(
            Member(Identity(f"{gone:016x}", 1), f"n{gone}", ("127.0.0.1", 1), Liveness(gone % 3)), 0.0
        )
    assert members.rank == 0
    assert [members.ranked(rank).name for rank in range(members.live)] == ["n5", "n7", "n9"]


# The mesh.


class Watched(World):
    """A world which keeps the first ping of each round."""

    def __init__(self, *arguments, **keywords):
        self.pings = []
        super().__init__(*arguments, **keywords)
        self.crowd.taps.append(self._listen)

    def _listen(self, peer, outputs):
        for output in outputs:
            if isinstance(output, SendDatagram):
                message = codec.decode(output.data).message
                if isinstance(message, Ping):
                    self.pings.append((self.now, peer.address, message.target))


def watched(count, spread_s=0.0, seed=1, **options):
    world = Watched(count, seed=seed, options=attrs.evolve(LOCAL, **options))
    for index in range(1, count + 1):
        world.crowd[index].skew_s = world.rng.uniform(-spread_s, spread_s)
    world.run(10, until=world.converged)
    world.run(5)
    world.log.clear()
    world.pings.clear()
    return world


def gaps(world, count):
    """Seconds between the probes of each member, by whomever."""
    at = {f"{index:016x}": [] for index in range(1, count + 1)}
    for when, _, target in world.pings:
        at[target].append(when)
    return [b - a for times in at.values() for a, b in itertools.pairwise(times)]


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_each_member_is_probed_at_even_intervals_and_packets_do_not_burst(count):
    world = watched(count)
    world.run(20 * PERIOD_S)
    assert len(world.pings) == pytest.approx(20 * count, abs=count)
    assert gaps(world, count) == pytest.approx([PERIOD_S] * len(gaps(world, count)), abs=1e-3)
    between = [b[0] - a[0] for a, b in itertools.pairwise(world.pings)]
    assert between == pytest.approx([PERIOD_S / count] * len(between), abs=1e-3)


def test_clocks_half_a_period_apart_cost_one_period_of_patience():
    world = watched(8, spread_s=PERIOD_S / 2)
    world.run(40 * PERIOD_S)
    assert max(gaps(world, 8)) <= 2 * PERIOD_S + 1e-3


def test_clocks_hours_apart_cost_no_more_than_the_round_robin_does():
    mean_squares = []
    for shared in (True, False):
        world = watched(16, spread_s=7200.0, shared_probing=shared)
        world.run(200 * PERIOD_S)
        longest = max(gaps(world, 16))
        assert longest <= 31 * PERIOD_S, "nobody goes unprobed for 2n - 1 periods"
        mean_squares.append(sum(gap * gap for gap in gaps(world, 16)))
        assert len(world.pings) == pytest.approx(200 * 16, rel=0.01)
    assert mean_squares[0] <= 1.2 * mean_squares[1]


@pytest.mark.parametrize("jump_s", [-3600.0, -0.3, 0.3, 30.0])
def test_a_clock_that_is_set_in_a_running_mesh_troubles_nobody(jump_s):
    world = watched(6)
    world.run(3)
    for index in (1, 2):
        world.crowd[index].skew_s += jump_s
    world.run(20)
    assert max(gaps(world, 6)) <= 9 * PERIOD_S
    assert not world.facts(MemberChanged)


@pytest.mark.parametrize("seed", range(10))
def test_an_idle_crash_is_noticed_within_one_period_and_a_round(seed):
    world = watched(5, seed=seed)
    world.run(world.rng.uniform(0, PERIOD_S))
    world.crash(2)
    noticed_s = world.run(10, until=lambda: world.facts(Quarantined))
    assert noticed_s <= PERIOD_S + LOCAL.verdict_min_s + 0.01
    assert world.run(10, until=lambda: world.everybody_sees(2, Liveness.DEAD)) <= LOCAL.suspicion_factor * 1.1


def test_the_switch_leaves_the_round_robin():
    world = watched(5, shared_probing=False)
    world.run(40 * PERIOD_S)
    assert len(world.pings) == pytest.approx(5 * 40, rel=0.05)
    assert max(gaps(world, 5)) > 1.2 * PERIOD_S
