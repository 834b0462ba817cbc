"""One machine of a crowd, and the membership core that lives on it now.

It keeps the clocks (each life has a monotonic origin of its own), what a stopped or blocked
process has not taken yet, and what it has not sent yet.
"""

import random
from collections import deque

import attrs

from mesh.effects import Address, SendDatagram, SendReliable
from mesh.now import Now
from mesh.swim import Swim
from mesh.swim_options import SwimOptions

EPOCH_S = 1_700_000_000.0
"""The wall clock at virtual time 0."""

SOCKET_BYTES = 212_992
"""What the UDP socket of a process that does not read holds (Linux's default rmem); more is dropped."""

Arrival = tuple[bytes, Address, bool]
"""Bytes, whence, and whether over TCP."""


@attrs.define(eq=False)
class Peer:
    """A machine: its name and address stay while lives come and go. Times are virtual seconds."""

    index: int
    name: str
    """What rules call it."""
    address: Address
    options: SwimOptions
    chance: random.Random
    """Delay and loss of what it sends."""
    core: Swim | None = None
    """The running node; None while it is down."""
    generation: int = 0
    """Of the running or last life; the first is 1."""
    skew_s: float = 0.0
    """How far the wall clock is ahead. May be changed at any time: the clock is set."""
    drift: float = 0.0
    """How much faster than time the wall clock runs."""
    origin_s: float = 0.0
    """The monotonic clock at virtual time 0."""
    paused: bool = False
    """Stopped as by SIGSTOP: neither reads nor sends, and its timers come late."""
    blocked: bool = False
    """What it sends and what it should read is withheld, while its timers run on."""
    timer_at: float | None = None
    """When its next entry in the heap comes up."""
    inbox: deque[Arrival] = attrs.Factory(deque)
    """What waits to be read."""
    outbox: list[SendDatagram | SendReliable] = attrs.Factory(list)
    """What waits to be sent."""
    _buffered: int = 0
    _mono: float = 0.0

    @property
    def running(self) -> bool:
        """Whether its process is up, and not stopped."""
        return self.core is not None and not self.paused

    @property
    def deadline_at(self) -> float | None:
        """When the core wants to be ticked."""
        deadline = self.core.next_deadline() if self.core is not None else None
        return deadline - self.origin_s if deadline is not None else None

    def now(self, time: float) -> Now:
        """The clocks of the node; a tick is never early by the rounding of the origin."""
        mono = time + self.origin_s
        if mono < self._mono:
            mono = self._mono
        self._mono = mono
        return Now(mono, EPOCH_S + self.skew_s + time * (1.0 + self.drift))

    def tick_now(self, time: float, deadline: float) -> Now:
        """The clocks of the node at a tick that was due at `deadline`, by its own clock."""
        self._mono = max(self._mono, deadline)
        return self.now(time)

    def hold(self, data: bytes, source: Address, reliable: bool) -> bool:
        """Keep what arrives until the process reads; return whether there was room."""
        if not reliable and self._buffered + len(data) > SOCKET_BYTES:
            return False
        self._buffered += 0 if reliable else len(data)
        self.inbox.append((data, source, reliable))
        return True

    def read(self) -> Arrival:
        """Take the oldest of what waits."""
        arrival = self.inbox.popleft()
        self._buffered -= 0 if arrival[2] else len(arrival[0])
        return arrival

    def reset(self, origin_s: float) -> None:
        """Begin a life: nothing is left of the last."""
        self.origin_s, self._mono, self._buffered = origin_s, 0.0, 0
        self.timer_at, self.paused, self.blocked = None, False, False
        self.inbox.clear()
        self.outbox.clear()
