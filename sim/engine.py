"""An engine's process in virtual time: the real engine core on the toy runner.

It speaks the real frames over a socketpair to its host's core. A step is an event
that ends after what the toy's cost model says; frames that come during a step are
read after it. A crash loses everything but the bytes already written. A frozen
engine does nothing for ever, and neither does its progress counter.
"""

from functools import partial
from typing import TYPE_CHECKING

import attrs

from mesh.frames import Frame, Hello, Kind, Ready
from mesh.link import PROTOCOL, Link
from node.engine.core import EngineCore, Options
from node.engine.plan import Plan
from node.engine.toy import ToyCost, ToyRunner, ToyText
from sim.pipe import End

if TYPE_CHECKING:
    from sim.host import Host

SPAWN_S = 0.02
"""Time until the process runs."""

LOAD_S = 0.8
"""Time until its model is loaded and warm."""

KV_BLOCKS = 512
"""Blocks of KV memory: small, so that pre-emption happens."""


@attrs.frozen
class Device:
    """What a host's engines compute on."""

    cost: ToyCost = ToyCost()
    kv_blocks: int = KV_BLOCKS


POISON_ID = 0
"""A prompt with this id kills each engine that computes it."""


@attrs.define(eq=False)
class Engine:
    """One life of one replica's process."""

    host: "Host"
    replica: str
    model: str
    pid: int
    slowness: float = 1.0
    """Factor on the time of each step."""
    alive: bool = True
    frozen: bool = False
    reason: str = ""
    """Why it died."""
    end: End | None = None
    core: EngineCore | None = None
    """None until the model is loaded."""
    steps: int = 0
    _link: Link = attrs.field(init=False)
    _runner: ToyRunner = attrs.field(init=False)
    _stepping: bool = attrs.field(init=False, default=False)
    _unread: list[bytes] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._link = Link(Hello(PROTOCOL, self.replica))
        self._runner = ToyRunner(blocks=self.host.device.kv_blocks, cost=self.host.device.cost)

    @property
    def name(self) -> str:
        """The machine on which it runs."""
        return self.host.name

    @property
    def powered(self) -> bool:
        """Whether that machine runs."""
        return self.host.powered

    @property
    def progress(self) -> tuple[int, float]:
        """What the shared page and the process's clock show: (layers computed, processor seconds)."""
        moving = (self._stepping or self.core is None) and not self.frozen
        return self.steps, self.host.world.time if moving else 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether no byte is under way between it and its control process."""
        return self.end.in_flight == 0 and self.end.other.in_flight == 0 and self._link.outbox_bytes == 0

    @property
    def held(self) -> str:
        """Say what an engine at rest holds that it should not; empty if nothing."""
        scheduler = self.core.scheduler
        scheduler.check_integrity()
        blocks = scheduler.blocks
        if self.core.tickets or blocks.available != blocks.count:
            return f"holds attempts {self.core.tickets}, {blocks.count - blocks.available} blocks"
        return ""

    def load(self) -> None:
        """Have the model loaded and warm: say READY."""
        if not self.alive or self.frozen:
            return
        runner = self._runner
        ready = Ready(
            model=self.model,
            model_digest=runner.digest,
            policy_digest=runner.policy,
            exact=runner.exact,
            context_max=runner.context_max,
            vocabulary=runner.vocabulary,
            kv_tokens=runner.blocks * runner.block_tokens,
            device=runner.device,
            dtype=runner.dtype,
            text_digest=ToyText().digest,
        )
        self.core = EngineCore(Options(runner.block_tokens, worker=self.host.name), ToyText(), ready)
        self._say([ready.frame()])
        self._read()

    # -- as an owner of a stream's end ------------------------------------------------------------

    def output(self, end: End, bytes_max: int) -> bytes:
        """Give bytes to the socketpair."""
        return self._link.output(bytes_max)

    def arrived(self, end: End, data: bytes) -> None:
        """Bytes wait in the socketpair; they are read between steps."""
        self._unread.append(data)
        self._read()

    def opened(self, end: End) -> None:
        """Never called: a socketpair is open from the start."""
        raise AssertionError("nobody dials an engine")

    def lost(self, end: End, reason: str) -> None:
        """The control process is gone, and the engine dies with its parent."""
        self.die(reason)

    # -- work -------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self.core is None or self._stepping or self.frozen or not self.alive:
            return
        unread, self._unread = self._unread, []
        for data in unread:
            for frame in self._link.input(data):
                self._take(frame)
            self.host.world.pipes.taken(self.end, len(data))
        self._step()

    def _take(self, frame: Frame) -> None:
        if frame.kind != Kind.HELLO:
            self._say(self.core.receive(self.host.world.time, frame))

    def _say(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._link.send(frame)
        if frames:
            self.host.world.pipes.flush(self.end)

    def _step(self) -> None:
        world = self.host.world
        plan, frames = self.core.plan(world.time)
        self._say(frames)
        if plan is None:
            return
        self._stepping = True
        cost_s = self._runner.step_cost_s(plan) * self.slowness
        if any(POISON_ID in row.prompt for row in plan.rows):
            world.at(world.time + cost_s / 2, partial(self.die, "killed by signal 11"))
        else:
            world.at(world.time + cost_s, partial(self._finish, plan))

    def _finish(self, plan: Plan) -> None:
        if not self.alive or self.frozen:
            return
        self._stepping = False
        self.steps += 1
        self._say(self.core.commit(self.host.world.time, plan, self._runner.run(plan)))
        self._read()

    # -- faults -----------------------------------------------------------------------------------

    def die(self, reason: str) -> None:
        """Let the process end; its control process hears of it after its last bytes."""
        if self.alive:
            self.alive = False
            self.reason = reason
            self.host.world.pipes.close(self.end)

    def freeze(self) -> None:
        """Let the process stand still for ever, as under a stuck driver."""
        self.frozen = True
