"""How tables come to agree: bursts of joins, halves that meet, stragglers, and what it costs."""

import attrs
import pytest

from mesh import codec
from mesh.facts import MemberChanged
from mesh.member import Liveness
from mesh.messages import Ping, Reconcile, Snapshot, Sync
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from tests.mesh.scale import Watch

LOCAL = SwimOptions.local()


def crowd_of(count=0, seed=1, swim=LOCAL, **options):
    crowd = Crowd(seed, CrowdOptions(swim=swim, keep_log=False, **options))
    if count:
        crowd.form(count)
        crowd.run_for(3.0)
        assert crowd.converged()
    return crowd


def listen(crowd, *kinds):
    """Collect the messages of these kinds that are sent from now on: (number of the sender, packet)."""
    heard = []

    def tap(peer, outputs):
        for output in outputs:
            data = getattr(output, "data", None)
            if data is not None:
                packet = codec.decode(data, codec.RELIABLE_BYTES_MAX)
                if isinstance(packet.message, kinds):
                    heard.append((peer.index, packet))

    crowd.taps.append(tap)
    return heard


def deaths(crowd):
    """Collect who is declared dead from now on."""
    found = []

    def tap(peer, outputs):
        found.extend(
            (peer.index, output.after.name)
            for output in outputs
            if isinstance(output, MemberChanged) and output.after.liveness is Liveness.DEAD
        )

    crowd.taps.append(tap)
    return found


