"""Observers see every member and are none: nobody probes or counts them, and they accuse nobody."""

import attrs
import pytest

from mesh import codec
from mesh.member import Liveness
from mesh.messages import Ping, PingRequest
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions

LOCAL = SwimOptions.local()
OBSERVER = 30


@pytest.fixture
def crowd():
    """Eight members, an observer, and what is said from now on."""
    crowd = Crowd(1, CrowdOptions(swim=LOCAL, keep_log=False))
    crowd.form(8)
    crowd.run_for(2.0)
    crowd.start(OBSERVER, seeds=[1], swim=attrs.evolve(LOCAL, observer=True))
    crowd.run_for(2.0)
    return crowd


def sent(crowd):
    """Collect (sender, packet)."""
    found = []

    def tap(peer, outputs):
        for output in outputs:
            data = getattr(output, "data", None)
            if data is not None:
                found.append((peer.index, codec.decode(data, codec.RELIABLE_BYTES_MAX)))

    crowd.taps.append(tap)
    return found


def test_it_sees_all_members_and_no_member_has_heard_of_it(crowd):
    crowd.run_for(20.0)
    observer = crowd.core(OBSERVER)
    for index in range(1, 9):
        assert crowd.sees(OBSERVER, index) is Liveness.ALIVE
        assert crowd.sees(index, OBSERVER) is None
        assert crowd.core(index).statistics().digest == observer.statistics().digest
    assert observer.live == 8


def test_nobody_probes_it(crowd):
    said = sent(crowd)
    crowd.run_for(20.0)
    node = crowd.node(OBSERVER)
    asked = [packet.message for _, packet in said if isinstance(packet.message, Ping | PingRequest)]
    assert asked
    assert all(message.target != node for message in asked)


def test_it_accuses_nobody_even_when_it_alone_is_cut_off(crowd):
    said = sent(crowd)
    crowd.cut(range(2, 9), [OBSERVER])
    crowd.cut([OBSERVER], range(2, 9))
    crowd.run_for(20.0)
    updates = [update for index, packet in said if index == OBSERVER for update in packet.updates]
    assert not [
        update for update in updates if update.member.liveness is not Liveness.ALIVE or update.accusers
    ]
    assert all(crowd.sees(1, index) is Liveness.ALIVE for index in range(1, 9))
    crowd.heal()
    crowd.run_for(10.0)
    assert all(crowd.sees(OBSERVER, index) is Liveness.ALIVE for index in range(1, 9))


def test_it_sees_joins_and_deaths_soon(crowd):
    crowd.start(9, seeds=[2])
    crowd.crash(3)
    assert crowd.run_until(lambda: crowd.sees(OBSERVER, 9) is Liveness.ALIVE, 5.0) is not None
    assert crowd.run_until(lambda: crowd.sees(OBSERVER, 3) is Liveness.DEAD, 15.0) is not None


def test_its_pause_and_its_end_trouble_nobody(crowd):
    said = sent(crowd)
    crowd.pause(OBSERVER)
    crowd.run_for(10.0)
    crowd.resume(OBSERVER)
    crowd.run_for(5.0)
    crowd.leave(OBSERVER)
    crowd.crash(OBSERVER)
    crowd.run_for(10.0)
    assert all(crowd.sees(index, OBSERVER) is None for index in range(1, 9))
    assert not [
        1 for _, packet in said for update in packet.updates if update.member.node == crowd.node(OBSERVER)
    ]
