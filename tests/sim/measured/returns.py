"""Measures of joins, of the dead who are asked and forgotten, and of tables that are compared."""

import itertools

import attrs

from mesh import codec
from mesh.effects import Address
from mesh.facts import EventHeard
from mesh.identity import Identity
from mesh.load import LoadRecord
from mesh.member import Liveness, Member
from mesh.messages import Gossip, Join, MetadataAsk, Ping, Reconcile, Snapshot, Sync, Update
from mesh.reunion import JOIN_FANOUT, MUSTER_PINGS
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from sim.rule import Rule
from tests.sim.measured.selves import say
from tests.sim.measured.wire import (
    LOCAL,
    TRIP_S,
    Wire,
    after_echo,
    close,
    even,
    lone,
    reports,
    row,
    told,
)

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT


def joins_wait_longer_each_time() -> str:
    """Seeds are asked after 0.25, 0.5, 1 ... s, half more or less, up to a bound; three each time, for ever."""
    crowd = Crowd(3, CrowdOptions(network=Rule(delay_s=TRIP_S)))
    wire = Wire(crowd)
    crowd.start(1, [2, 3, 4, 5, 6])
    crowd.run_for(100.0)
    asked: dict[float, list[int]] = {}
    for said in wire.of(Join, by=1):
        asked.setdefault(said.at, []).append(said.to)
    times = list(asked)
    waits = [later - at for at, later in itertools.pairwise(times)]
    for attempt, wait_s in enumerate(waits):
        mean_s = min(LOCAL.join_retry_max_s, LOCAL.join_retry_min_s * 2**attempt)
        if not 0.5 * mean_s <= wait_s <= 1.5 * mean_s:
            return f"attempt {attempt + 1} is made after {wait_s} s"
    if times[0] != 0.0 or any(len(set(to)) != JOIN_FANOUT for to in asked.values()) or len(times) < 10:
        return f"{len(times)} attempts, {asked}"
    if {to for some in asked.values() for to in some} != {2, 3, 4, 5, 6}:
        return "some seed is never asked"
    said = [f["attempt"] for _, f in reports(crowd, 1, "joining", "no_seed_answers")]
    if said != list(range(1, len(times) + 1)) or len(reports(crowd, 1, "joining")) != 1:
        return f"attempts told: {said}"
    crowd.start(4)
    crowd.run_for(LOCAL.join_retry_max_s * 1.5 * 3)
    joined = reports(crowd, 1, "joined")
    before = (
        len([said for said in wire.of(Join, by=1) if said.at > joined[0][0] + 1.0 and said.to == 4])
        if joined
        else 9
    )
    return "" if len(joined) == 1 and not before else f"joined {joined}, asked {before} times later"


def heals_go_on() -> str:
    """One of the dead, and one seed that is no member, is asked in each heal period, a quarter more or less."""
    crowd = lone(4)
    crowd.call(1, "join", [crowd[2].address, ("10.9.9.9", 1), ("10.9.9.8", 1)])
    crowd.run_for(2.0)
    for gone in (3, 4):
        crowd.crash(gone)
        crowd.run_until(lambda gone=gone: crowd.sees(1, gone) is DEAD, 30.0)
    wire = Wire(crowd)
    crowd.run_for(60 * LOCAL.heal_period_s)
    for what, heals in (
        ("dead", [said for said in wire.of(Ping, by=1) if said.to in (3, 4)]),
        ("seed", wire.of(Join, by=1)),
    ):
        waits = [b.at - a.at for a, b in itertools.pairwise(heals)]
        if min(waits) < 0.75 * LOCAL.heal_period_s or max(waits) > 1.25 * LOCAL.heal_period_s:
            return f"{what}: waits of {min(waits)} to {max(waits)}"
        if len({said.address for said in heals}) != 2:
            return f"{what}: not all are asked"
    pinged = [said for said in wire.of(Ping, by=1) if said.to in (3, 4)]
    if any(said.packet.updates[0].member.liveness is not DEAD for said in pinged):
        return "the dead are not told that they are held dead"
    return "" if all(said.to == 0 for said in wire.of(Join, by=1)) else "a live member is asked to let us in"


