"""Network coordinates: true where round trips are those of a space, bounded whatever others claim."""

import math
import random
import statistics
import struct

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.coordinates import (
    COORDINATE_BYTES,
    DIMENSIONS,
    ERROR_MAX,
    FORCE,
    GRAVITY_S,
    HEIGHT_MIN_S,
    SECONDS_MAX,
    Coordinate,
    Coordinates,
    moved,
    unpack,
)

CYCLES = 1000
"""As in serf's `coordinate/performance_test.go`, from which the topologies are; so are the bounds, but for two."""


def line(i, j):
    return 0.010 * abs(i - j)


def grid(i, j):
    return 0.010 * math.dist(divmod(i, 5), divmod(j, 5))


def split(i, j):
    return 0.001 + (0.010 if (i <= 12) != (j <= 12) else 0.0)


def circle(i, j):
    """Points on a circle, and one that is as far from each as two radii: it stands above the middle."""
    if 0 in (i, j):
        return 0.200
    return 0.100 * math.dist(_on_circle(i), _on_circle(j))


def _on_circle(i):
    angle = 2 * math.pi * i / 25
    return (math.cos(angle), math.sin(angle))


def drawn(i, j):
    return max(0.001, random.Random(f"{min(i, j)} {max(i, j)}").gauss(0.100, 0.010))


def trained(count, truth, cycles=CYCLES, seed=1, jitter=0.0, liars=()):
    """Let each node observe one other at random, `cycles` times."""
    rng = random.Random(seed)
    nodes = [Coordinates(random.Random(f"{seed} {index}")) for index in range(count)]
    for _ in range(cycles):
        for i, node in enumerate(nodes):
            j = rng.randrange(count)
            if j == i:
                continue
            packed = liars[j](rng) if j in liars else nodes[j].packed
            node.told(str(j), packed)
            node.observe(str(j), truth(i, j) * (1.0 + jitter * rng.expovariate(1.0)))
    return nodes


def errors(nodes, truth, but=()):
    pairs = [
        (i, j)
        for i in range(len(nodes))
        for j in range(i)
        if i not in but and j not in but and truth(i, j) > 0
    ]
    return [abs(nodes[i].mine.distance_s(nodes[j].mine) - truth(i, j)) / truth(i, j) for i, j in pairs]


@pytest.mark.parametrize(
    ("count", "truth", "mean_max"),
    [
        (10, line, 0.0031),
        (25, grid, 0.0025),  # serf: 0.0016
        (25, split, 0.0005),  # serf: 0.00006
        (25, circle, 0.0028),
        (25, drawn, 0.075),
    ],
)
def test_distances_are_near_the_truth_on_the_topologies_of_serf(count, truth, mean_max):
    found = errors(trained(count, truth), truth)
    print(truth.__name__, statistics.median(found), statistics.mean(found), max(found))
    assert statistics.median(found) <= 0.10
    assert statistics.mean(found) <= mean_max


@pytest.mark.parametrize(("count", "truth"), [(10, line), (25, grid), (25, split)])
def test_jitter_of_a_quarter_leaves_the_median_error_within_a_tenth_of_what_is_typical(count, truth):
    def typical(i, j):
        return truth(i, j) * (1.0 + 0.25 * math.log(2))

    found = errors(trained(count, truth, jitter=0.25), typical)
    print(truth.__name__, statistics.median(found), statistics.mean(found), max(found))
    assert statistics.median(found) <= 0.10


def test_gravity_draws_the_cloud_to_the_origin():
    def centre(nodes):
        return math.hypot(
            *(statistics.mean(axis) for axis in zip(*(n.mine.vector for n in nodes), strict=True))
        )

    nodes = trained(4, line)
    for node in nodes:
        node.mine = attrs.evolve(node.mine, vector=tuple(part + 5.0 for part in node.mine.vector))
        node.packed = node.mine.pack()
    before = centre(nodes)
    rng = random.Random(1)
    for _ in range(20_000):
        i, j = rng.sample(range(4), 2)
        nodes[i].told(str(j), nodes[j].packed)
        nodes[i].observe(str(j), line(i, j))
    found = [abs(nodes[0].mine.distance_s(nodes[j].mine) / line(0, j) - 1) for j in (1, 2, 3)]
    assert centre(nodes) < before * math.exp(-0.5 * 5000 / GRAVITY_S**2)
    assert statistics.median(found) < 0.10


