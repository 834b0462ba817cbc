"""Lifeguard's two experiments (arXiv 1707.00788, section V) as cells of a grid, and how one cell is run.

128 members, already formed; after a quiet 15 s, C of them fall to the anomaly together.

    threshold   for D seconds, once. When does the first healthy member hold a victim dead, and when do all?
    interval    for D, then I in peace, again and again for at least 120 s. How often does anybody (FP), and
                how often does a healthy member (FP-), hold a healthy member dead?

The anomaly withholds what its victim sends and should receive. Under memberlist's modes the loops of the
victim are stuck in their sends (`sim.goroutines`); under ours its timers run on all the while, which is
harder: it accuses whom it cannot hear, period after period.
"""

from collections.abc import Callable, Sequence

import attrs

from mesh.effects import Effect
from mesh.facts import Fact, MemberChanged
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.goroutines import Goroutines
from sim.peer import Peer
from sim.stream import random_of, seed_of

MEMBERS = 128
QUIET_S = 15.0
RUN_S = 120.0
CONCURRENT = (1, 4, 8, 12, 16, 20, 24, 28, 32)
DURATIONS_MS = (128, 512, 2048, 8192, 16384, 32768)
INTERVALS_MS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
REPETITIONS = 10
AFTERMATH_S = 3.0
"""After a block, what was under way ends; then nobody detects a victim any more."""

CONFIGURATIONS: dict[str, Callable[[], SwimOptions]] = {
    "swim": SwimOptions.plain_swim,
    "lha-probe": SwimOptions.lha_probe,
    "lha-suspicion": SwimOptions.lha_suspicion,
    "buddy": SwimOptions.buddy_system,
    "lifeguard": SwimOptions.lifeguard,
    "local": SwimOptions.local,
    "lan": SwimOptions.lan,
}
MEMBERLIST = ("swim", "lha-probe", "lha-suspicion", "buddy", "lifeguard")
"""Whose probe loop is stuck while its node cannot send."""


@attrs.frozen
class Cell:
    """One run of one experiment."""

    experiment: str
    """`threshold` or `interval`."""
    configuration: str
    concurrent: int
    """C, how many members fall ill together."""
    duration_ms: int
    """D, for how long."""
    interval_ms: int = 0
    """I, the peace between two blocks."""
    repetition: int = 0

    @property
    def seed(self) -> int:
        """The same for every configuration, so that all are judged on the same schedule."""
        return seed_of(self.repetition, self.concurrent, self.duration_ms, self.interval_ms)


@attrs.frozen
class Outcome:
    """What one run showed."""

    first_s: tuple[float, ...] = ()
    """Per victim that was detected: until the first healthy member held it dead."""
    all_s: tuple[float, ...] = ()
    """Per victim that all detected: until the last healthy member did."""
    undetected: int = 0
    """Victims of a threshold run whom not all held dead before the block ended."""
    false: int = 0
    """FP: times that any member held a healthy one dead."""
    false_at_healthy: int = 0
    """FP-."""
    packets: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Virtual, from the first block."""


def grid(experiment: str, configuration: str, repetitions: int) -> list[Cell]:
    """All cells of an experiment; every repetition holds each cell once, so it is a tenth of the paper's."""
    durations = DURATIONS_MS if experiment == "interval" else DURATIONS_MS[-2:]
    return [
        Cell(experiment, configuration, concurrent, duration_ms, interval_ms, repetition)
        for repetition in range(repetitions)
        for concurrent in CONCURRENT
        for duration_ms in durations
        for interval_ms in (INTERVALS_MS if experiment == "interval" else (0,))
    ]


class _Watch:
    """Who holds whom dead."""

    def __init__(self, crowd: Crowd, victims: Sequence[int]) -> None:
        self._crowd = crowd
        self._sick = {crowd.node(index): index for index in victims}
        self._began = crowd.time
        self._held_by: dict[int, set[int]] = {index: set() for index in victims}
        self.first: dict[int, float] = {}
        self.all: dict[int, float] = {}
        self.false = 0
        self.false_at_healthy = 0

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        for output in outputs:
            if isinstance(output, MemberChanged) and output.after.liveness is Liveness.DEAD:
                self._died(peer.index, output.after.node)

    def _died(self, observer: int, node: str) -> None:
        healthy = observer not in self._held_by
        victim = self._sick.get(node)
        if victim is None:
            self.false += 1
            self.false_at_healthy += healthy
        elif healthy:
            passed_s = self._crowd.time - self._began
            self.first.setdefault(victim, passed_s)
            self._held_by[victim].add(observer)
            if len(self._held_by[victim]) == len(self._crowd.peers) - len(self._sick):
                self.all.setdefault(victim, passed_s)


def run(cell: Cell, members: int = MEMBERS) -> Outcome:
    """Run one cell."""
    swim = CONFIGURATIONS[cell.configuration]()
    stuck = cell.configuration in MEMBERLIST
    options = CrowdOptions(swim, keep_log=False, **({"core": Goroutines} if stuck else {}))
    crowd = Crowd(cell.seed, options)
    crowd.form(members)
    chance = random_of(cell.seed, "anomaly")
    crowd.run_for(QUIET_S + chance.uniform(0.0, 2.0))
    victims = sorted(chance.sample(range(1, members + 1), cell.concurrent))
    watch = _Watch(crowd, victims)
    crowd.taps.append(watch)
    began, packets, size = crowd.time, crowd.counts.packets, crowd.counts.bytes
    _SCHEDULES[cell.experiment](crowd, cell, victims, stuck)
    return Outcome(
        tuple(watch.first.values()),
        tuple(watch.all.values()),
        len(victims) - len(watch.all) if cell.experiment == "threshold" else 0,
        watch.false,
        watch.false_at_healthy,
        crowd.counts.packets - packets,
        crowd.counts.bytes - size,
        crowd.time - began,
    )


def _threshold(crowd: Crowd, cell: Cell, victims: Sequence[int], stuck: bool) -> None:
    _block(crowd, victims, stuck)
    crowd.run_for(cell.duration_ms / 1000)
    _unblock(crowd, victims, stuck)
    crowd.run_for(AFTERMATH_S)


def _interval(crowd: Crowd, cell: Cell, victims: Sequence[int], stuck: bool) -> None:
    began = crowd.time
    while crowd.time - began < RUN_S:
        _block(crowd, victims, stuck)
        crowd.run_for(cell.duration_ms / 1000)
        _unblock(crowd, victims, stuck)
        crowd.run_for(cell.interval_ms / 1000)


_SCHEDULES = {"threshold": _threshold, "interval": _interval}


def _block(crowd: Crowd, victims: Sequence[int], stuck: bool) -> None:
    for index in victims:
        crowd.block(index)
        if stuck:
            crowd.call(index, "hold")


def _unblock(crowd: Crowd, victims: Sequence[int], stuck: bool) -> None:
    for index in victims:
        if stuck:
            crowd.call(index, "release")
        crowd.unblock(index)
