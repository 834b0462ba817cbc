"""The network and its streams: each promise of theirs, with two owners that only listen."""

import itertools
from functools import partial

import attrs
import pytest

from sim.network import MTU_BYTES, TAIL_FACTOR_MAX, Network
from sim.pipe import RETRANSMIT_S, WINDOW_BYTES, End, Pipes
from sim.rule import Burst, Rule, condition, partition
from sim.stream import Stream, random_of, seed_of
from sim.world import World

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1)
WIRE = Rule(delay_s=0.001)


@attrs.define(eq=False)
class Ear:
    """A host that writes down what it hears; it takes what comes at once unless it is `stopped`."""

    name: str
    address: tuple[str, int]
    lab: "Lab"
    powered: bool = True
    listening: bool = True
    seen_as: tuple[str, int] | None = None
    stopped: bool = False
    heard: list[tuple[float, object]] = attrs.Factory(list)
    ends: list[End] = attrs.Factory(list)
    to_send: bytearray = attrs.Factory(bytearray)

    def note(self, what: object) -> None:
        self.heard.append((round(self.lab.world.time, 6), what))

    def datagram(self, source: tuple[str, int], data: bytes) -> bool:
        self.note(data)
        return True

    def accepted(self, end: End) -> None:
        self.ends.append(end)

    def opened(self, end: End) -> None:
        self.note("opened")

    def lost(self, end: End, reason: str) -> None:
        self.note(reason)

    def output(self, end: End, bytes_max: int) -> bytes:
        taken = bytes(self.to_send[:bytes_max])
        del self.to_send[:bytes_max]
        return taken

    def arrived(self, end: End, data: bytes) -> None:
        self.note(data)
        if not self.stopped:
            self.lab.pipes.taken(end, len(data))


class Lab:
    """Two ears and what lies between them."""

    def __init__(self, base: Rule = WIRE) -> None:
        self.world = World()
        self.network = Network(1, lambda: self.world.time, self.world.at, base)
        self.pipes = Pipes(self.network, lambda: self.world.time, self.world.at)
        self.one, self.two = Ear("one", HERE, self), Ear("two", THERE, self)
        self.network.hosts |= {HERE: self.one, THERE: self.two}

    def dial(self) -> End:
        end = self.pipes.dial(self.one, 1, THERE)
        self.world.run_for(0.1)
        return end

    def send(self, end: End, data: bytes) -> None:
        self.one.to_send += data
        self.pipes.flush(end)

    def flood(self, count: int, base: Rule | None = None) -> list[bytes]:
        for number in range(count):
            send = partial(self.network.send, self.one, THERE, str(number).encode())
            self.world.at(self.world.time + number * 0.001, send)
        self.world.run_for(count * 0.001 + 2.0)
        return [what for _, what in self.two.heard]


# -- datagrams ------------------------------------------------------------------------------------


def test_a_quiet_network_delivers_each_datagram_once_in_order_after_its_delay():
    lab = Lab()
    assert lab.flood(20) == [str(number).encode() for number in range(20)]
    assert lab.two.heard[0][0] == 0.001


def test_loss_takes_about_its_share():
    lab = Lab(Rule(delay_s=0.001, loss=0.2))
    got = lab.flood(2000)
    assert 1500 < len(got) < 1700
    assert lab.network.statistics.lost == 2000 - len(got)


def test_duplicates_come_twice_and_jitter_reorders():
    got = Lab(Rule(delay_s=0.001, jitter_s=0.01, duplicate=0.5)).flood(200)
    assert 270 < len(got) < 330
    assert [int(n) for n in got] != sorted(int(n) for n in got)


def test_bursts_lose_in_runs():
    burst = Burst(begin=0.05, end=0.2)
    lab = Lab(Rule(delay_s=0.001, burst=burst))
    got = [int(what) for what in lab.flood(2000)]
    gaps = [after - before - 1 for before, after in itertools.pairwise(got) if after - before > 1]
    assert 2000 * 0.7 < len(got) < 2000 * 0.9
    assert 3 < sum(gaps) / len(gaps) < 8


