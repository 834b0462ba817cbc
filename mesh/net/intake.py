"""From the UDP socket to the core: bounded per source, and to a share of a processor.

Each wake-up hands over what has arrived, at most `mesh.net.udp.BURST_MAX` at once. A source that
sends more than its budget is not heard beyond it; when handling datagrams has taken more than its
share of a processor, the least valuable are dropped first (`mesh.share`).
"""

import collections
import time
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import trio

from mesh.bucket import Sources
from mesh.effects import Address
from mesh.net.udp import Udp
from mesh.share import Share, Worth

STRANGERS = Worth.STRANGER.name.lower()
KERNEL_COUNTS = 2**32
"""Linux counts what it drops so far, and begins anew."""


class DatagramCore(Protocol):
    """The input of `node.core` that concerns datagrams, and what it knows of one before it opens it."""

    def receive(self, now: Any, data: bytes, source: Address) -> Any: ...
    def worth(self, data: bytes) -> Worth: ...


@attrs.define
class IntakeStatistics:
    """Counters since the process began."""

    over_budget: int = 0
    """Dropped because their source had sent too many, or too much."""
    shed: collections.Counter[str] = attrs.field(factory=collections.Counter)
    """Dropped because gossip had taken its share of the processor, by worth."""
    processor_s: float = 0.0
    """Processor time that datagrams have taken."""


@attrs.define
class Intake:
    """Moves datagrams. `step(method, ...)` is the driver's; `clock` is of this thread's processor time."""

    udp: Udp
    core: DatagramCore
    step: Callable[..., Any]
    clock: Callable[[], float] = time.thread_time
    _sources: Sources = attrs.field(init=False, factory=Sources)
    _told: int = attrs.field(init=False, default=0)
    _share: Share = attrs.field(init=False, factory=Share)
    _statistics: IntakeStatistics = attrs.field(init=False, factory=IntakeStatistics)

    def lost(self) -> int:
        """How many datagrams the kernel or the share has dropped since this was last asked.

        What strangers sent, and one source beyond its budget, is no loss of ours.
        """
        shed = self._statistics.shed
        total = self.udp.overflowed() + shed.total() - shed[STRANGERS]
        lost, self._told = (total - self._told) % KERNEL_COUNTS, total
        return lost

    def statistics(self) -> IntakeStatistics:
        """Counters, as a snapshot."""
        return attrs.evolve(self._statistics, shed=self._statistics.shed.copy())

    async def run(self) -> None:
        """Hand datagrams to the core until cancelled."""
        while True:
            self.take(trio.current_time(), await self.udp.receive_many())

    def take(self, mono: float, burst: list[tuple[bytes, Address]]) -> None:
        """Handle one burst. `mono`: seconds, monotonic."""
        started = self.clock()
        for data, source in burst:
            if self._is_admitted(mono, data, source):
                self.step(self.core.receive, data, source)
        spent = self.clock() - started
        self._share.spend(spent)
        self._statistics.processor_s += spent

    def _is_admitted(self, mono: float, data: bytes, source: Address) -> bool:
        if not self._sources.admits(mono, source, len(data)):
            self._statistics.over_budget += 1
            return False
        worth = self.core.worth(data)
        if not self._share.admits(mono, worth):
            self._statistics.shed[worth.name.lower()] += 1
            return False
        return True
