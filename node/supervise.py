"""Engine processes: starts, feeds, samples, kills and reaps them, as the core says.

A child inherits one end of a socketpair, over which it speaks the frames of a link,
and a page of shared memory whose counter it raises with every layer it computes. It
is started as early as possible, since importing torch takes longest. Bytes that it
wrote before it died are handed to the core before its exit is.
"""

import contextlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import attrs
import trio

from mesh.effects import LinkId
from mesh.net.links import LinkShell
from node.core import NodeCore

SAMPLE_S = 0.25
"""How often an engine's progress and processor time are sampled while it has work."""

IDLE_SAMPLE_S = 1.0
"""... and how often it is looked whether it has any."""

PROGRESS_BYTES = mmap.PAGESIZE
"""One shared page; the first eight bytes are the counter, little endian."""

ENGINE = ("node.engine",)
"""The module that an engine process runs, and words that come before all others; a bench has an engine of its own."""

TERMINATE_S = 2.0
"""How long an engine may take to end by itself when the node stops."""


@attrs.frozen
class EngineCommand:
    """How to start an engine: the words after the interpreter and the plumbing."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


@attrs.define
class _Child:
    process: trio.Process
    stream: trio.SocketStream
    progress: mmap.mmap
    reason: str = ""
    """Why it was killed, if this node killed it."""


@attrs.define
class EngineShell:
    """The engine children of this node, by replica."""

    core: NodeCore
    step: Callable[..., Any]
    links: LinkShell
    nursery: trio.Nursery
    commands: dict[str, EngineCommand]
    _children: dict[str, _Child] = attrs.field(init=False, factory=dict)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set, and replaced, when an engine has started or ended."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the engines that run."""
        return [child.process.pid for child in self._children.values()]

    def start(self, replica: str, link: LinkId) -> None:
        """Start the process and carry its link in the background."""
        self.nursery.start_soon(self._tend, replica, link)

    def kill(self, replica: str, reason: str) -> None:
        """Kill the process; the core hears of its exit."""
        child = self._children.get(replica)
        if child is not None:
            child.reason = reason
            child.process.kill()

    async def _tend(self, replica: str, link: LinkId) -> None:
        try:
            child = self._children[replica] = await _spawn(self.commands[replica])
        except OSError as error:  # no descriptors, processes or memory left: the machine's trouble may pass
            self.step(self.core.engine_exited, replica, f"cannot be started: {error.strerror}")
            return
        self._note_change()
        self.step(self.core.engine_started, replica, child.process.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sample, replica, child)
                await self.links.attach(link, child.stream)
                nursery.cancel_scope.cancel()
            status = await self._reap(child)
        finally:
            child.process.kill()
            child.progress.close()
            del self._children[replica]
            self._note_change()
        self.step(self.core.engine_exited, replica, child.reason or _told(status))

    async def _reap(self, child: _Child) -> int:
        with trio.move_on_after(TERMINATE_S):
            return await child.process.wait()
        child.process.kill()
        return await child.process.wait()

    async def _sample(self, replica: str, child: _Child) -> None:
        while True:
            at_work = self.core.is_at_work(replica)
            await trio.sleep(SAMPLE_S if at_work else IDLE_SAMPLE_S)
            layers = int.from_bytes(child.progress[:8], "little")
            self.step(self.core.engine_progress, replica, layers, _cpu_s(child.process.pid))

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_running(self, count: int) -> None:
        """Wait until exactly `count` engine processes run."""
        while len(self._children) != count:
            await self._changed.wait()

    async def stop(self) -> None:
        """Ask every engine to end, and kill those that do not."""
        for child in self._children.values():
            child.process.terminate()
        with trio.move_on_after(TERMINATE_S):
            await self.wait_running(0)
        for child in self._children.values():
            child.process.kill()


async def _spawn(command: EngineCommand) -> _Child:
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as unless_started, theirs, tempfile.TemporaryFile() as shared:
        unless_started.enter_context(ours)
        shared.truncate(PROGRESS_BYTES)
        progress = mmap.mmap(shared.fileno(), PROGRESS_BYTES)
        process = await trio.lowlevel.open_process(
            _words(command, theirs.fileno(), shared.fileno()),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), shared.fileno()),
            env=dict(command.environment),
            process_group=0,  # Ctrl-C in the terminal is for the node, which ends its engines itself
        )
        unless_started.pop_all()
    ours.setblocking(False)
    return _Child(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), progress)


def _words(command: EngineCommand, fd: int, progress_fd: int) -> list[str]:
    plumbing = ("--fd", str(fd), "--progress-fd", str(progress_fd))
    return [sys.executable, "-m", *ENGINE, *plumbing, *command.words]


def _cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used; where the system does not tell, the time."""
    if not sys.platform.startswith("linux"):
        return time.monotonic()
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _told(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