def the_gone_are_forgotten() -> str:
    """Who has been gone for as long as it is remembered is dropped at the next heal, and no rumour of it goes on."""
    crowd = lone(4, swim=attrs.evolve(LOCAL, remember_gone_s=5.0, retransmit_factor=1e6))
    crowd.call(4, "publish_metadata", b"what it is")
    crowd.call(4, "probe", crowd.node(1))
    crowd.run_for(1.0)
    if not crowd.core(1).statistics().metadata_bytes:
        return "its metadata is not known"
    crowd.crash(4)
    crowd.run_until(lambda: crowd.sees(1, 4) is DEAD, 30.0)
    at = crowd.time
    if crowd.core(1).statistics().rumours != 1:
        return "the death is no rumour"
    took_s = crowd.run_until(lambda: crowd.sees(1, 4) is None, 10.0)
    if took_s is None or not 5.0 <= took_s <= 5.0 + 1.25 * LOCAL.heal_period_s:
        return f"forgotten {took_s} s after {at}"
    if crowd.core(1).statistics().rumours:
        return "the rumour goes on"
    return "" if crowd.core(1).statistics().metadata_bytes == 0 else "its metadata is kept"


def heals_are_shared() -> str:
    """Beyond eight live members each heals less often, so that the mesh as a whole pays the same."""
    crowd = even(24)
    crowd.crash(24)
    crowd.run_until(lambda: crowd.everybody_sees(24, DEAD), 30.0)
    crowd.run_for(5.0)
    wire = Wire(crowd)
    crowd.run_for(60 * LOCAL.heal_period_s)
    by = [said.at for said in wire.of(Ping, by=1, to=24)]
    waits = [later - at for at, later in itertools.pairwise(by)]
    share = 23 / 8
    if min(waits) < 0.75 * share * LOCAL.heal_period_s or max(waits) > 1.25 * share * LOCAL.heal_period_s:
        return f"waits of {min(waits)} to {max(waits)} s"
    return "" if len(wire.of(Ping, to=24)) <= 60 * 8 * 1.2 else "too many ask the dead"


def musters_share_the_dead() -> str:
    """When one of many dead is back in its life, the others are asked at once, by turns of rank."""
    crowd = lone(24)
    for other in range(3, 25):
        crowd.crash(other)
        told(crowd, 1, 2, attrs.evolve(row(crowd, 1, other), liveness=SUSPECT), crowd.node(2))
        crowd.call(1, "evidence", crowd.node(other), "refused")
    crowd.run_until(lambda: crowd.core(1).live == 2, 60.0)
    back = row(crowd, 1, 3)
    back = attrs.evolve(back, identity=back.identity.above(), liveness=ALIVE)
    wire, at = Wire(crowd), crowd.time
    say(crowd, 1, Gossip(crowd.node(2)), back)
    crowd.run_for(0.0)
    crowd.run_for(TRIP_S)
    asked = [said for said in wire.of(Ping, by=1) if close(said.at, at) and said.to > 3]
    ids = sorted(crowd.node(index) for index in range(4, 25))
    live = sorted((crowd.node(1), crowd.node(2), crowd.node(3)))
    due = ids[live.index(crowd.node(1)) :: 3][:MUSTER_PINGS]
    if [crowd.node(said.to) for said in asked] != due:
        return f"{len(asked)} are asked, not the {len(due)} of its rank"
    again = row(crowd, 1, 4)
    say(crowd, 1, Gossip(crowd.node(2)), attrs.evolve(again, identity=again.identity.above(), liveness=ALIVE))
    at = crowd.time
    crowd.run_for(LOCAL.reconcile_period_s + TRIP_S)
    due_at = at + LOCAL.reconcile_period_s
    more = [said for said in wire.of(Ping, by=1) if said.to > 4 and close(said.at, due_at)]
    live = sorted((*live, crowd.node(4)))
    ids.remove(crowd.node(4))
    turn = (live.index(crowd.node(1)) + 1) % 4
    return (
        ""
        if [crowd.node(said.to) for said in more] == ids[turn::4][:MUSTER_PINGS]
        else f"{len(more)} are asked next"
    )


def joiners_compare_at_once() -> str:
    """Who was let in compares tables with somebody at once; a calm mesh compares none, whatever is news in it."""
    crowd = even(5)
    wire = Wire(crowd)
    crowd.call(3, "update_me", zone="new")
    crowd.run_for(6.0)
    if wire.of(Reconcile, Sync):
        return "news make tables be compared"
    crowd.start(6, [1])
    at = crowd.time
    crowd.run_for(2.0)
    asked = [said.at for said in wire.of(Reconcile, by=6)]
    snapshots = [said.at for said in wire.of(Snapshot, to=6)]
    if not snapshots or not asked or asked[0] > snapshots[0] + LOCAL.reconcile_period_s + 4 * TRIP_S:
        return f"joined at {at}, told at {snapshots}, compares at {asked[:1]}"
    return ""


