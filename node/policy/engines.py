"""Engine supervision as a policy: when to start, restart, give up on and kill engines.

Theory of operation, per replica:

    STARTING  its process was asked for, or runs and loads its model
    READY     it has loaded and warmed its model, and serves
    BACKOFF   it died; it is started again when the wait is over
    BROKEN    its model cannot be loaded: starting again would not help; the reason is kept

A death after READY for `healthy_s` begins the backoff anew, so a rare crash costs a
fraction of a second and a crash loop costs little. An engine that has work but
whose progress counter and processor time both stand still for `frozen_s` is
killed: frozen is told from slow by evidence, so a long prefill is never touched.
"""

import enum

import attrs

from mesh.effects import Effect, KillEngine, LinkId, Report, StartEngine
from mesh.facts import EngineLost, EngineReady, Fact
from mesh.frames import Ready, Status
from mesh.now import Now

Output = Effect | Fact


class EngineState(enum.Enum):
    """Where a replica stands."""

    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    BROKEN = "broken"


@attrs.frozen
class EngineOptions:
    """Times of supervision, in seconds."""

    backoff_s: float = 0.2
    """Wait before the first restart; doubles with each death in a row."""
    backoff_max_s: float = 10.0
    healthy_s: float = 30.0
    """Ready for this long is healthy: the next death begins the backoff anew."""
    frozen_s: float = 1.0
    """No progress and no processor time for this long, with work at hand, is frozen."""
    frozen_start_s: float = 30.0
    """... and for this long while it loads its model, which may wait for a slow disk."""


@attrs.define
class Replica:
    """One engine: what it should serve and how it fares."""

    name: str
    model: str
    """The model's name as clients spell it."""
    state: EngineState = EngineState.BACKOFF
    link: LinkId = 0
    pid: int = 0
    ready: Ready | None = None
    status: Status | None = None
    in_step: tuple[int, ...] = ()
    """Tickets in the step that it last began."""
    deaths: int = 0
    """In a row, without a healthy life between."""
    restart_at: float | None = None
    ready_at: float = 0.0
    reason: str = ""
    """Why it is not ready, for people."""
    progress: tuple[int, float] = (0, 0.0)
    """Last sample of (layers computed, processor seconds)."""
    progressed_at: float = 0.0
    looked_at: float = 0.0
    """When the last sample was taken; who looks away for long judges nobody."""
    had_work: bool = False
    """Whether it held attempts at the last sample: patience begins with the work, not with the rest before."""


@attrs.define
class Engines:
    """All replicas of this node."""

    replicas: dict[str, Replica]
    options: EngineOptions = EngineOptions()
    stopping: bool = False

    def start(self, now: Now, replica: Replica, link: LinkId) -> list[Output]:
        """Ask for a replica's process."""
        replica.state = EngineState.STARTING
        replica.link = link
        replica.restart_at = None
        replica.progressed_at = now.mono
        replica.reason = "its model is being loaded"
        return [StartEngine(replica.name, link)]

    def started(self, name: str, pid: int) -> None:
        """The process runs."""
        self.replicas[name].pid = pid

    def became_ready(self, now: Now, name: str, ready: Ready) -> list[Output]:
        """The engine has loaded and warmed its model."""
        replica = self.replicas[name]
        replica.state, replica.ready, replica.ready_at, replica.reason = (
            EngineState.READY,
            ready,
            now.mono,
            "",
        )
        fields = (
            ("model", ready.model),
            ("device", ready.device),
            ("dtype", ready.dtype),
            ("pid", replica.pid),
        )
        return [Report("engine_ready", fields), EngineReady(name)]

    def broken(self, name: str, message: str) -> list[Output]:
        """The engine says that its model cannot be loaded."""
        replica = self.replicas[name]
        replica.state, replica.reason = EngineState.BROKEN, message
        return [Report("model_broken", (("model", replica.model), ("error", message)))]

    def exited(self, now: Now, name: str, reason: str) -> list[Output]:
        """The process is gone; plan its return unless its model is at fault."""
        replica = self.replicas[name]
        lost = EngineLost(name, reason, replica.in_step)
        was_healthy = (
            replica.state is EngineState.READY and now.mono - replica.ready_at >= self.options.healthy_s
        )
        replica.ready, replica.status, replica.in_step, replica.pid = None, None, (), 0
        if replica.state is EngineState.BROKEN or self.stopping:
            return [lost]
        replica.deaths = 1 if was_healthy else replica.deaths + 1
        wait_s = self._backoff_s(replica.deaths)
        replica.state, replica.restart_at, replica.reason = EngineState.BACKOFF, now.mono + wait_s, reason
        fields = (("model", replica.model), ("reason", reason), ("restart_in_s", round(wait_s, 2)))
        return [Report("engine_lost", fields), lost]

    def _backoff_s(self, deaths: int) -> float:
        return min(self.options.backoff_s * 2.0 ** min(deaths - 1, 16), self.options.backoff_max_s)

    def progress(self, now: Now, name: str, layers: int, cpu_s: float, has_work: bool) -> list[Output]:
        """Take a sample of what the engine's process has done; kill it if it is frozen at work.

        `has_work` is whether it holds attempts: the last step that it named may be long over.
        """
        replica = self.replicas[name]
        sample = (layers, cpu_s)
        patience_s = self._patience_s(replica, has_work)
        blind = patience_s is not None and now.mono - replica.looked_at >= patience_s
        began, replica.had_work = (has_work and not replica.had_work) or blind, has_work
        replica.looked_at = now.mono
        if sample != replica.progress or patience_s is None or began:
            replica.progress, replica.progressed_at = sample, now.mono
            return []
        if now.mono - replica.progressed_at < patience_s:
            return []
        replica.progressed_at = now.mono
        what = "with work at hand" if replica.state is EngineState.READY else "while it loads its model"
        return [KillEngine(name, f"frozen for {patience_s:g} s {what}")]

    def stop(self) -> None:
        """Start nothing again: the node is leaving."""
        self.stopping = True
        for replica in self.replicas.values():
            replica.restart_at = None

    def _patience_s(self, replica: Replica, has_work: bool) -> float | None:
        """Return how long it may stand still; None while it has no reason to move."""
        if replica.state is EngineState.STARTING:
            return self.options.frozen_start_s
        return self.options.frozen_s if has_work and replica.state is EngineState.READY else None

    def next_deadline(self) -> float | None:
        """When the next restart is due."""
        return min((r.restart_at for r in self.replicas.values() if r.restart_at is not None), default=None)

    def due(self, now: Now) -> list[Replica]:
        """Return the replicas whose wait is over."""
        return [r for r in self.replicas.values() if r.restart_at is not None and r.restart_at <= now.mono]

    def serving(self, model: str) -> list[Replica]:
        """Return the ready replicas of a model."""
        return [r for r in self.replicas.values() if r.state is EngineState.READY and r.model == model]
