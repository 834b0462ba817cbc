"""Load records: the newest wins, ages tell the truth, and figures cost bytes only while they are news."""

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.load import (
    AGE_MS_MAX,
    LAG_STEP_MS,
    LoadHeld,
    LoadMark,
    LoadRecord,
    LoadStill,
    LoadTable,
    ModelLoad,
)
from mesh.now import Now
from mesh.swim import Swim
from tests.mesh.small_world import LOCAL, World, account, settled

ME = "00000000000000ee"
NODE = "00000000000000ab"
OTHER = "00000000000000cd"
ONE = LoadRecord("", models=(ModelLoad("tiny", "d" * 16, "p" * 16, True, 2048, 7),))


def at(mono):
    return Now(mono, 0.0)


def table(me=ME):
    return LoadTable(me, codec.load_item)


def decoded(item):
    ping = codec.item(EMPTY)
    return codec.decode(codec.packet([ping, item])).loads[0]


EMPTY = codec.Gossip(NODE)
RECORDS = st.builds(LoadRecord, st.just(NODE), st.integers(0, 2), st.integers(0, 4), zone=st.text(max_size=2))


# What is known.


@given(st.lists(RECORDS, min_size=1, max_size=12))
def test_the_newest_version_is_kept_whatever_the_order(records):
    held = table()
    for record in records:
        before = held.get(at(0), NODE)
        news = held.observe(at(0), record)
        assert news == (before is None or record.version > before.version)
    assert held.get(at(0), NODE).version == max(record.version for record in records)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_age_grows_at_every_hop_and_is_never_less_than_the_truth(holds):
    """Each hop has its own clock, holds the record for a while and passes it on."""
    record, truth_ms = LoadRecord(NODE, 1, 1), 0.0
    for index, hold_s in enumerate(holds):
        hop, clock = table(), 1000.0 * index
        hop.observe(at(clock), record)
        record = hop.get(at(clock + hold_s), NODE)
        truth_ms += hold_s * 1000
        assert truth_ms - 1e-3 <= record.age_ms <= truth_ms + index + 1.001


def test_age_stops_at_what_the_wire_can_say():
    held = table()
    held.observe(at(0), LoadRecord(NODE, age_ms=AGE_MS_MAX))
    assert held.get(at(5), NODE).age_ms == AGE_MS_MAX


def test_time_spent_waiting_in_a_socket_counts():
    held = table()
    held.observe(at(10), LoadRecord(NODE, 1, 1, age_ms=5), waited_s=2.0)
    assert held.get(at(11), NODE).age_ms == 3005
    held.heard_again(at(11), LoadMark(NODE, 1, 1, 5), NODE, waited_s=1.5)
    assert held.get(at(11), NODE).age_ms == 1505


def test_only_the_owner_makes_a_copy_younger():
    """Else copies that go in circles would lose the time of every flight."""
    held = table()
    held.observe(at(0), LoadRecord(NODE, 1, 1), OTHER)
    held.heard_again(at(5), LoadMark(NODE, 1, 1, 100), OTHER)
    assert held.get(at(5), NODE).age_ms == 5000
    held.heard_again(at(5), LoadMark(NODE, 1, 1, 100), NODE)
    assert held.get(at(5), NODE).age_ms == 100
    held.heard_again(at(5), LoadMark(NODE, 1, 1, 200), NODE)
    assert held.get(at(5), NODE).age_ms == 100, "an older word makes nothing older"
    held.heard_again(at(5), LoadMark(NODE, 1, 2, 0), NODE)
    assert held.get(at(5), NODE).age_ms == 100, "what the owner says of another version is not about ours"


def test_figures_are_numbered_when_they_change_within_each_life():
    held = table()
    published = [held.publish(at(0), LoadRecord(ME, 1, zone=zone)).sequence for zone in "abba"]
    assert published == [1, 2, 2, 3]
    assert held.publish(at(0), LoadRecord(ME, 2, zone="a")).version == (2, 1)
    assert held.publish(at(9), LoadRecord(ME, 2, zone="b", age_ms=77)).age_ms == 0


def test_unchanged_figures_are_young_again_and_no_news():
    held = table()
    held.publish(at(0), LoadRecord(ME, 1))
    assert held.fill(at(0), 500, 500, 1)
    assert held.still(at(7)) == LoadStill(1, 1, 7000)
    held.publish(at(7), LoadRecord(ME, 1))
    assert held.still(at(7)) == LoadStill(1, 1, 0)
    assert held.fill(at(7), 500, 500, 1) == []


