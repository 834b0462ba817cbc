"""The engine's shell: a socket, a core and a runner in one loop. It decides nothing.

Drain the socket, hand the frames to the core, send what it answers, compute the step that it
plans, send what that yielded; wait on the socket when there is nothing to compute. Frames that
come during a step are seen after it.
"""

import socket
import time
from typing import Protocol

import attrs

from mesh.frames import Frame
from mesh.link import Link
from node.engine.core import EngineCore
from node.engine.plan import NotFinite, Plan, Sampled

READ_BYTES = 256 * 1024
DRAIN_READS_MAX = 64
"""Most reads between two steps: 16 MiB, so that a flood of requests cannot stop those at hand."""


class Runner(Protocol):
    """What computes plans: `node.engine.runner.Runner`, or a toy."""

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step."""


@attrs.define
class Channel:
    """A link on a blocking socket."""

    socket: socket.socket
    link: Link

    def send(self, frames: list[Frame]) -> None:
        """Write frames, and whatever waited before. Raises ConnectionError if the parent has gone."""
        for frame in frames:
            self.link.send(frame)
        while self.link.outbox_bytes:
            self.socket.sendall(self.link.output())

    def receive(self, wait: bool) -> list[Frame]:
        """Read what has come; `wait` for something. Raises ConnectionError if the parent has gone."""
        frames = self._read(0) if wait else []
        for _ in range(DRAIN_READS_MAX):
            try:
                frames += self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        return frames

    def _read(self, flags: int) -> list[Frame]:
        data = self.socket.recv(READ_BYTES, flags)
        if not data:
            raise ConnectionResetError("the parent has closed the link")
        return self.link.input(data)


def serve(channel: Channel, core: EngineCore, runner: Runner) -> None:
    """Serve until the parent has gone, which raises ConnectionError.

    An error that is not one sequence's own is not caught: it ends the process, and the parent mends.
    """
    while True:
        for frame in channel.receive(wait=core.idle):
            channel.send(core.announce(frame))
            channel.send(core.receive(time.monotonic(), frame))
        plan, frames = core.plan(time.monotonic())
        channel.send(frames)
        if plan is not None:
            channel.send(step(core, runner, plan))
        else:
            core.scheduler.check_integrity()


def step(core: EngineCore, runner: Runner, plan: Plan) -> list[Frame]:
    """Compute one step; return what it yielded."""
    try:
        sampled = runner.run(plan)
    except NotFinite as error:
        return core.fail(time.monotonic(), plan, error.sequence, str(error))
    return core.commit(time.monotonic(), plan, sampled)