def halves_compare_at_once() -> str:
    """When one of several dead is back, tables are compared within a period; when nobody else is dead, they are not."""
    for dead, expected in ((2, True), (1, False)):
        crowd = lone(8)
        for other in range(4, 4 + dead):
            crowd.crash(other)
            crowd.call(1, "evidence", crowd.node(other), "refused")
        crowd.run_until(lambda crowd=crowd, dead=dead: len(crowd.core(1)._members.dead()) == dead, 60.0)
        crowd.run_for(5.0)
        wire, back = Wire(crowd), row(crowd, 1, 4)
        say(
            crowd,
            1,
            Gossip(crowd.node(2)),
            attrs.evolve(back, identity=back.identity.above(), liveness=ALIVE),
        )
        crowd.run_for(LOCAL.reconcile_period_s + TRIP_S)
        compared = wire.of(Reconcile, by=1)
        if (2 in [said.to for said in compared]) is not expected or (compared and not expected):
            return f"{dead} dead, one is back: compared with {[said.to for said in compared]}"
    return ""


def _crowded(crowd: Crowd, count: int) -> None:
    """Tell node-1 of so many newcomers at once."""
    new = [Member(Identity(f"{index + 1:016x}", 1), "", ("10.200.0.1", index + 1)) for index in range(count)]
    items = [codec.item(Gossip(crowd.node(2))), *(codec.item(Update(member)) for member in new)]
    crowd.call(1, "receive", codec.packet(items, codec.RELIABLE_BYTES_MAX), crowd[2].address, reliable=True)


def piles_of_rumours_compare() -> str:
    """More than 64 rumours that wait make tables be compared; 64 do not."""
    for count, expected in ((64, False), (65, True)):
        crowd = lone(3)
        after_echo(crowd, 1, 0.1)
        wire = Wire(crowd)
        _crowded(crowd, count)
        crowd.run_for(LOCAL.gossip_period_s + LOCAL.reconcile_period_s + TRIP_S)
        if bool(wire.of(Reconcile, by=1)) is not expected:
            return f"{count} rumours: compared {not expected}"
    return ""


def old_peers_are_synced() -> str:
    """A peer of protocol 1 whose digest differs for the spread bound is asked again, and then sent the whole table."""

    def old(seed: int, index: int, generation: int, address: Address) -> Member:
        return attrs.evolve(account_of(seed, index, generation, address), protocol=1)

    crowd = lone(4, swim=attrs.evolve(LOCAL, observer=True), account=old)
    crowd.crash(4)
    dead = row(crowd, 1, 4)
    told(crowd, 1, 2, attrs.evolve(dead, liveness=DEAD))
    live = row(crowd, 1, 3)
    wire = Wire(crowd)
    told(crowd, 1, 2, attrs.evolve(live, identity=live.identity.above()))
    crowd.run_for(8.0)
    syncs = wire.of(Sync, by=1)
    if not syncs:
        return "no table is sent"
    first = syncs[0]
    pings = [said.at for said in wire.of(Ping, by=1, to=first.to) if said.at < first.at]
    due_s = 4 * LOCAL.probe_period_s + 4 * TRIP_S
    if not close(first.at, pings[0] + due_s):
        return f"sent {first.at - pings[0]} s after the first ping whose answer differed, not {due_s}"
    live_first = [update.member.is_live for update in first.packet.updates]
    return (
        ""
        if live_first == sorted(live_first, reverse=True) and False in live_first
        else f"in the order {live_first}"
    )


def meshes_have_names() -> str:
    """Where a mesh has a name, packets with accounts say so, and no others."""
    crowd = lone(4, swim=attrs.evolve(LOCAL, mesh_name="x"))
    wire = Wire(crowd)
    crowd.run_for(2.0)
    told(crowd, 1, 1, crowd.core(1).me)
    crowd.call(1, "update_me", zone="new")
    crowd.run_for(1.0)
    for said in wire.of(by=1):
        if bool(said.packet.marks) is not bool(said.packet.updates):
            return f"{said}"
    return "" if any(said.packet.marks for said in wire.of(by=1)) else "nothing is said"


