"""Gossip served while trio has nothing to do, without waking its scheduler.

Why. A wake-up of trio's scheduler costs an idle process about 250 microseconds (its run loop has gone from
the caches), ten times what the core takes for a packet; a node that does nothing but answer pings would spend
two thirds of its processor time on that.

Theory of operation. Before trio waits for I/O it calls its instruments. This one then waits in its place, on
trio's own epoll (an epoll can watch another) and on the gossip socket, and hands over to trio at once when
trio has anything to do: something is ready in its epoll, a deadline of its own has come, or a step of the core
has made a task runnable. Datagrams and the core's deadlines are served here meanwhile, by the same methods
of the driver as ever.

The tasks that serve them while trio is busy go on waiting. The one on the socket is not woken because
nothing is left to read; the timer is told to sleep on (`lull`), and told its deadline when trio takes over.
So nothing is lost if this cannot be had (elsewhere than on Linux, or where there is more than one epoll): it
then does nothing. What a step raises ends the process, as in a task: `run` raises it.
"""

import os
import select
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import attrs
import trio

from mesh.effects import Address
from mesh.net.udp import Udp

LATE_S = 0.1
"""A deadline that has passed for longer follows a pause: the driver's timer then drains the sockets first."""

EPOLL = "anon_inode:[eventpoll]"
"""What the kernel calls an epoll among a process's open files."""


class Ticker(Protocol):
    """The part of `node.driver` that is needed here."""

    deadline: float
    """When `tick` is due, on trio's clock."""
    stirred: bool
    """Whether a step may have given trio something to do."""

    def tick(self) -> None: ...
    def lull(self, lulled: bool) -> None: ...


@attrs.define(eq=False)
class Lull(trio.abc.Instrument):
    """Stands in for trio's wait. `take` is the intake's."""

    udp: Udp
    take: Callable[[float, list[tuple[bytes, Address]]], Any]
    driver: Ticker
    served: int = attrs.field(init=False, default=0)
    """Bursts and ticks that trio was not woken for."""
    _poll: select.epoll | None = attrs.field(init=False, default=None)
    _scheduler: int = attrs.field(init=False, default=-1)
    _token: trio.lowlevel.TrioToken | None = attrs.field(init=False, default=None)
    _error: BaseException | None = attrs.field(init=False, default=None)
    _broken: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def run(self) -> None:
        """Serve until cancelled. Raises what a step has raised."""
        scheduler = scheduler_epoll()
        if scheduler is None:
            await trio.sleep_forever()
            return
        self._scheduler, self._token = scheduler, trio.lowlevel.current_trio_token()
        with select.epoll() as self._poll:
            self._poll.register(scheduler, select.EPOLLIN)
            self._poll.register(self.udp.fileno(), select.EPOLLIN)
            trio.lowlevel.add_instrument(self)
            try:
                await self._broken.wait()
            finally:
                trio.lowlevel.remove_instrument(self)
        assert self._error is not None, "it breaks of an error"
        raise self._error

    def before_io_wait(self, timeout: float) -> None:
        """Wait in trio's place, if it would wait at all."""
        if timeout > 0 and self._error is None:
            with self:
                self._wait()

    def __enter__(self) -> None:
        """Keep what is raised from trio, which would only log it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self._error = error
            self._broken.set()
            self._hand_over()
        return True

    def _wait(self) -> None:
        """Serve gossip until trio has something to do."""
        self.driver.lull(True)
        try:
            until = trio.current_time() + trio.lowlevel.current_statistics().seconds_to_next_deadline
            while self._serve(until):
                pass
        finally:
            self.driver.lull(False)

    def _serve(self, until: float) -> bool:
        """Serve what comes next. Returns whether trio has nothing to do yet, nor before `until`."""
        assert self._poll is not None, "it is an instrument only while it runs"
        now, driver = trio.current_time(), self.driver
        due_s = driver.deadline - now
        if driver.stirred or now >= until or due_s < -LATE_S:
            self._hand_over()
            return False
        if due_s <= 0:
            self.served += 1
            driver.tick()
            return True
        ready = [file for file, _ in self._poll.poll(min(due_s, until - now))]
        if self.udp.fileno() not in ready:
            return not ready
        self._take()
        return not self._poll_trio()

    def _poll_trio(self) -> bool:
        """Whether trio's epoll is ready still, after the datagrams have been read that made it so."""
        assert self._poll is not None, "it is an instrument only while it runs"
        return any(file == self._scheduler for file, _ in self._poll.poll(0))

    def _take(self) -> None:
        burst = self.udp.receive_nowait()
        if burst:
            self.served += 1
            self.take(trio.current_time(), burst)

    def _hand_over(self) -> None:
        """Let trio's wait end as soon as it begins."""
        assert self._token is not None, "it is an instrument only while it runs"
        self._token.run_sync_soon(_nothing, idempotent=True)


def scheduler_epoll() -> int | None:
    """Return the descriptor of the one epoll that this process has, trio's; None if there is not just one."""
    if sys.platform != "linux":
        return None
    found = [int(name) for name in os.listdir("/proc/self/fd") if _link(name) == EPOLL]
    return found[0] if len(found) == 1 else None


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


def _nothing() -> None:
    pass