def test_a_lag_is_news_when_it_leaves_its_step():
    held = table()
    lags = [0, LAG_STEP_MS - 1, LAG_STEP_MS, LAG_STEP_MS + 3, 3]
    assert [held.publish(at(0), LoadRecord(ME, 1, lag_ms=lag)).sequence for lag in lags] == [1, 1, 2, 2, 3]
    held.observe(at(0), LoadRecord(NODE, 1, 1, lag_ms=1500))
    assert held.lag_s(NODE) == 1.5
    assert held.lag_s(OTHER) == 0.0


def test_the_gone_are_forgotten():
    held = table()
    held.observe(at(0), LoadRecord(NODE))
    held.forget(NODE)
    held.forget(NODE)
    assert held.get(at(0), NODE) is None
    assert len(held) == 0
    assert held.fill(at(0), 500, 500, 9) == []


def test_records_are_values():
    record = LoadRecord(NODE)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.sequence = 2


# What is said.


def test_a_packet_takes_records_within_its_budget_the_latest_first_and_then_by_turns():
    held = table()
    for index in range(1, 6):
        held.observe(at(index), LoadRecord(f"{index:016x}", models=(ModelLoad("tiny"),)))
    size = max(map(len, held.items(at(9))))
    packets = [held.fill(at(9), 1000, 2 * size, 3) for _ in range(5)]
    assert all(sum(map(len, packet)) <= 2 * size for packet in packets)
    told = [[int(decoded(item).node, 16) for item in packet] for packet in packets]
    assert told == [[5, 4], [3, 2], [1, 5], [4, 3], [2, 1]]


def test_a_record_is_sent_so_often_and_a_newer_one_anew():
    held = table()
    held.observe(at(0), LoadRecord(NODE, 1, 1))
    assert [len(held.fill(at(0), 500, 500, 2)) for _ in range(4)] == [1, 1, 0, 0]
    held.observe(at(0), LoadRecord(NODE, 1, 2))
    assert len(held.fill(at(0), 500, 500, 2)) == 1


OWNERS = st.integers(1, 4).map(lambda index: f"{index:016x}")
HAPPENINGS = st.one_of(
    st.tuples(st.just("news"), OWNERS),
    st.tuples(st.just("again"), OWNERS),
    st.tuples(st.just("fill"), st.integers(0, 120)),
)


@given(st.lists(HAPPENINGS, max_size=60), st.integers(1, 5))
def test_no_version_is_sent_or_heard_more_often_than_the_limit_and_none_is_lost(happenings, limit):
    held, versions, used = table(), {}, {}
    for what, about in happenings:
        if what == "news":
            versions[about] = versions.get(about, 0) + 1
            used[about] = 0
            held.observe(at(0), LoadRecord(about, 1, versions[about]), OTHER)
        elif what == "again" and about in used:
            held.heard_again(at(0), LoadMark(about, 1, versions[about], 0), OTHER)
            used[about] += 1
        elif what == "fill":
            for item in held.fill(at(0), about, about, limit):
                assert decoded(item).sequence == versions[decoded(item).node], "an older one is never sent"
                assert used[decoded(item).node] < limit
                used[decoded(item).node] += 1
    while items := held.fill(at(0), 100, 100, limit):
        for item in items:
            used[decoded(item).node] += 1
    assert all(count >= limit for count in used.values())


def test_a_record_over_the_budget_still_goes_where_there_is_room():
    held = table()
    held.observe(at(0), LoadRecord(NODE, 1, 1, models=(ModelLoad("tiny"),) * 5))
    held.observe(at(1), LoadRecord(OTHER, 1, 1, models=(ModelLoad("tiny"),) * 5))
    assert held.fill(at(2), 20, 10, 2) == []
    assert len(held.fill(at(2), 1000, 10, 2)) == 1


def test_nobody_is_told_of_itself_or_what_it_has_told_us():
    held = table()
    held.observe(at(0), LoadRecord(NODE, 1, 1), OTHER)
    assert held.fill(at(0), 500, 500, 1, (NODE,)) == []
    assert held.fill(at(0), 500, 500, 1, (OTHER,)) == []
    assert len(held.fill(at(0), 500, 500, 1, (ME,))) == 1, "and that was not counted as sending"


