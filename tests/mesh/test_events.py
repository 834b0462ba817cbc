"""User events: each heard once by everybody, in order, and in nobody's way."""

import random
from functools import partial

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.agenda import Agenda
from mesh.effects import SendDatagram
from mesh.errors import LimitError
from mesh.events import ROOM_BYTES, WAITING_MAX, EventTimer
from mesh.facts import EventHeard
from mesh.kinds import LAMPORT_MAX
from mesh.member import Liveness
from mesh.messages import Event, Gossip, Update
from mesh.now import Now
from mesh.replay import WINDOW
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from sim.network import Rule

LOCAL = SwimOptions.local()


def formed(count, seed=1):
    crowd = Crowd(seed, CrowdOptions(swim=LOCAL, keep_log=False))
    crowd.form(count)
    crowd.run_for(2.0)
    return crowd


def heard(crowd):
    """What each node hears from now on, in order."""
    found = {index: [] for index in crowd.peers}

    def tap(peer, outputs):
        found[peer.index] += [output for output in outputs if isinstance(output, EventHeard)]

    crowd.taps.append(tap)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_each_of_64_nodes_hears_each_event_once_although_a_tenth_of_the_packets_is_lost(seed):
    crowd = formed(64, seed)
    crowd.lay("loss", Rule(loss=0.1))
    found = heard(crowd)
    rng = random.Random(seed)
    for number in range(20):
        crowd.call(rng.randint(1, 64), "announce", f"event-{number}", b"x" * rng.randint(0, 1024))
        crowd.run_for(rng.uniform(0.0, 0.2))
    crowd.run_for(20.0)
    for index in found:
        assert sorted(event.name for event in found[index]) == sorted(f"event-{n}" for n in range(20)), index
    assert not any(crowd.core(index).events.waiting for index in found)


def test_all_nodes_deliver_in_the_same_order_and_answers_after_what_they_answer():
    crowd = formed(12)
    found = heard(crowd)

    def answer(peer, outputs):
        if peer.index == 5 and any(getattr(output, "name", "") == "question" for output in outputs):
            crowd.at(crowd.time, lambda: crowd.call(5, "announce", "answer", b""))

    crowd.taps.append(answer)
    for index in (3, 1, 2, 9):
        crowd.call(index, "announce", "question" if index == 1 else "other", b"")
    crowd.run_for(5.0)
    orders = {tuple((event.lamport, event.node) for event in events) for events in found.values()}
    assert len(orders) == 1
    (order,) = orders
    assert list(order) == sorted(order) and len(order) == 5
    assert [event.name for event in found[7]][-1] == "answer"
    assert not any(event.late for events in found.values() for event in events)


def test_the_next_life_of_an_author_is_heard_again():
    crowd = formed(4)
    found = heard(crowd)
    crowd.call(2, "announce", "one", b"")
    crowd.run_for(3.0)
    crowd.restart(2, seeds=[1])
    crowd.run_for(3.0)
    crowd.call(2, "announce", "two", b"")
    crowd.run_for(3.0)
    assert [event.name for event in found[3]] == ["one", "two"]


def test_a_flood_of_events_delays_no_death():
    times = []
    for flood in (False, True):
        crowd = formed(16, seed=4)
        for number in range(600 if flood else 0):
            crowd.call(1 + number % 8, "announce", f"e{number}", bytes(800))
        crowd.crash(16)
        times.append(crowd.run_until(partial(crowd.everybody_sees, 16, Liveness.DEAD), 20.0, 0.05))
        assert not flood or crowd.core(1).events.waiting, "the flood lasts longer"
    quiet_s, flooded_s = times
    assert flooded_s <= quiet_s + 2 * LOCAL.probe_period_s


def test_a_flood_of_rumours_delays_no_event():
    times = []
    for flood in (False, True):
        crowd = formed(16, seed=4)
        found = heard(crowd)
        for number in range(400 if flood else 0):
            stranger = account_of(1, 100 + number, 1, ("10.1.0.1", 7946 + number))
            stranger = attrs.evolve(stranger, liveness=Liveness.DEAD)
            data = codec.packet([codec.item(Gossip(crowd.node(2))), codec.item(Update(stranger))])
            crowd.call(1, "receive", data, crowd[2].address)
        crowd.call(1, "announce", "urgent", b"")
        times.append(crowd.run_until(lambda found=found: all(found[i] for i in range(1, 17)), 4.0, 0.05))
        assert not flood or crowd.core(1).statistics().rumours, "the flood lasts longer"
    quiet_s, flooded_s = times
    assert flooded_s <= quiet_s + 1.0


# One core by itself.


AUTHORS = [account_of(1, index, 1, (f"10.0.0.{index}", 7946)) for index in (2, 3)]


def core():
    """A core that knows two authors."""
    made = Swim(LOCAL, account_of(1, 1, 1, ("10.0.0.1", 7946)), random.Random(1), agenda=Agenda())
    for row in AUTHORS:
        made.receive(
            Now(0.0, 0.0), codec.packet([codec.item(Gossip(row.node)), codec.item(Update(row))]), row.address
        )
    return made


def tell(made, at, event, source=AUTHORS[0]):
    data = codec.packet([codec.item(Gossip(source.node)), codec.item(event)])
    return [o for o in made.receive(Now(at, at), data, source.address) if isinstance(o, EventHeard)]


