"""The world: virtual time, one heap of events, and everything that happens in it.

Events are ordered by (time, the order in which they were planned). All else
follows: hosts drive the real node cores, the network and the pipes carry their
real bytes, faults and clients are events like any other. Nothing reads a clock,
draws from a shared generator or iterates a set, so one seed is one history.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol

import attrs

from mesh.effects import Address, Effect
from mesh.identity import Identity
from mesh.swim_options import SwimOptions
from node.core import NodeCore, NodeOptions
from sim.host import Host
from sim.network import Network
from sim.pipe import Pipes
from sim.rule import Groups, Rule, partition
from sim.trace import Trace

if TYPE_CHECKING:
    from sim.workload import Client

PORT = 7946
MODEL = "toy"
WATCH_S = 0.5
"""Virtual time between two looks of whoever shows progress."""

WATCHED_OF = 3
"""One host among the first so many is watched more closely (`sim.safety.traffic.RumourCheck`)."""

STARTS_APART_S = 0.05
"""Hosts of a cluster start so long after one another."""


class Violation(AssertionError):
    """A check has failed: which, and how."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
        self.message = message


class Check(Protocol):
    """Something that must hold after every input of every host. See `sim.checks`."""

    def after(self, host: Host, effects: list[Effect]) -> None:
        """Look at a host that has just handled an input. Raises Violation."""


@attrs.frozen
class WorldOptions:
    """How every node of a world is built."""

    node: NodeOptions = NodeOptions(SwimOptions.local())
    network: Rule = Rule(delay_s=0.0003, jitter_s=0.0004)
    """The undisturbed network."""
    core: Callable[..., NodeCore] = NodeCore
    """What to run; the checks' own tests plant broken ones here."""
    keep_trace: bool = False


