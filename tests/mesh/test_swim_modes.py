"""Plain SWIM, Lifeguard and its parts by configuration: which rule each of them follows."""

import attrs
import pytest

from mesh import codec
from mesh.facts import MemberChanged, Quarantined
from mesh.member import Liveness
from mesh.messages import Nack, Ping, PingRequest
from mesh.swim_options import SwimOptions
from tests.mesh.small_world import doubt, settled

SWIM = SwimOptions.plain_swim(alpha=2.0)
PARTS = {
    "swim": SWIM,
    "lha-probe": SwimOptions.lha_probe(2.0),
    "lha-suspicion": SwimOptions.lha_suspicion(2.0),
    "buddy": SwimOptions.buddy_system(2.0),
    "lifeguard": SwimOptions.lifeguard(2.0),
}


def sent(world, kind):
    packets = (codec.decode(output.data, codec.RELIABLE_BYTES_MAX) for _, _, output in world.posted)
    return [packet for packet in packets if isinstance(packet.message, kind)]


def test_lifeguard_is_the_sum_of_its_parts():
    whole, base = attrs.asdict(PARTS["lifeguard"]), attrs.asdict(SWIM)
    parts = [attrs.asdict(PARTS[name]) for name in ("lha-probe", "lha-suspicion", "buddy")]
    changed = {}
    for part in parts:
        changed |= {name: value for name, value in part.items() if value != base[name]}
    assert whole == base | changed
    assert {"health_max", "nacks", "buddy", "suspicion_max_factor", "confirmations"} <= changed.keys()


@pytest.mark.parametrize("name", PARTS)
def test_every_mode_notices_a_crash_and_nothing_else(name):
    world = settled(8, options=PARTS[name])
    world.crash(2)
    assert world.run(40, until=lambda: world.everybody_sees(2, Liveness.DEAD)) > SWIM.suspicion_factor
    assert {fact.after.name for _, _, fact in world.facts(MemberChanged)} == {"n2"}
    assert not world.facts(Quarantined), "SWIM has one verdict"


def test_plain_swim_kills_a_suspect_at_its_one_timeout_however_many_accuse_it():
    world = settled(8, options=SWIM)
    world.crash(2)
    for accuser in (4, 5, 6, 7):
        doubt(world, 1, 2, Liveness.SUSPECT, accuser)
    waited_s = world.run(20, until=lambda: world.sees(1, 2) is Liveness.DEAD)
    assert waited_s == pytest.approx(2.0, abs=0.01)


def test_in_lifeguard_each_accuser_shortens_the_timeout():
    waits_s = {}
    for accusers in ((4,), (4, 5), (4, 5, 6, 7)):
        world = settled(8, options=PARTS["lifeguard"])
        world.sever([1], range(2, 9))
        for accuser in accusers:
            doubt(world, 1, 2, Liveness.SUSPECT, accuser)
        waits_s[len(accusers)] = world.run(30, until=lambda world=world: world.sees(1, 2) is Liveness.DEAD)
    assert waits_s[4] == pytest.approx(2.0, abs=0.01), "alpha * max(1, log10 n) periods"
    assert waits_s[4] < waits_s[2] < 7.01 < waits_s[1] < 12.01, (
        "12 - 10 * log(C + 1) / log(4); our own round confirms"
    )


def test_plain_swim_believes_a_rumour_of_death():
    world = settled(5, options=SWIM)
    doubt(world, 1, 2, Liveness.DEAD)
    assert world.sees(1, 2) is Liveness.DEAD
    world.run(5, until=world.converged)
    assert world.converged(), "its subject refutes with a higher incarnation"


@pytest.mark.parametrize("name", PARTS)
def test_only_the_buddy_system_tells_a_suspect_on_a_ping(name):
    world = settled(4, options=PARTS[name])
    world.crash(2)
    doubt(world, 1, 2, Liveness.SUSPECT, accuser=3)
    world.core(1)._voice.hush(f"{2:016x}")
    world.posted.clear()
    world.call(1, "probe", f"{2:016x}")
    told = bool(sent(world, Ping)[0].updates)
    assert told == (name in ("buddy", "lifeguard"))


@pytest.mark.parametrize("name", PARTS)
def test_only_local_health_asks_for_nacks(name):
    world = settled(5, options=PARTS[name])
    world.crash(2)
    world.run(10)
    assert sent(world, PingRequest)
    assert bool(sent(world, Nack)) == (name in ("lha-probe", "lifeguard"))


@pytest.mark.parametrize("name", PARTS)
def test_only_local_health_blames_itself_for_each_missing_nack(name):
    world = settled(5, options=PARTS[name])
    world.sever([1], [2, 3, 4, 5])
    world.run(2.1)
    assert (world.core(1).statistics().health >= 3) == (name in ("lha-probe", "lifeguard"))