def test_what_rides_on_a_packet_carries_its_age():
    held = table()
    held.observe(at(0), LoadRecord(NODE, 1, 1, age_ms=100))
    (item,) = held.fill(at(0.5), 500, 500, 2)
    assert decoded(item).age_ms == 600
    (item,) = held.fill(at(70.5), 500, 500, 2)
    assert decoded(item).age_ms == 70600, "the encoding is kept, the age is not"


def test_who_lacks_our_record_is_sent_it_and_who_has_it_is_not():
    held = table()
    assert held.missing(at(0), LoadHeld(0, 0)) is None
    assert held.still(at(0)) is None
    held.publish(at(0), LoadRecord(ME, 3))
    assert held.missing(at(1), LoadHeld(3, 1)) is None
    assert decoded(held.missing(at(1), LoadHeld(0, 0))) == LoadRecord(ME, 3, 1, 1000)
    assert held.held_of(ME) == LoadHeld(3, 1)
    assert held.held_of(NODE) == LoadHeld(0, 0)


# In the mesh.


def publish(world, index, queued=7):
    models = (attrs.evolve(ONE.models[0], queued_tokens=queued),)
    world.call(index, "publish_load", attrs.evolve(ONE, models=models))


def age_s(world, observer, subject):
    core = world.core(observer)
    record = core.loads.get(world.instant(core.me.address), f"{subject:016x}")
    return record.age_ms / 1000 if record is not None else None


def everybody_publishes(world, count, period_s, seconds):
    end = world.now + seconds
    while world.now < end:
        for index in range(1, count + 1):
            publish(world, index)
        world.run(period_s)


def test_unchanged_figures_travel_once_and_stay_young():
    count = 5
    world = settled(count)
    everybody_publishes(world, count, 0.5, 10)
    world.datagrams = world.bytes = 0
    everybody_publishes(world, count, 0.5, 10)
    assert world.bytes / world.datagrams <= 66, "no record rides on any of them"
    ages = [age_s(world, a, b) for a in range(1, count + 1) for b in range(1, count + 1) if a != b]
    assert max(ages) <= 2 * count * LOCAL.probe_period_s


@pytest.mark.parametrize("seed", range(3))
def test_who_missed_a_record_has_it_after_its_next_probe_of_the_owner(seed):
    count = 8
    world = settled(count, seed=seed)
    for index in range(1, count + 1):
        publish(world, index)
    world.run(10)
    world.core(1).loads.forget(f"{2:016x}")
    assert age_s(world, 1, 2) is None
    waited_s = world.run(30, until=lambda: age_s(world, 1, 2) is not None)
    assert waited_s <= 2 * count * LOCAL.probe_period_s + 0.01


def test_news_reaches_nearly_everybody_by_gossip_alone():
    """Rumour mongering leaves a residue, which the probes of the owner then mend: see above."""
    count = 64
    world = settled(count)
    for index in range(1, count + 1):
        world.core(index).loads.missing = lambda _now, _theirs: None
    publish(world, 2)
    world.run(20)
    reached = sum(age_s(world, index, 2) is not None for index in range(1, count + 1))
    assert reached >= 0.9 * count


@pytest.mark.parametrize("pause_s", [1.0, 5.0])
def test_what_waited_in_the_socket_of_a_paused_process_is_not_fresh(pause_s):
    """S14: an age is never less than the truth by more than the time of flight."""
    world = settled(3)
    publish(world, 2)
    world.run(10)
    world.pause(1)
    published = world.now
    publish(world, 2, queued=99)
    world.run(pause_s)
    world.resume(1)
    record = world.core(1).loads.get(world.instant(account(1).address), f"{2:016x}")
    assert record.models[0].queued_tokens == 99, "it came while the process was away"
    assert record.age_ms / 1000 >= world.now - published - 0.01
    publish(world, 2, queued=99)
    world.run(2)
    assert age_s(world, 1, 2) == pytest.approx(2, abs=0.02), (
        "afterwards nothing is taken for older than it is"
    )


def gossip_of(sequence):
    record = attrs.evolve(ONE, node=f"{2:016x}", generation=1, sequence=sequence)
    return codec.packet([codec.item(codec.Gossip(f"{2:016x}")), codec.load_item(record).at(0)])


