"""The stage: what `sim.world.World` is to faults and clients, with real processes and a real clock.

A fault's own `strike` acts on it as it acts on a world: it finds hosts by name, lays
rules on the network, and plans what comes later. One task runs the agenda; nothing
here blocks for longer than a process takes to be started.
"""

import heapq
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import attrs
import trio

from mesh.effects import Address
from sim.rule import Rule
from sim.scenario import Scenario
from sim.world import Violation
from tests.lab.clients import LabClient
from tests.lab.feasible import flags
from tests.lab.front import Front
from tests.lab.machine import Machine
from tests.lab.sockets import inode, owner
from tests.lab.wire import Wire

LOOK_S = 0.05
"""How often ready files are looked for."""

SEEDS = 2
"""Nodes that all others join through."""

START_S = 60.0
"""All nodes listen and see each other by then, or the run cannot begin."""


@attrs.frozen
class Note:
    """Something that was done, and when."""

    at: float
    who: str
    what: str


class Stage:
    """One run. Times are seconds since the clients' clock began, which is when the mesh was whole."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        self.flags = flags(scenario)
        self.events = 0
        self.healed_at: float | None = None
        self.struck: dict[str, int] = {}
        self.bitten: dict[str, int] = {}
        self.notes: list[Note] = []
        self.clients: list[LabClient] = []
        self.addresses: dict[Address, str] = {}
        self._began = time.monotonic()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = trio.Event()
        self._sources: dict[tuple[str, Address], Machine] = {}
        self.network = Wire(scenario.seed, time.monotonic, self.at_clock, Rule(), bite=self.bite)
        self.hosts = {name: self._machine(name, directory) for name in self._names()}
        self.stranger = Front(next(iter(self.hosts.values())), self.network, self._identify)

    def _names(self) -> list[str]:
        return [f"node-{index}" for index in range(self.scenario.nodes)]

    def _machine(self, name: str, directory: Path) -> Machine:
        first_worker = self.scenario.nodes - self.scenario.workers
        machine = Machine(self, name, directory, int(name.removeprefix("node-")) >= first_worker)
        machine.front = Front(machine, self.network, self._identify)
        self.network.hosts[machine.address] = machine
        self.addresses[machine.address] = name
        return machine

    # -- what faults ask of a world ---------------------------------------------------------------

    def __getitem__(self, name: str) -> Machine:
        return self.hosts[name]

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Plan something, in seconds since the beginning."""
        self.at_clock(self._began + when, act)

    def at_clock(self, when: float, act: Callable[[], None]) -> None:
        """Plan something, by the monotonic clock."""
        self.events += 1
        heapq.heappush(self._agenda, (when, self.events, act))
        if self._agenda[0][1] == self.events:
            self._planned.set()

    def note(self, who: str, what: str, **_more: object) -> None:
        """Remember that something was done."""
        self.notes.append(Note(self.time, who, what))

    def bite(self, kind: str) -> None:
        """Count an effect of a fault."""
        self.bitten[kind] = self.bitten.get(kind, 0) + 1

    def fail(self, check: str, message: str) -> NoReturn:
        """End the run with a check that failed. Raises Violation."""
        raise Violation(check, message)

    # -- the run ----------------------------------------------------------------------------------

    async def run_agenda(self) -> None:
        """Do what is planned when it is due; runs until cancelled."""
        while True:
            self._planned = trio.Event()
            due = self._agenda[0][0] if self._agenda else math.inf
            with trio.move_on_after(min(3600.0, max(0.0, due - time.monotonic()))):
                await self._planned.wait()
            while self._agenda and self._agenda[0][0] <= time.monotonic():
                heapq.heappop(self._agenda)[2]()

    async def look_for_ready(self) -> None:
        """Learn where nodes listen as soon as they say so; runs until cancelled."""
        while True:
            for machine in self.hosts.values():
                machine.look()
            await trio.sleep(LOOK_S)

    def start_all(self) -> None:
        """Start every node; each joins through the first ones but itself."""
        fronts = [machine.address for machine in self.hosts.values()]
        for machine in self.hosts.values():
            machine.seeds = tuple(seed for seed in fronts[:SEEDS] if seed != machine.address)
            machine.start()

    def begin(self) -> None:
        """Let time begin: from now on the scenario's times count, and its own network is in force."""
        self._began = time.monotonic()
        self.notes.clear()
        self.network.base = self.scenario.options.network
        self.network.heal()

    def heal(self) -> None:
        """Undo the faults: rules, stops, and ends of those in the core. Frozen engines are left to their nodes."""
        self.healed_at = self.time
        self.network.heal()
        for machine in self.hosts.values():
            machine.disk_full = False
            machine.resume()
            if machine.core is None and machine.name in self.scenario.core:
                machine.start()

    def end(self) -> None:
        """End every process and give every address up."""
        for machine in self.hosts.values():
            machine.end()
        self.stranger.close()

    # -- who speaks -------------------------------------------------------------------------------

    def forget_sources(self) -> None:
        """Ask the kernel anew who sends from where."""
        self._sources.clear()

    def reset_streams(self, machine: Machine) -> None:
        """Reset what a machine's last life has left of connections."""
        for other in self.hosts.values():
            other.front.reset(machine)

    def voice(self, source: Address) -> Front:
        """Return the front that speaks for an address; a stranger's for one that is nobody's."""
        machine = self.network.hosts.get(source)
        return machine.front if machine is not None else self.stranger

    def _identify(self, protocol: str, source: Address, target: Address | None) -> Machine | None:
        known = self._sources.get((protocol, source)) if protocol == "udp" else None
        if known is not None:
            return known
        running = {machine.process.pid: machine for machine in self.hosts.values() if machine.core}
        pid = owner(running, inode(protocol, source, target))
        if pid is None:
            return None
        self._sources[protocol, source] = running[pid]
        return running[pid]