def test_a_clog_holds_everything_and_lets_it_go_at_once():
    lab = Lab()
    lab.network.lay("clog", Rule(clog=True))
    lab.flood(5)
    assert lab.two.heard == []
    lab.network.lift("clog")
    lab.world.run_for(0.01)
    assert [what for _, what in lab.two.heard] == [b"0", b"1", b"2", b"3", b"4"]
    assert lab.network.statistics.longest_s > 1.9


def test_reordered_datagrams_are_overtaken_and_a_tail_is_long_and_rare():
    got = [int(what) for what in Lab(Rule(delay_s=0.001, reorder=0.3, reorder_s=0.01)).flood(100)]
    assert sorted(got) == list(range(100)) != got
    lab = Lab(Rule(delay_s=0.001, tail=0.1, tail_s=0.05))
    lab.flood(200)
    assert 0.05 < lab.network.statistics.longest_s <= 0.001 + 0.05 * TAIL_FACTOR_MAX


def test_a_replay_comes_once_more_and_late():
    lab = Lab(Rule(delay_s=0.001, replay=1.0, replay_s=1.0))
    assert sorted(lab.flood(10)) == sorted([str(number).encode() for number in range(10)] * 2)


@pytest.mark.parametrize(
    ("trouble", "becomes"),
    [
        (Rule(flip=1.0, unchecked=True), lambda data: len(data) == 8 and data != b"12345678"),
        (Rule(truncate=1.0), lambda data: b"12345678".startswith(data) and len(data) < 8),
        (Rule(oversize=1.0), lambda data: data.startswith(b"12345678") and len(data) > MTU_BYTES),
    ],
    ids=["flip", "truncate", "oversize"],
)
def test_what_is_spoilt_arrives_spoilt(trouble: Rule, becomes):
    lab = Lab(attrs.evolve(trouble, delay_s=0.001))
    for _ in range(20):
        lab.network.send(lab.one, THERE, b"12345678")
    lab.world.run_for(1.0)
    assert len(lab.two.heard) >= 15
    assert all(becomes(what) for _, what in lab.two.heard)


def test_a_kernel_drops_what_its_checksum_finds_flipped():
    lab = Lab(Rule(flip=1.0))
    assert lab.flood(5) == []
    assert lab.network.statistics.checksum == 5


def test_a_black_hole_swallows_the_large_and_a_cut_of_datagrams_spares_streams():
    lab = Lab(Rule(delay_s=0.001, mtu_bytes=100))
    lab.network.send(lab.one, THERE, bytes(101))
    lab.network.send(lab.one, THERE, bytes(100))
    lab.world.run_for(0.1)
    assert [len(what) for _, what in lab.two.heard] == [100]
    lab = Lab(Rule(delay_s=0.001, udp_cut=True))
    lab.dial()
    assert lab.flood(3) == []
    assert lab.one.heard[0][1] == "opened"


def test_what_is_hit_counts_for_the_fault_that_hit_it():
    bites: list[str] = []
    lab = Lab()
    lab.network.bite = bites.append
    lab.network.lay("one", Rule(cut=True, by="Storm"))
    lab.network.lay("two", Rule(targets=frozenset(("elsewhere",)), cut=True, by="Other"))
    lab.flood(3)
    assert bites == ["Storm"] * 3


def test_a_cut_is_one_way_and_healing_ends_it():
    lab = Lab()
    lab.network.lay("cut", Rule(frozenset(("one",)), frozenset(("two",)), cut=True))
    lab.network.send(lab.one, THERE, b"lost")
    lab.network.send(lab.two, HERE, b"back")
    lab.world.run_for(0.1)
    lab.network.lift("cut")
    lab.network.send(lab.one, THERE, b"there")
    lab.world.run_for(0.1)
    assert [what for _, what in lab.one.heard] == [b"back"]
    assert [what for _, what in lab.two.heard] == [b"there"]


def test_rules_of_a_path_add_up():
    both = condition((Rule(loss=0.5, delay_s=0.1), Rule(loss=0.5, delay_s=0.2, jitter_s=0.3)))
    assert both.loss == pytest.approx(0.75)
    assert both.delay_s == pytest.approx(0.3)
    assert both.jitter_s == 0.3
    assert not both.cut


def test_a_partition_cuts_between_groups_and_not_within():
    rules = partition((("a", "b"), ("c",)))
    cut = {(s, t) for s in "abc" for t in "abc" for rule in rules if rule.applies(s, t)}
    assert cut == {("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")}