@pytest.mark.parametrize("away_s", [0.2, 3.0])
def test_what_is_read_late_counts_as_old_until_a_tick_comes_on_time(away_s):
    """Short of what counts as a pause, too: a deadline that has passed shows that we were kept from running."""
    world = settled(2)
    core, now = world.core(1), world.instant(account(1).address)
    ticked = core.next_deadline()
    core.tick(Now(ticked, now.wall))
    ran, late = core.next_deadline() - 0.001, core.next_deadline() + away_s
    core.receive(Now(ran, now.wall), gossip_of(1), account(2).address)
    for sequence in (2, 3):
        core.receive(Now(late, now.wall), gossip_of(sequence), account(2).address)
        age_ms = core.loads.get(Now(late, 0.0), f"{2:016x}").age_ms
        assert age_ms == pytest.approx(1000 * (late - ticked), abs=2)
    core.tick(Now(late, now.wall))
    core.receive(Now(late, now.wall), gossip_of(4), account(2).address)
    assert core.loads.get(Now(late, 0.0), f"{2:016x}").age_ms >= 1000 * away_s, "drivers drain within a bound"
    due = core.next_deadline()
    core.tick(Now(due, now.wall))
    core.receive(Now(due, now.wall), gossip_of(5), account(2).address)
    assert core.loads.get(Now(due, 0.0), f"{2:016x}").age_ms == 0


def test_what_waits_in_the_queue_of_a_busy_process_counts_as_old():
    """It runs all the while, an input at a time, and comes late to its deadlines: each may be as old as the queue."""
    world = settled(2)
    core, now = world.core(1), world.instant(account(1).address)
    began = core.next_deadline()
    core.tick(Now(began, now.wall))
    due = core.next_deadline()
    for sequence in range(1, 200):
        read = began + sequence * 0.01
        core.receive(Now(read, now.wall), gossip_of(sequence), account(2).address)
        if read > due + 0.02:
            age_ms = core.loads.get(Now(read, 0.0), f"{2:016x}").age_ms
            assert age_ms == pytest.approx(1000 * (read - began), abs=2), (
                "it came just after the tick, perhaps"
            )


def test_a_timer_that_fires_before_the_sockets_are_read_makes_nothing_fresh():
    world = settled(2)
    core, now = world.core(1), world.instant(account(1).address)
    late = core.next_deadline() + 3.0
    core.tick(Now(late, now.wall))
    core.receive(Now(late, now.wall), gossip_of(1), account(2).address)
    assert core.loads.get(Now(late, 0.0), f"{2:016x}").age_ms >= 3000


def test_ages_never_lie_while_figures_change_and_processes_pause():
    world = World(6, seed=5)
    world.run(5)
    truth, rng = {}, random.Random(5)
    for step in range(120):
        index = rng.randint(1, 6)
        if world.is_running(index):
            publish(world, index, queued=step)
            truth[index, step] = world.now
        if step % 20 == 10:
            world.pause(1 + step % 3)
        if step % 20 == 19:
            for sleeper in (1, 2, 3):
                if not world.is_running(sleeper):
                    world.resume(sleeper)
        world.run(0.1)
        honest(world, truth)


def honest(world, truth):
    for observer in range(1, 7):
        core: Swim = world.core(observer)
        if not world.is_running(observer):
            continue
        for subject in range(1, 7):
            record = core.loads.get(world.instant(core.me.address), f"{subject:016x}")
            if record is not None and subject != observer:
                measured = truth[subject, record.models[0].queued_tokens]
                assert record.age_ms / 1000 >= world.now - measured - 0.02


def test_an_owner_numbers_its_record_above_one_that_somebody_forged():
    loads = table()
    loads.publish(at(1.0), LoadRecord(ME, 3))
    assert loads.missing(at(2.0), LoadHeld(3, 7)) is not None
    assert loads.get(at(2.0), ME).version == (3, 8)
    assert loads.missing(at(2.0), LoadHeld(3, 8)) is None
    assert loads.missing(at(2.0), LoadHeld(2, 99)) is not None
    assert loads.get(at(2.0), ME).version == (3, 8)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.lists(st.sampled_from("abc"), max_size=3, unique=True)), max_size=20
    )
)
def test_the_names_of_models_are_those_of_the_records_that_are_held(steps):
    """An empty list of models stands for a node that goes."""
    table, truth = LoadTable(f"{9:016x}", codec.load_item), {}
    for sequence, (node, models) in enumerate(steps, start=1):
        name = f"{node:016x}"
        if models:
            record = LoadRecord(name, 1, sequence, 0, tuple(ModelLoad(model) for model in models))
            table.observe(Now(float(sequence), 0.0), record)
            truth[node] = models
        else:
            table.forget(name)
            truth.pop(node, None)
        assert sorted(table.model_names()) == sorted({model for held in truth.values() for model in held})
