"""Byte streams between processes, as TCP and socketpairs behave: in order, or not at all.

Theory of operation. A stream has two ends, each held by an owner (a host, or an
engine's process). Bytes leave an end only while its window has room, arrive in
order after the path's delay, and free the window when the reader has taken them,
so a stopped reader makes the writer wait. A lost segment arrives a retransmission
later, and holds up those behind it. A cut is silent: segments are tried again,
with doubled waits, until it heals or somebody gives the stream up. What arrives
for a process that is gone is answered with a reset, if its machine still runs.

    dial -> opened                   a process listens there
         -> lost("refused")          the machine runs, nobody listens
         -> lost("timed out")        silence
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs

from mesh.effects import Address, LinkId
from sim.network import Network, Path

WINDOW_BYTES = 256 * 1024
"""Most bytes under way or unread in one direction: a socket's buffers on loopback."""

READ_BYTES = 64 * 1024
"""Most bytes that arrive at once."""

LOCAL_DELAY_S = 20e-6
"""Time through a socketpair between two processes of one machine."""

RETRANSMIT_S = 0.2
"""First wait before a segment is sent again (Linux's least RTO); doubles each time."""

SYN_RETRY_S = (1.0, 2.0)
"""Waits before a dial's second and third try (Linux's first two)."""

DIAL_TIMEOUT_S = 2.0
"""How long the last try of a dial is waited for."""


class Owner(Protocol):
    """Who holds one end. Two exist: `sim.host.Host` and `sim.engine.Engine`."""

    name: str
    """The machine's name: equal names are one machine."""

    @property
    def powered(self) -> bool:
        """Whether the machine's kernel runs, so that it answers for a dead process."""

    def output(self, end: "End", bytes_max: int) -> bytes:
        """Give the next bytes to be sent."""

    def arrived(self, end: "End", data: bytes) -> None:
        """Take bytes that have come."""

    def opened(self, end: "End") -> None:
        """The dial has succeeded."""

    def lost(self, end: "End", reason: str) -> None:
        """The stream is gone."""


@attrs.define(eq=False)
class End:
    """One end of a stream."""

    owner: Owner
    link: LinkId | None = None
    """The owner's name for it, once it has one."""
    other: "End | None" = None
    open: bool = True
    """Whether its process still holds it."""
    in_flight: int = 0
    """Bytes sent from here that the other side has not taken yet."""
    arrive_at: float = 0.0
    parked: deque[tuple[float, bytes | None]] = attrs.Factory(deque)
    """Segments that a cut holds up, and since when; None is the stream's end."""
    retransmit_s: float = RETRANSMIT_S
    dialled_at: float = 0.0


Clock = Callable[[], float]
At = Callable[[float, Callable[[], None]], None]


