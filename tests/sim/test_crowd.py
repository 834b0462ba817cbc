"""A crowd behaves as a network of processes does, and one seed is one history."""

import subprocess
import sys

import attrs
import pytest

from mesh.facts import MemberChanged
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.network import Rule

LOCAL = SwimOptions.local()


def formed(count, seed=1, **options):
    crowd = Crowd(seed, CrowdOptions(**options))
    crowd.form(count)
    crowd.run_for(3.0)
    return crowd


def deaths(crowd):
    return [
        (fact.after.node, index)
        for _, index, fact in crowd.log
        if isinstance(fact, MemberChanged) and fact.after.liveness is Liveness.DEAD
    ]


def history(seed):
    crowd = formed(12, seed)
    crowd.lay("loss", Rule(loss=0.1, duplicate=0.1))
    crowd.crash(3)
    crowd.pause(4)
    crowd.run_for(5.0)
    crowd.resume(4)
    crowd.restart(3, seeds=[1])
    crowd.run_for(5.0)
    return crowd.trace_digest()


def test_one_seed_is_one_history_in_any_process():
    code = "from tests.sim.test_crowd import history; print(history(5))"
    for hash_seed in ("1", "2"):
        words = [sys.executable, "-c", code]
        env = {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
        assert run.stdout.strip() == history(5)
    assert history(6) != history(5)


def test_looking_at_the_digest_changes_nothing():
    one, other = formed(5), formed(5)
    one.trace_digest()
    one.run_for(1.0)
    other.run_for(1.0)
    assert one.trace_digest() == other.trace_digest()


def test_who_is_formed_knows_everybody_and_says_nothing_about_it():
    crowd = Crowd(2)
    crowd.form(20)
    assert crowd.converged()
    crowd.run_for(10.0)
    assert crowd.converged()
    assert crowd.log == []
    assert crowd.counts.packets == pytest.approx(20 * 10 * 4, rel=0.1), "a ping and an ack each half second"


def test_who_joins_through_a_seed_ends_with_the_same_view():
    crowd = Crowd(3)
    for index in range(1, 21):
        crowd.start(index, seeds=[1] if index > 1 else [])
    assert crowd.run_until(crowd.converged, 10.0, every_s=0.1) is not None


def test_a_crash_is_seen_by_all_and_a_restart_is_a_new_life():
    crowd = formed(8)
    crowd.crash(5)
    assert crowd.run_until(lambda: crowd.everybody_sees(5, Liveness.DEAD), 10.0)
    crowd.restart(5, seeds=[1])
    assert crowd[5].generation == 2
    assert crowd.run_until(crowd.converged, 10.0) is not None


def test_who_is_stopped_for_long_is_dead_until_it_goes_on():
    crowd = formed(8)
    crowd.pause(2)
    assert crowd.run_until(lambda: crowd.everybody_sees(2, Liveness.DEAD), 30.0)
    sent = crowd.counts.packets
    assert crowd[2].inbox
    crowd.resume(2)
    assert not crowd[2].inbox
    assert crowd.counts.packets > sent
    assert crowd.run_until(crowd.converged, 10.0) is not None


def test_the_timers_of_a_blocked_node_run_on_and_its_packets_leave_afterwards():
    crowd = formed(8)
    crowd.block(2)
    crowd.run_for(0.7)
    core = crowd.core(2)
    received = core.statistics().packets_received
    assert crowd[2].outbox
    assert crowd[2].inbox
    assert core.statistics().rounds_started > 6
    crowd.unblock(2)
    assert core.statistics().packets_received > received
    assert not crowd[2].outbox
    crowd.run_for(5.0)
    assert crowd.converged()


def test_a_socket_that_nobody_reads_overflows():
    crowd = formed(3)
    crowd.pause(2)
    for _ in range(7000):
        crowd.call(1, "probe", crowd.node(2))
        crowd.core(1)._detector.renew(crowd.node(2))
    crowd.run_for(0.1)
    assert crowd.counts.overflowed > 0
    assert crowd[2]._buffered <= 212_992


def test_a_partition_parts_and_heals():
    crowd = formed(10)
    crowd.partition(range(1, 6), range(6, 11))
    assert crowd.run_until(lambda: crowd.sees(1, 10) is Liveness.DEAD, 30.0)
    assert crowd.counts.cut > 0
    crowd.run_for(10.0)
    crowd.log.clear()
    crowd.heal()
    assert crowd.run_until(crowd.converged, 30.0) is not None
    assert deaths(crowd) == []


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_cut_takes_the_ways_it_was_told(both_ways):
    crowd = formed(2)
    crowd.cut([1], [2], both_ways=both_ways)
    before = [crowd.core(index).statistics().packets_received for index in (1, 2)]
    crowd.run_for(1.0)
    after = [crowd.core(index).statistics().packets_received for index in (1, 2)]
    assert after[1] == before[1]
    assert (after[0] == before[0]) is both_ways


def test_loss_strikes_its_share_and_only_its_path():
    crowd = formed(4)
    crowd.lay("loss", Rule(crowd.names([1]), None, loss=0.5))
    sent = crowd.core(1).statistics().packets_sent
    others = crowd.counts.packets - sent
    crowd.run_for(60.0)
    sent = crowd.core(1).statistics().packets_sent - sent
    assert 0.4 * sent < crowd.counts.lost < 0.6 * sent
    assert crowd.counts.packets - sent - others > crowd.counts.lost


def test_a_node_may_have_options_and_a_clock_of_its_own():
    crowd = formed(4)
    slow = attrs.evolve(LOCAL, probe_period_s=2.0)
    crowd.start(5, seeds=[1], swim=slow, skew_s=30.0)
    assert crowd.core(5).options.probe_period_s == 2.0
    assert crowd[5].now(crowd.time).wall - crowd[1].now(crowd.time).wall == pytest.approx(30.0)
    crowd[5].drift = 0.01
    before = crowd[5].now(crowd.time).wall
    crowd.run_for(10.0)
    assert crowd[5].now(crowd.time).wall - before == pytest.approx(10.1, abs=1e-6)


def test_a_reliable_packet_waits_for_lost_segments_and_is_refused_where_nobody_listens():
    crowd = formed(3, refusals=True)
    crowd.lay("loss", Rule(loss=1.0))
    crowd.run_for(1.0)
    assert crowd.counts.lost > 0
    crowd.heal()
    crowd.run_for(1.0)
    crowd.crash(3)
    noticed = crowd.run_until(lambda: crowd.core(1).is_quarantined(crowd.node(3)), 10.0)
    assert noticed is not None


def test_who_moves_is_found_by_what_it_sends():
    crowd = formed(3)
    crowd.move(3, ("10.9.9.9", 7946))
    crowd.run_for(0.4)
    received = crowd.core(3).statistics().packets_received
    crowd.call(3, "probe", crowd.node(1))
    crowd.run_for(0.1)
    assert crowd.core(3).statistics().packets_received > received, "answers go where the ping came from"


def test_taps_hear_every_input_of_every_core():
    crowd = formed(3)
    seen = []
    crowd.taps.append(lambda peer, outputs: seen.append(peer.index))
    before = crowd.counts.delivered + crowd.counts.ticks
    crowd.run_for(2.0)
    assert len(seen) == crowd.counts.delivered + crowd.counts.ticks - before
    assert set(seen) == {1, 2, 3}
