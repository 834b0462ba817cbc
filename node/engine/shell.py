"""The engine's shell: a link, a core, a runner and a text worker in one loop. It decides nothing.

Drain the links, hand the frames to the core, send what it answers, compute the step that it plans, send what
that yielded; wait on the links when there is nothing to compute. Frames that come during a step are seen after
it. The text worker is never waited for while there is work.
"""

import select
import time
from collections.abc import Callable
from typing import Protocol

import attrs

from mesh.frames import Frame
from node.engine.channel import Channel
from node.engine.core import EngineCore
from node.engine.plan import NotFinite, Plan, Sampled
from node.engine.text_process import TextProcess

ERRAND_WAIT_MS = 200
"""While only the text worker is at work, the engine shows at least so often that it is not frozen."""


class Runner(Protocol):
    """What computes plans: `node.engine.runner.Runner`, or a toy."""

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step."""


@attrs.frozen
class Shell:
    """The loop. `alive` is called when the engine waits for its text worker: it has work and is not frozen."""

    channel: Channel
    core: EngineCore
    runner: Runner
    texts: TextProcess | None = None
    alive: Callable[[], object] = lambda: None
    _poll: select.poll = attrs.field(init=False, factory=select.poll)

    def serve(self) -> None:
        """Serve until the parent has gone, which raises ConnectionError.

        An error that is not one sequence's own is not caught: it ends the process, and the parent mends.
        """
        self._poll.register(self.channel.socket, select.POLLIN)
        while True:
            self._wait()
            for frame in self.channel.receive(wait=False):
                self.channel.send(self.core.receive(time.monotonic(), frame))
            self._carry()
            plan, frames = self.core.plan(time.monotonic())
            self.channel.send(frames)
            if plan is not None:
                self.channel.send(step(self.core, self.runner, plan))
            else:
                self.core.scheduler.check_integrity()

    def _carry(self) -> None:
        if self.texts is not None:
            now = time.monotonic()
            self.channel.send(self.core.prepared(now, self.texts.turn(now, self.core.errands)))

    def _wait(self) -> None:
        """Wait until something has come, if there is nothing to compute."""
        if not self.core.idle:
            return
        if self.texts is not None:
            self.texts.watch(self._poll)
        self._poll.poll(ERRAND_WAIT_MS if len(self.core.errands) else None)
        if self.texts is not None:
            self.texts.unwatch(self._poll)
        if len(self.core.errands):
            self.alive()


def step(core: EngineCore, runner: Runner, plan: Plan) -> list[Frame]:
    """Compute one step; return what it yielded."""
    try:
        sampled = runner.run(plan)
    except NotFinite as error:
        return core.fail(time.monotonic(), plan, error.sequence, str(error))
    return core.commit(time.monotonic(), plan, sampled)