@attrs.define
class Pipes:
    """All streams. They live on the paths of the network."""

    network: Network
    now: Clock
    at: At

    def pair(self, one: Owner, other: Owner) -> tuple[End, End]:
        """Join two processes by a socketpair."""
        left, right = End(one), End(other)
        left.other, right.other = right, left
        return left, right

    # -- dialling ---------------------------------------------------------------------------------

    def dial(self, source: Owner, link: LinkId, address: Address) -> End:
        """Begin to connect; the owner hears `opened` or `lost`."""
        end = End(source, link, dialled_at=self.now())
        self._try_dial(end, address, 0)
        return end

    def _try_dial(self, end: End, address: Address, tries: int) -> None:
        if not end.open:
            return
        target = self.network.hosts.get(address) if address not in self.network.hidden else None
        delay_s = self._passes(end.owner.name, target.name) if target and target.powered else None
        if target is not None and delay_s is not None:
            self.at(self.now() + delay_s, partial(self._syn, end, address))
        elif tries < len(SYN_RETRY_S):
            self.at(self.now() + SYN_RETRY_S[tries], partial(self._try_dial, end, address, tries + 1))
        else:
            self.at(self.now() + DIAL_TIMEOUT_S, partial(self._give_up, end, "timed out"))

    def _passes(self, source: str, target: str) -> float | None:
        """Draw the delay of one segment; None if it does not pass, or its answer would not."""
        there, back = self.network.path(source, target), self.network.path(target, source)
        if self._is_shut(there) or self._is_shut(back) or self.network.loses(there):
            return None
        return self.network.time_on(there)

    def _is_shut(self, path: Path) -> bool:
        """Whether no segment passes now; those that try meanwhile are sent again, also after a clog."""
        shut = path.condition.tcp_cut or path.condition.clog
        if shut:
            self.network.blame(path, "tcp_cut")
            self.network.blame(path, "clog")
        return shut

    def _syn(self, end: End, address: Address) -> None:
        target = self.network.hosts.get(address)
        if not end.open:
            return
        if target is None:
            self._give_up(end, "no route")
            return
        answer_at = self.now() + self.network.delay_s(target.name, end.owner.name)
        if not target.listening:
            self.at(answer_at, partial(self._give_up, end, "refused"))
            return
        end.other = End(target, other=end)
        target.accepted(end.other)
        self.at(answer_at, partial(self._opened, end))

    def _opened(self, end: End) -> None:
        """What its owner wrote meanwhile has waited since it dialled: that is time on the wire too."""
        if end.open:
            statistics = self.network.statistics
            statistics.longest_s = max(statistics.longest_s, self.now() - end.dialled_at)
            end.owner.opened(end)

    def _give_up(self, end: End, reason: str) -> None:
        if end.open:
            end.open = False
            end.owner.lost(end, reason)

    # -- bytes ------------------------------------------------------------------------------------

    def flush(self, end: End) -> None:
        """Send what the owner has to say, as far as the window allows."""
        while end.open and end.in_flight < WINDOW_BYTES:
            data = end.owner.output(end, READ_BYTES)
            if not data:
                return
            end.in_flight += len(data)
            self._post(end, data)

    def taken(self, end: End, size: int) -> None:
        """The owner has read `size` bytes that came in at this end."""
        assert end.other is not None
        end.other.in_flight -= size
        self.flush(end.other)

    def close(self, end: End) -> None:
        """Give up an end; the other side hears of it after what was sent before."""
        if end.open:
            end.open = False
            if end.other is not None:
                self._post(end, None)

    def vanish(self, end: End) -> None:
        """Give up an end with nobody told: its machine has lost power."""
        end.open = False
        end.parked.clear()

    def _post(self, end: End, segment: bytes | None) -> None:
        end.parked.append((self.now(), segment))
        if len(end.parked) == 1:
            self._advance(end)

    def _advance(self, end: End) -> None:
        """Send what is parked, in order, until a cut stops it."""
        while end.parked:
            delay_s = self._segment_delay_s(end)
            if delay_s is None:
                self.at(self.now() + end.retransmit_s, partial(self._advance, end))
                end.retransmit_s *= 2
                return
            end.retransmit_s = RETRANSMIT_S
            end.arrive_at = max(end.arrive_at, self.now() + delay_s)
            since, segment = end.parked.popleft()
            statistics = self.network.statistics
            statistics.longest_s = max(statistics.longest_s, end.arrive_at - since)
            self.at(end.arrive_at, partial(self._arrive, end, segment))

    def _segment_delay_s(self, end: End) -> float | None:
        assert end.other is not None
        source, target = end.owner.name, end.other.owner.name
        if source == target:
            return LOCAL_DELAY_S
        path = self.network.path(source, target)
        if self._is_shut(path):
            return None
        lost = self.network.loses(path)
        return self.network.time_on(path) + (RETRANSMIT_S if lost else 0.0)

    def _arrive(self, source: End, segment: bytes | None) -> None:
        target = source.other
        assert target is not None
        if not target.open:
            if source.open and target.owner.powered:
                back_s = self._segment_delay_s(target)
                self.at(self.now() + (back_s or 0.0), partial(self._give_up, source, "reset"))
        elif segment is None:
            self._give_up(target, "closed")
        else:
            target.owner.arrived(target, segment)