def burst(crowd, count):
    crowd.start(1)
    for index in range(2, count + 1):
        crowd.at(crowd.time + index / count, lambda index=index: crowd.start(index, seeds=[1]))
    crowd.run_for(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_sixty_four_joins_in_a_second_through_one_seed_agree_within_two(seed):
    crowd = crowd_of(seed=seed)
    burst(crowd, 64)
    assert crowd.run_until(crowd.converged, 2.0, 0.05) is not None


def test_a_seed_without_budget_names_others_who_share_the_work():
    poor = attrs.evolve(LOCAL, reconcile_bytes_per_s=2000.0)
    crowd = crowd_of(seed=1)
    crowd.start(1, swim=poor)
    heard = listen(crowd, Snapshot)
    for index in range(2, 65):
        crowd.at(index / 64, lambda index=index: crowd.start(index, seeds=[1]))
    crowd.run_for(1.0)
    assert crowd.run_until(crowd.converged, 3.0, 0.05) is not None
    assert max(len(packet.updates) for _, packet in heard) < 64
    assert crowd.core(1).statistics().reconciles_capped > 0


def test_what_exchanges_cost_is_capped_in_each_second():
    poor = attrs.evolve(LOCAL, reconcile_bytes_per_s=3000.0)
    crowd = crowd_of(swim=poor)
    sent = {}

    def tap(peer, outputs):
        for output in outputs:
            data = getattr(output, "data", None)
            if data is not None and isinstance(
                codec.decode(data, codec.RELIABLE_BYTES_MAX).message, Reconcile
            ):
                key = (peer.index, int(crowd.time))
                sent[key] = sent.get(key, 0) + len(data)

    crowd.taps.append(tap)
    burst(crowd, 64)
    crowd.run_for(5.0)
    assert max(sent.values()) <= 2 * 3000 + codec.DATAGRAM_BYTES_MAX, (
        "a second's worth, and what was in reserve"
    )


def test_a_newcomers_snapshot_is_not_spread_as_rumours():
    crowd = crowd_of(64)
    crowd.start(65, seeds=[1])
    crowd.run_for(0.1)
    assert crowd.core(65).statistics().members["alive"] == 65
    assert crowd.core(65).statistics().rumours <= 1


def test_one_rumour_in_a_calm_mesh_opens_no_exchange():
    crowd = crowd_of(32)
    heard = listen(crowd, Reconcile, Sync)
    crowd.call(5, "update_me", zone="a")
    crowd.run_for(20.0)
    assert crowd.converged()
    assert not heard


def test_a_straggler_gets_the_one_row_that_it_lacks_and_not_the_table():
    crowd = crowd_of(200)
    watch = Watch(crowd)
    fresher = attrs.evolve(crowd.core(7).me, identity=crowd.core(7).me.identity.above(), zone="new")
    for index in range(1, 201):
        if index != 9:
            crowd.core(index)._members.apply(fresher, 0.0)
    crowd.taps.append(watch)
    heard = listen(crowd, Reconcile)
    assert crowd.run_until(crowd.converged, 15.0, 0.05) is not None
    assert sum(len(packet.updates) for _, packet in heard) <= 4
    openings = [1 for _, packet in heard if packet.message.depth == 0]
    assert len(openings) <= 4, "several mismatches do not mean as many exchanges"
    assert sum(len(packet.spans) for _, packet in heard) <= 50 * len(openings)


def test_equal_tables_are_left_alone():
    crowd = crowd_of(64)
    heard = listen(crowd, Reconcile, Sync)
    crowd.run_for(30.0)
    assert not heard


def in_two(crowd, left, right):
    crowd.partition(left, right)
    crowd.run_for(20.0)
    assert {crowd.sees(a, b) for a in left for b in right} == {Liveness.DEAD}


@pytest.mark.parametrize("seed", range(3))
def test_halves_of_thirty_two_agree_within_two_seconds_and_the_merge_kills_nobody(seed):
    crowd = crowd_of(32, seed=seed)
    in_two(crowd, range(1, 17), range(17, 33))
    dead = deaths(crowd)
    crowd.heal()
    assert crowd.run_until(crowd.converged, 2.0, 0.05) is not None
    crowd.run_for(5.0)
    assert crowd.converged()
    assert not dead


def test_three_parts_find_one_another():
    crowd = crowd_of(24)
    crowd.partition(range(1, 5), range(5, 13), range(13, 25))
    crowd.run_for(20.0)
    dead = deaths(crowd)
    crowd.heal()
    assert crowd.run_until(crowd.converged, 3.0, 0.05) is not None
    assert not dead


def test_a_lone_node_that_was_cut_off_is_taken_back_with_all_that_it_missed():
    crowd = crowd_of(16)
    crowd.partition([1], range(2, 17))
    assert crowd.run_until(lambda: all(crowd.sees(a, 1) is Liveness.DEAD for a in range(2, 17)), 30.0, 0.5)
    crowd.start(17, seeds=[2])
    crowd.run_for(2.0)
    crowd.heal()
    assert crowd.run_until(crowd.converged, 3.0, 0.05) is not None
    assert crowd.sees(1, 17) is Liveness.ALIVE


def test_overlapping_cuts_end_in_agreement():
    """Everybody still reaches nodes 6 and 7, so nobody need die; whoever does comes back."""
    crowd = crowd_of(12)
    crowd.cut(range(1, 6), range(8, 13))
    crowd.run_for(15.0)
    crowd.heal()
    dead = deaths(crowd)
    assert crowd.run_until(crowd.converged, 3.0, 0.05) is not None
    crowd.run_for(5.0)
    assert not dead


def test_who_missed_a_death_is_told_when_the_dead_has_not_answered():
    crowd = crowd_of(12)
    crowd.cut([5], range(1, 13))
    crowd.crash(9)
    row = attrs.evolve(crowd.core(1).member(crowd.node(9)), liveness=Liveness.DEAD)
    for index in range(1, 13):
        if index not in (5, 9):
            crowd.core(index)._members.apply(row, 0.0)
    crowd.heal()
    assert crowd.run_until(lambda: crowd.sees(5, 9) is Liveness.DEAD, 30.0) is not None


def test_with_peers_of_protocol_one_whole_tables_are_compared():
    def old(seed, index, generation, address):
        plain = account_of(seed, index, generation, address)
        return attrs.evolve(plain, protocol=1) if index > 1 else plain

    crowd = crowd_of(3, account=old)
    fresher = attrs.evolve(crowd.core(3).me, identity=crowd.core(3).me.identity.above(), zone="new")
    crowd.core(1)._members.apply(fresher, 0.0)
    heard = listen(crowd, Sync, Reconcile)
    assert crowd.run_until(crowd.converged, 10.0, 0.05) is not None
    assert [type(packet.message) for index, packet in heard if index == 1][:1] == [Sync]
    assert not [1 for index, packet in heard if index == 1 and isinstance(packet.message, Reconcile)]


def test_an_exchange_deeper_than_any_honest_one_is_dropped():
    crowd = crowd_of(3)
    step = codec.item(Reconcile(crowd.node(2), 1, 200))
    sent = listen(crowd, Reconcile)
    crowd.call(1, "receive", codec.packet([step]), crowd[2].address)
    assert crowd.core(1).statistics().misplaced == 1
    assert not sent


def test_the_dead_are_pinged_at_a_rate_that_does_not_grow_with_the_mesh():
    pings = {}
    for count in (16, 32):
        crowd = crowd_of(count)
        crowd.crash(count)
        crowd.run_for(20.0)
        gone = crowd.node(count)
        heard = listen(crowd, Ping)
        crowd.run_for(60.0)
        pings[count] = sum(packet.message.target == gone for _, packet in heard)
    assert pings[32] == pytest.approx(pings[16], rel=0.3)
    assert pings[16] == pytest.approx(8 * 60 / LOCAL.heal_period_s, rel=0.3)