def loads_ride_along() -> str:
    """New figures ride on what is sent next, to each peer; they are passed on by others, so often and no oftener."""
    crowd = lone(6)
    crowd.call(1, "publish_load", LoadRecord("", zone="here"))
    wire = Wire(crowd)
    for other in (2, 3, 4, 5, 6):
        crowd.call(1, "probe", crowd.node(other))
    rode = [len(said.packet.loads) for said in wire.of(Ping, by=1) if close(said.at, crowd.time)]
    return "" if rode == [1, 1, 0, 0, 0] else f"it rides on {rode}"


def figures_that_hold_stay_young() -> str:
    """Figures that still hold grow no older than the time between two turns, by ten bytes in each; others do."""
    crowd = lone(5)
    crowd.call(4, "publish_load", LoadRecord("", zone="here"))
    crowd.run_for(12.0)
    crowd.call(4, "publish_load", LoadRecord("", zone="here"))
    crowd.run_for(4.0)
    known = crowd.core(1).loads.get(crowd[1].now(crowd.time), crowd.node(4))
    if known is None or known.age_ms > 4100 or known.sequence != 1:
        return f"{known}, which its owner has looked at 4 s ago"
    crowd.crash(4)
    crowd.run_for(1.0)
    older = crowd.core(1).loads.get(crowd[1].now(crowd.time), crowd.node(4))
    return "" if older is not None and older.age_ms >= known.age_ms + 1000 else f"{older} a second later"


def events_arrive() -> str:
    """A user event is heard by each node once, its author included."""
    crowd = even(5)
    crowd.call(2, "announce", "it", b"body")
    crowd.run_for(2.0)
    heard = [(who, out.name, out.payload) for _, who, out in crowd.log if isinstance(out, EventHeard)]
    return "" if sorted(heard) == [(who, "it", b"body") for who in range(1, 6)] else f"{heard}"


def metadata_arrives() -> str:
    """What a node publishes about itself, small or large, is held by all a second later, and gone when it is."""
    crowd = even(5)
    for value in (b"small", b"large" * 4000, b""):
        wire = Wire(crowd)
        crowd.call(2, "publish_metadata", value)
        crowd.run_for(1.5)
        crowd.taps.remove(wire.tap)
        if bool(wire.of(MetadataAsk)) is not (len(value) > 1000):
            return f"{len(value)} bytes: asked for {len(wire.of(MetadataAsk))} times"
        held = [crowd.core(index).metadata.get(crowd.node(2)) for index in range(1, 6)]
        if any((one or b"") != value for one in held):
            return f"{len(value)} bytes: {[len(one or b'') for one in held]} are held"
    return ""


def bulk_goes_by_datagram_if_it_fits() -> str:
    """What fits into a datagram, to the byte, goes as one; else by link if that may be, or what fits of it."""
    from mesh.messages import Reconcile as Step

    crowd = lone(3)
    voice = crowd.core(1)._voice
    head = len(codec.item(Step(crowd.node(1), 1, 1)))
    room = codec.DATAGRAM_BYTES_MAX - codec.HEADER_BYTES - head
    for size, by_link, reliable, due in (
        (room, True, False, 1),
        (room + 1, True, True, 2),
        (room + 1, False, False, 1),
    ):
        items = [b"\x00" * (size - 100), b"\x00" * 100]
        sent = voice.say_bulk(crowd[2].address, Step(crowd.node(1), 1, 1), items, 10_000, by_link)
        out = voice.take()
        kinds = {type(output).__name__ for output in out}
        whole = codec.HEADER_BYTES + head + (size if due == 2 or size == room else size - 100)
        if kinds != {"SendReliable" if reliable else "SendDatagram"} or sent != whole or len(out) != 1:
            return f"{size} of {room} bytes: {kinds}, {sent} sent, {whole} due"
    return ""


RETURNS = (
    joins_wait_longer_each_time, heals_go_on, the_gone_are_forgotten, heals_are_shared, musters_share_the_dead,
    joiners_compare_at_once, halves_compare_at_once, piles_of_rumours_compare, old_peers_are_synced, meshes_have_names,
    loads_ride_along, figures_that_hold_stay_young,
    metadata_arrives, events_arrive, bulk_goes_by_datagram_if_it_fits,
)  # fmt: skip
"""All of them."""
