"""The engine's side of its text worker: starts it, carries errands and answers without ever waiting, reaps it."""

import contextlib
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import attrs

from mesh.frames import Frame, Hello
from mesh.link import PROTOCOL, Link
from node.engine.channel import DRAIN_READS_MAX, READ_BYTES
from node.engine.errands import Answer, Errands

TIME_SIGNALS = (signal.SIGPROF, signal.SIGALRM)
"""What the worker's own timers end it with."""

RESTART_S = 0.5
"""Wait before the next worker, for each in a row that died before it had greeted."""


@attrs.define
class _Worker:
    """One life of the process."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    link: Link
    unsent: bytes = b""

    @property
    def greeted(self) -> bool:
        """Whether it has loaded its text."""
        return self.link.peer is not None

    def read(self) -> list[Frame]:
        """Return what it has said. Raises ConnectionError if it is gone, DecodeError if it breaks the protocol."""
        frames: list[Frame] = []
        for _ in range(DRAIN_READS_MAX):
            try:
                data = self.socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                raise EndOfLink(frames)
            frames += self.link.input(data)
        return frames

    def write(self) -> None:
        """Write as much as it takes now. That it has gone is heard when it is read."""
        while self.unsent or self.link.outbox_bytes:
            self.unsent = self.unsent or self.link.output()
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                return

    def end(self) -> int:
        """Reap it; return its exit status, negative for a signal."""
        self.socket.close()
        try:
            return self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class EndOfLink(ConnectionError):
    """The worker has closed its end; `frames` is what it said last."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__("the text worker has gone")
        self.frames = frames


def command(directory: str) -> Callable[[int], list[str]]:
    """Return how to start a worker for a model, given the descriptor of its link."""
    words = [sys.executable, "-m", "node.engine.text_worker", "--directory", directory]
    return lambda fd: [*words, "--fd", str(fd)]


@attrs.define
class TextProcess:
    """The text worker of one engine."""

    command: Callable[[int], list[str]]
    _worker: _Worker | None = attrs.field(init=False, default=None)
    _start_at: float = attrs.field(init=False, default=0.0)

    def watch(self, poll: select.poll) -> None:
        """Have `poll` return when there is something to carry."""
        if self._worker is not None:
            writes = self._worker.unsent or self._worker.link.outbox_bytes
            poll.register(self._worker.socket, select.POLLIN | (select.POLLOUT if writes else 0))

    def unwatch(self, poll: select.poll) -> None:
        """Undo `watch`."""
        if self._worker is not None:
            poll.unregister(self._worker.socket)

    def turn(self, now_s: float, errands: Errands) -> list[Answer]:
        """Carry what there is to carry; return the answers. Starts a worker if there is none, and its time has come."""
        if self._worker is None:
            if now_s < self._start_at:
                return []
            answers = self._start(now_s, errands)
            if self._worker is None:
                return answers
        answers = self._read(now_s, errands)
        if self._worker is not None:
            for frame in errands.take():
                self._worker.link.send(frame)
            self._worker.write()
        return answers

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.process.kill()
            self._worker.end()
            self._worker = None

    def _read(self, now_s: float, errands: Errands) -> list[Answer]:
        worker = self._worker
        assert worker is not None
        try:
            return [answer for frame in worker.read() for answer in errands.heard(frame)]
        except EndOfLink as end:
            answers = [answer for frame in end.frames for answer in errands.heard(frame)]
        except ConnectionError:
            answers = []
        return answers + self._died(now_s, worker, errands)

    def _died(self, now_s: float, worker: _Worker, errands: Errands) -> list[Answer]:
        status = worker.end()
        self._worker = None
        why = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        answers = errands.died(why, timed_out=-status in TIME_SIGNALS, greeted=worker.greeted)
        self._start_at = now_s + RESTART_S * errands.stillborn
        if now_s >= self._start_at:
            answers += self._start(now_s, errands)
        return answers

    def _start(self, now_s: float, errands: Errands) -> list[Answer]:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unless_started, theirs:
            unless_started.enter_context(ours)
            ours.setblocking(False)
            fd = theirs.fileno()
            try:
                process = subprocess.Popen(self.command(fd), pass_fds=(fd,), stdin=subprocess.DEVNULL)
            except OSError as error:
                self._start_at = now_s + RESTART_S
                return errands.died(f"cannot be started: {error.strerror}", timed_out=False, greeted=False)
            unless_started.pop_all()
        self._worker = _Worker(process, ours, Link(Hello(PROTOCOL, "engine")))
        self._worker.write()
        return []