def rest(made, at):
    """What is delivered by and by."""
    found = []
    while (deadline := made.next_deadline()) is not None and deadline <= at:
        found += [o for o in made.tick(Now(deadline, deadline)) if isinstance(o, EventHeard)]
    return found


EVENTS = st.builds(
    Event,
    st.sampled_from([row.node for row in AUTHORS]),
    st.just(1),
    st.integers(1, 40),
    st.integers(1, 30),
    st.just("e"),
    st.just(b""),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 0.3)), max_size=60))
def test_whatever_is_repeated_or_reordered_nothing_is_delivered_twice_and_only_the_late_out_of_order(told):
    made, at, found = core(), 1.0, []
    for event, wait_s in told:
        at += wait_s
        found += rest(made, at)
        found += tell(made, at, event)
    found += rest(made, at + 5.0)
    assert len(found) == len({(event.node, event.sequence) for event, _ in told})
    on_time = [(event.lamport, event.node) for event in found if not event.late]
    assert on_time == sorted(on_time)
    highest = (0, "")
    for event in found:
        key = (event.lamport, event.node)
        assert event.late == (key < highest) or key == highest
        highest = max(highest, key)


def test_events_of_strangers_of_lives_to_come_and_of_lives_gone_are_counted_and_not_delivered():
    made = core()
    plain = Event(AUTHORS[0].node, 1, 1, 1, "e", b"")
    tell(made, 1.0, attrs.evolve(plain, node="00000000000000ff"))
    tell(made, 1.0, attrs.evolve(plain, generation=2))
    assert made.statistics().events_unknown == 2
    tell(made, 1.0, attrs.evolve(plain, sequence=WINDOW + 1))
    tell(made, 1.0, plain)
    tell(made, 1.0, attrs.evolve(plain, generation=0, sequence=9))
    assert made.statistics().events_stale == 2
    assert len(rest(made, 5.0)) == 1


def test_a_liar_that_claims_the_end_of_time_stops_nobody():
    made = core()
    tell(made, 1.0, Event(AUTHORS[0].node, 1, 1, LAMPORT_MAX, "e", b""))
    made.announce(Now(1.1, 1.1), "mine", b"")
    assert {event.name for event in rest(made, 5.0)} == {"e", "mine"}


def test_memory_is_bounded_however_many_are_told():
    made = core()
    total = 3 * WAITING_MAX
    found = []
    for sequence in range(1, total + 1):
        found += tell(made, 1.0, Event(AUTHORS[0].node, 1, sequence, sequence, "e", b""))
    assert made.events.waiting == WAITING_MAX and len(found) == total - WAITING_MAX
    assert made.statistics().events_unspread == total - WAITING_MAX
    with pytest.raises(LimitError):
        made.announce(Now(1.0, 1.0), "mine", b"")


@pytest.mark.parametrize(("name", "payload"), [("n" * 65, b""), ("n", bytes(1025)), ("🔥" * 64, bytes(1024))])
def test_too_large_an_event_is_refused_and_changes_nothing(name, payload):
    made = core()
    with pytest.raises(LimitError):
        made.announce(Now(1.0, 1.0), name, payload)
    assert not made.events.waiting and not rest(made, 5.0) and not made.statistics().events_announced


def test_while_a_member_is_of_an_older_version_no_event_is_longer_than_it_reads():
    made = core()
    old = attrs.evolve(AUTHORS[1], protocol=2, identity=AUTHORS[1].identity.above())
    data = codec.packet([codec.item(Gossip(old.node)), codec.item(Update(old))])
    made.receive(Now(0.5, 0.5), data, old.address)
    made.announce(Now(1.0, 1.0), "short", bytes(900))
    with pytest.raises(LimitError, match=f"member `{old.name}` is of an older version"):
        made.announce(Now(1.0, 1.0), "long", bytes(901))
    assert made.statistics().events_announced == 1


def test_an_observer_announces_nothing():
    looking = attrs.evolve(LOCAL, observer=True)
    made = Swim(looking, account_of(1, 1, 1, ("10.0.0.1", 7946)), random.Random(1))
    with pytest.raises(LimitError):
        made.announce(Now(1.0, 1.0), "mine", b"")


def test_the_largest_event_fits_a_packet_of_its_own_that_fits_a_sealed_datagram():
    made = core()
    made.announce(Now(1.0, 1.0), "é" * 64, bytes(1024))
    sent = []
    while not sent:
        deadline = made.next_deadline()
        sent = [
            output.data
            for output in made.tick(Now(deadline, deadline))
            if isinstance(output, SendDatagram) and codec.decode(output.data).events
        ]
    assert all(len(data) <= codec.PACKET_BYTES_MAX for data in sent)
    assert all(not codec.decode(data).updates for data in sent)
    longest = Event("f" * 16, 2**48 - 1, 2**48 - 1, LAMPORT_MAX, "n" * 249, bytes(1024))
    assert len(codec.item(longest)) <= codec.EVENT_ITEM_BYTES_MAX + 3 <= ROOM_BYTES


def test_an_event_announced_alone_is_heard_by_its_author_and_kept_for_nobody():
    made = Swim(LOCAL, account_of(1, 1, 1, ("10.0.0.1", 7946)), random.Random(1))
    made.announce(Now(1.0, 1.0), "mine", b"")
    assert [event.name for event in rest(made, 5.0)] == ["mine"]
    assert not made.events.waiting and EventTimer.TELL not in made._agenda