# Whatever is claimed.


FLOATS = st.floats(-SECONDS_MAX, SECONDS_MAX, width=32)
SIZES = st.floats(0.0, SECONDS_MAX, width=32)
ERRORS = st.floats(0.0, ERROR_MAX, width=32)
PLACES = st.builds(Coordinate, st.tuples(*[FLOATS] * DIMENSIONS), SIZES, ERRORS, FLOATS)
ROUND_TRIPS = st.floats(1e-6, SECONDS_MAX)


@settings(max_examples=300)
@given(PLACES, PLACES, ROUND_TRIPS, ROUND_TRIPS)
def test_one_observation_moves_a_node_by_no_more_than_a_share_of_its_longest_round_trip(
    mine, other, rtt_s, more_s
):
    longest_s = max(rtt_s, more_s)
    mine = attrs.evolve(mine, height_s=max(HEIGHT_MIN_S, mine.height_s))
    after = moved(mine, other, rtt_s, longest_s, random.Random(1))
    drift_s = math.hypot(*mine.vector) / GRAVITY_S**2 * math.hypot(*mine.vector)
    bound_s = FORCE * longest_s * 1.000001 + drift_s + 1e-9
    assert math.dist(mine.vector, after.vector) <= bound_s
    assert abs(after.height_s - mine.height_s) <= bound_s
    assert all(math.isfinite(part) and abs(part) <= SECONDS_MAX for part in after.vector)
    assert HEIGHT_MIN_S <= after.height_s <= SECONDS_MAX and 0.0 <= after.error <= ERROR_MAX


@given(PLACES, PLACES)
def test_a_distance_is_the_same_both_ways_and_never_negative(one, other):
    assert one.distance_s(other) == pytest.approx(other.distance_s(one)) and one.distance_s(other) >= 0.0


@given(PLACES)
def test_what_is_packed_is_what_is_read(place):
    assert unpack(place.pack()) == place


@given(st.binary(max_size=64))
def test_any_bytes_are_a_coordinate_within_bounds_or_none(data):
    found = unpack(data)
    assert found is None or (len(data) == COORDINATE_BYTES and unpack(found.pack()) == found)


ABSURD = [float("nan"), float("inf"), -float("inf"), 1e9]


@pytest.mark.parametrize("part", range(DIMENSIONS + 3))
@pytest.mark.parametrize("value", ABSURD)
def test_what_is_no_number_or_beyond_the_world_is_refused_and_counted(part, value):
    parts = [0.0] * (DIMENSIONS + 3)
    parts[part] = value
    node = Coordinates(random.Random(1))
    node.told("a", struct.pack(f">{len(parts)}f", *parts))
    node.told("a", bytes(COORDINATE_BYTES - 1))
    node.observe("a", 0.010)
    assert node.refused == 2 and node.get("a") is None and node.mine == Coordinate()


@pytest.mark.parametrize("rtt_s", [float("nan"), float("inf"), -1.0, 11.0])
def test_a_round_trip_beyond_belief_moves_nobody(rtt_s):
    node = Coordinates(random.Random(1))
    node.told("a", Coordinate().pack())
    node.observe("a", rtt_s)
    assert node.refused == 1 and node.mine == Coordinate()


def test_one_packet_that_waited_moves_nobody_far():
    nodes = trained(10, line)
    before = nodes[0].mine
    nodes[0].observe("5", 5.0)
    assert math.dist(before.vector, nodes[0].mine.vector) < 0.25 * line(0, 5)


def far_away(rng):
    return Coordinate(tuple(rng.uniform(-10, 10) for _ in range(DIMENSIONS)), 10.0, 0.0, 10.0).pack()


def in_our_place(_rng):
    return Coordinate(error=0.0).pack()


@pytest.mark.parametrize("lie", [far_away, in_our_place])
def test_a_liar_among_twenty_five_leaves_the_others_near_the_truth(lie):
    found = errors(trained(25, grid, liars={7: lie}), grid, but=(7,))
    print(lie.__name__, statistics.median(found), max(found))
    assert statistics.median(found) <= 0.20
