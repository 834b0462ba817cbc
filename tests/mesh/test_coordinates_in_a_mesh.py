"""Coordinates where they live: carried by pings and acks of a mesh whose delays are known."""

import math
import random
import statistics

import attrs
import pytest

from mesh import codec
from mesh.coordinates import Coordinate
from mesh.messages import Ack, Ping, Update
from mesh.now import Now
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from sim.network import Rule

WITH = attrs.evolve(SwimOptions.lan(), coordinates=True)
SITES = {"a": range(1, 6), "b": range(6, 11), "c": range(11, 16)}
BETWEEN_S = {("a", "b"): 0.010, ("b", "c"): 0.020, ("a", "c"): 0.025}
"""One way, on top of what every path has."""
WITHIN_S = 0.001


def world(seed, count=15, **options):
    """Three sites: round trips of 2 ms within one, and of 22, 42 and 52 ms between two."""
    base = Rule(delay_s=WITHIN_S)
    crowd = Crowd(seed, CrowdOptions(swim=WITH, network=base, keep_log=False, **options))
    for (one, other), delay_s in BETWEEN_S.items():
        ends = [crowd.names(SITES[one]), crowd.names(SITES[other])]
        crowd.lay(
            f"{one}{other}", Rule(ends[0], ends[1], delay_s=delay_s), Rule(ends[1], ends[0], delay_s=delay_s)
        )
    crowd.form(count)
    return crowd


def site(index):
    return next(name for name, members in SITES.items() if index in members)


def truth_s(i, j):
    ends = tuple(sorted((site(i), site(j))))
    return 2 * (WITHIN_S + BETWEEN_S.get(ends, 0.0))


def errors(crowd, observer, among):
    core = crowd.core(observer)
    pairs = [(i, j) for i in among for j in among if i < j]
    found = [(core.distance_s(crowd.node(i), crowd.node(j)), truth_s(i, j)) for i, j in pairs]
    return [abs(estimate_s - true_s) / true_s for estimate_s, true_s in found]


@pytest.mark.parametrize("seed", range(2))
def test_each_node_knows_how_far_apart_any_two_are_within_a_tenth(seed):
    crowd = world(seed)
    crowd.run_for(180.0)
    for observer in (1, 8, 15):
        assert statistics.median(errors(crowd, observer, range(1, 16))) <= 0.10
    assert not any(peer.core.statistics().coordinates_refused for peer in crowd.running)


def test_a_liar_is_believed_by_nobody_about_the_others():
    crowd = world(3, core=_core)
    crowd.run_for(180.0)
    honest = [index for index in range(1, 16) if index != 7]
    assert statistics.median(errors(crowd, 1, honest)) <= 0.20
    assert all(crowd.sees(1, index).name == "ALIVE" for index in range(1, 16))


class Liar(Swim):
    """Says with each answer that it is elsewhere, and quite sure of it."""

    def receive(self, now, data, source, reliable=False):
        self._lie(now)
        return super().receive(now, data, source, reliable)

    def _lie(self, now):
        rng = random.Random(f"{now.mono}")
        vector = tuple(rng.uniform(-10, 10) for _ in range(8))
        self._detector.round_trips.coordinates.packed = Coordinate(vector, 10.0, 0.0, 10.0).pack()


def _core(options, me, rng, known):
    return (Liar if me.name == "node-7" else Swim)(options, me, rng, known)


def test_a_peer_that_was_never_measured_gets_the_patience_that_its_coordinate_demands():
    crowd = world(1)
    crowd.run_for(120.0)
    core, far = crowd.core(1), crowd.node(15)
    trips = core._detector.round_trips
    del trips._measured[far]
    guessed_s = trips.timeout_s(far)
    assert 0.052 < guessed_s < 4 * 0.052
    trips.coordinates.forget(far)
    assert trips.timeout_s(far) != guessed_s


def test_without_the_switch_nothing_is_said_kept_or_estimated():
    crowd = Crowd(1, CrowdOptions(swim=SwimOptions.lan(), keep_log=False))
    crowd.form(4)
    crowd.run_for(10.0)
    core = crowd.core(1)
    assert core.distance_s(crowd.node(2), crowd.node(3)) is None
    assert core._detector.round_trips.mine == b""


def test_one_that_keeps_coordinates_and_one_that_does_not_live_together():
    crowd = Crowd(1, CrowdOptions(swim=WITH, keep_log=False))
    crowd.start(1, swim=SwimOptions.lan())
    for index in range(2, 7):
        crowd.start(index, seeds=[1], swim=SwimOptions.lan() if index % 2 else WITH)
    crowd.run_for(30.0)
    assert crowd.converged()
    core = crowd.core(2)
    assert core.distance_s(crowd.node(4), crowd.node(6)) is not None
    assert core.distance_s(crowd.node(4), crowd.node(5)) is None
    assert core.distance_s(crowd.node(2), crowd.node(2)) == 0.0


@pytest.mark.parametrize("coordinate", [b"x", bytes([255]) * 44, bytes(64)])
def test_nonsense_in_place_of_a_coordinate_is_counted_and_its_packet_taken(coordinate):
    me, peer = (account_of(1, index, 1, (f"10.0.0.{index}", 7946)) for index in (1, 2))
    core = Swim(WITH, me, random.Random(1))
    core.receive(Now(1.0, 1.0), _packet(Ping(peer.node, 7, me.node), peer), peer.address)
    answer = core.receive(Now(1.1, 1.1), _packet(Ping(peer.node, 8, me.node, coordinate), peer), peer.address)
    acks = [codec.decode(output.data).message for output in answer if hasattr(output, "data")]
    assert any(isinstance(ack, Ack) and ack.nonce == 8 and ack.coordinate for ack in acks)
    assert core.statistics().coordinates_refused == 1 and core.statistics().decode_errors == 0


def _packet(message, *rows):
    return codec.packet([codec.item(message), *(codec.item(Update(row)) for row in rows)])


def test_a_ping_with_a_coordinate_costs_46_bytes_more():
    plain, told = (
        codec.item(Ping("f" * 16, 2**48 - 1, "e" * 16, place)) for place in (b"", Coordinate().pack())
    )
    assert len(told) - len(plain) == 46 and math.isclose(len(plain), 31)