# -- streams --------------------------------------------------------------------------------------


def test_a_dial_opens_after_a_round_trip_and_bytes_keep_their_order_under_jitter():
    lab = Lab(Rule(delay_s=0.001, jitter_s=0.05, loss=0.1))
    end = lab.dial()
    lab.world.run_for(4.0)
    for number in range(50):
        lab.send(end, f"{number} ".encode())
        lab.world.run_for(0.001)
    lab.world.run_for(3.0)
    assert lab.one.heard[0][1] == "opened"
    assert b"".join(what for _, what in lab.two.heard) == b"".join(f"{n} ".encode() for n in range(50))


@pytest.mark.parametrize(
    ("trouble", "reason", "after_s"),
    [
        (lambda lab: setattr(lab.two, "listening", False), "refused", 0.002),
        (lambda lab: setattr(lab.two, "powered", False), "timed out", 5.0),
        (lambda lab: lab.network.lay("cut", Rule(cut=True)), "timed out", 5.0),
    ],
    ids=["nobody listens", "no power", "cut"],
)
def test_a_dial_that_fails_says_how(trouble, reason: str, after_s: float):
    lab = Lab()
    trouble(lab)
    lab.dial()
    lab.world.run_for(6.0)
    assert lab.one.heard == [(after_s, reason)]


def test_a_cut_holds_bytes_up_until_a_retransmission_after_it_heals():
    lab = Lab()
    end = lab.dial()
    lab.network.lay("cut", Rule(cut=True))
    lab.send(end, b"late")
    lab.world.run_for(1.0)
    assert lab.two.heard == []
    lab.network.lift("cut")
    lab.world.run_for(1.0)
    waited_s = lab.two.heard[0][0] - 0.1
    assert lab.two.heard[0][1] == b"late"
    assert waited_s == pytest.approx(RETRANSMIT_S * (1 + 2 + 4) + 0.001)


def test_a_reader_who_stops_makes_the_writer_wait():
    lab = Lab()
    end = lab.dial()
    lab.two.stopped = True
    lab.send(end, bytes(2 * WINDOW_BYTES))
    lab.world.run_for(1.0)
    got = [len(what) for _, what in lab.two.heard]
    assert WINDOW_BYTES <= sum(got) < 2 * WINDOW_BYTES
    lab.two.stopped = False
    for size in got:
        lab.pipes.taken(lab.two.ends[0], size)
    lab.world.run_for(1.0)
    assert sum(len(what) for _, what in lab.two.heard) == 2 * WINDOW_BYTES


def test_what_was_sent_before_the_end_arrives_before_the_end():
    lab = Lab()
    end = lab.dial()
    lab.send(end, b"last words")
    lab.pipes.close(end)
    lab.world.run_for(1.0)
    assert [what for _, what in lab.two.heard] == [b"last words", "closed"]


def test_who_writes_to_a_process_that_is_gone_is_reset():
    lab = Lab()
    end = lab.dial()
    lab.pipes.vanish(lab.two.ends[0])
    lab.send(end, b"hello?")
    lab.world.run_for(1.0)
    assert lab.one.heard[-1] == (0.102, "reset")


def test_who_writes_to_a_machine_without_power_hears_nothing():
    lab = Lab()
    end = lab.dial()
    lab.pipes.vanish(lab.two.ends[0])
    lab.two.powered = False
    lab.send(end, b"hello?")
    lab.world.run_for(60.0)
    assert [what for _, what in lab.one.heard] == ["opened"]


# -- chance ---------------------------------------------------------------------------------------


def test_streams_differ_by_name_and_are_uniform():
    draws = [Stream(seed_of(1, "path", "a", name)).random() for name in map(str, range(4000))]
    assert len(set(draws)) == 4000
    assert 0.48 < sum(draws) / 4000 < 0.52
    assert all(0.0 <= draw < 1.0 for draw in draws)


def test_a_stream_is_a_function_of_seed_and_names():
    assert random_of(1, "node", "a").random() == random_of(1, "node", "a").random()
    assert random_of(1, "node", "a").random() != random_of(2, "node", "a").random()