class World:
    """One history. Deterministic in (seed, options, what is done to it)."""

    def __init__(
        self, seed: int = 0, options: WorldOptions | None = None, checks: tuple[Check, ...] = ()
    ) -> None:
        self.seed = seed
        self.options = options or WorldOptions()
        self.time = 0.0
        self.events = 0
        self.hosts: dict[str, Host] = {}
        self.clients: list[Client] = []
        self.struck: dict[str, int] = {}
        """How often each kind of fault has struck."""
        self.bitten: dict[str, int] = {}
        """How often each kind has had an effect: on a packet, a process, a machine."""
        self.excused: frozenset[str] = frozenset()
        """Checks that the faults of this run break by their nature."""
        self.excuses: dict[str, int] = {}
        """How often each of those would have failed."""
        self.reached: dict[str, int] = {}
        """How often each state that checks are about has been seen."""
        self.healed_at: float | None = None
        self.addresses: dict[Address, str] = {}
        """Every address that a host has or had."""
        self.buried: dict[Identity, float] = {}
        """When somebody first declared each life dead."""
        self.doubted: dict[tuple[str, str, int], dict[Identity, float]] = {}
        """Since when each life (host, node id, generation) has had a case against whom."""
        self.lives: dict[str, list[Host]] = {}
        """The hosts of each node id, once for each life, the last one at the end."""
        self.watch: Callable[[float], None] = lambda _time: None
        """Called now and then with the virtual time, for whoever shows progress."""
        self.checks = checks
        self.trace = Trace(self.options.keep_trace)
        self.network = Network(
            seed, lambda: self.time, self.at, self.options.network, bite=lambda kind: self.bite(kind)
        )
        self.pipes = Pipes(self.network, lambda: self.time, self.at)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0
        self._moves = 0

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    # -- hosts ------------------------------------------------------------------------------------

    def add(self, name: str, models: tuple[str, ...] = (MODEL,), seeds: tuple[str, ...] = ()) -> Host:
        """Add a host that is not started yet, with an engine for each model."""
        number = len(self.hosts) + 1
        address: Address = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", PORT)
        replicas = {f"{model}-{index}": model for index, model in enumerate(models)}
        known = tuple(self.hosts[seed].address for seed in seeds)
        host = Host(self, name, address, replicas, known)
        self.hosts[name] = self.network.hosts[address] = host
        host.watched = number - 1 == self.seed % WATCHED_OF
        self.addresses[address] = name
        return host

    def move(self, host: Host) -> None:
        """Give a machine another address, as DHCP or a new rack does."""
        self._moves += 1
        del self.network.hosts[host.address]
        host.address = (f"10.200.{self._moves >> 8 & 255}.{self._moves & 255}", PORT)
        self.network.hosts[host.address] = host
        self.addresses[host.address] = host.name

    def cluster(
        self, count: int, workers: int | None = None, seeds: int = 2, apart_s: float = STARTS_APART_S
    ) -> list[str]:
        """Add and start `node-0` and so on, the last `workers` of them with an engine; all by default."""
        names = [f"node-{index}" for index in range(count)]
        entries = 0 if workers is None else count - workers
        for index, name in enumerate(names):
            models = (MODEL,) if index >= entries else ()
            host = self.add(name, models, tuple(names[: min(index, seeds)]))
            self.at(self.time + index * apart_s, host.start)
        return names

    @property
    def running(self) -> list[Host]:
        """Hosts whose node is up and not stopped."""
        return [host for host in self.hosts.values() if host.core is not None and not host.paused]

    @property
    def well(self) -> list[Host]:
        """Those of them that are in reach of the others, and mean to stay."""
        return [host for host in self.hosts.values() if host.is_well]

    # -- time -------------------------------------------------------------------------------------

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Plan an event."""
        self._planned += 1
        heapq.heappush(self._heap, (max(time, self.time), self._planned, act))

    def step(self) -> None:
        """Let the next event happen."""
        self.time, _, act = heapq.heappop(self._heap)
        self.events += 1
        act()

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.time + seconds
        while self.time < end:
            self._run_to(min(end, self.time + WATCH_S))
            self.watch(self.time)

    def _run_to(self, end: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.step()
        self.time = end

    def run_until(self, holds: Callable[[], bool], within_s: float, every_s: float = 0.05) -> float:
        """Let time pass until something holds; return how long it took. Raises Violation if it never does."""
        return self.await_none("within", lambda: "" if holds() else "it does not hold", within_s, every_s)

    def await_none(
        self, check: str, wrong: Callable[[], str], within_s: float, every_s: float = 0.05
    ) -> float:
        """Let time pass until `wrong` has nothing to say; return how long it took. Raises Violation."""
        start = self.time
        while complaint := wrong():
            if self.time - start >= within_s:
                self.fail(check, f"after {within_s:g} s: {complaint}")
            self.run_for(every_s)
        return self.time - start

    def bite(self, kind: str) -> None:
        """Count an effect of a kind of fault."""
        self.bitten[kind] = self.bitten.get(kind, 0) + 1

    # -- watching ---------------------------------------------------------------------------------

    def note(self, who: str, event: str, **fields: object) -> None:
        """Add a line to the trace."""
        self.trace.write(self.time, who, event, tuple(fields.items()))

    def doubt(self, check: str, message: str) -> None:
        """A check does not hold: end the run, unless the faults excuse it. Raises Violation."""
        if check in self.excused:
            self.excuses[check] = self.excuses.get(check, 0) + 1
        else:
            self.fail(check, message)

    def reach(self, what: str) -> None:
        """Count that something was seen to happen that a check is about."""
        self.reached[what] = self.reached.get(what, 0) + 1

    def fail(self, check: str, message: str) -> NoReturn:
        """A check has failed: say so in the trace, and end the run. Raises Violation."""
        self.note("check", check, message=message)
        raise Violation(check, message)

    def inspect(self, host: Host, effects: list[Effect]) -> None:
        """Run every check on a host that has just handled an input."""
        for check in self.checks:
            check.after(host, effects)

    # -- the network ------------------------------------------------------------------------------

    @contextmanager
    def partition(self, *groups: tuple[str, ...]) -> Iterator[None]:
        """Cut the groups from one another for the length of a `with`."""
        self.split(groups)
        yield
        self.network.lift("partition")
        self.note("network", "healed")

    def split(self, groups: Groups) -> None:
        """Cut the groups from one another until the network is healed."""
        self.note("network", "partitioned", groups=" | ".join(",".join(group) for group in groups))
        self.network.lay("partition", *partition(groups))
