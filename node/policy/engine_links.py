"""The links to this node's own engines: bytes to frames and back, by replica.

An engine speaks the frames of a peer link, over a socketpair. One that talks nonsense, or to
whom a frame cannot be said, is killed: its flights move, and its supervisor starts it again.
"""

from collections.abc import Callable

import attrs

from mesh.effects import Effect, FlushLink, KillEngine, LinkId
from mesh.errors import DecodeError, LimitError
from mesh.facts import Fact
from mesh.frames import Frame, Hello, Kind, Ready, Reject, Status, Step
from mesh.link import Link
from mesh.now import Now
from node.policy.engines import Engines, Replica

Output = Effect | Fact


@attrs.define
class EngineLinks:
    """One machine per running engine."""

    engines: Engines
    status_heard: Callable[[Now], None]
    """Told whenever an engine has said how loaded it is."""
    _machines: dict[LinkId, tuple[str, Link]] = attrs.field(init=False, factory=dict)
    nonsense: int = attrs.field(init=False, default=0)
    """Engines that were killed because their bytes meant nothing."""

    def __contains__(self, link: LinkId) -> bool:
        return link in self._machines

    def start(self, now: Now, replica: Replica, link: LinkId, hello: Hello) -> list[Output]:
        """Ask for a replica's process, behind a link that says hello first."""
        self._machines[link] = (replica.name, Link(hello))
        return self.engines.start(now, replica, link)

    def started(self, name: str, pid: int) -> list[Effect]:
        """The process runs: what waits may be written."""
        self.engines.started(name, pid)
        return [FlushLink(self.engines.replicas[name].link)]

    def exited(self, now: Now, name: str, reason: str) -> list[Output]:
        """The process is gone, and every byte that it wrote has been read."""
        self._machines.pop(self.engines.replicas[name].link, None)
        return self.engines.exited(now, name, reason)

    def output(self, link: LinkId, bytes_max: int) -> bytes:
        """Take the next bytes for an engine; empty if none wait."""
        return self._machines[link][1].output(bytes_max)

    def send(self, name: str, frame: Frame) -> list[Output]:
        """Say a frame to an engine; nothing if its link is gone, since `exited` tells the rest."""
        link = self.engines.replicas[name].link
        if link not in self._machines:
            return []
        try:
            self._machines[link][1].send(frame)
        except LimitError as error:
            return [KillEngine(name, str(error))]
        return [FlushLink(link)]

    def input(self, now: Now, link: LinkId, data: bytes) -> tuple[list[Frame], list[Output]]:
        """Take bytes of an engine; return the frames that are for the relay, and the rest's outcome."""
        name, machine = self._machines[link]
        frames: list[Frame] = []
        outputs: list[Output] = []
        try:
            for frame in machine.input(data):
                if self._is_ours(frame):
                    outputs += self._hear(now, name, frame)
                else:
                    frames.append(frame)
        except DecodeError as error:
            self.nonsense += 1
            outputs.append(KillEngine(name, f"it talks nonsense: {error}"))
        return frames, outputs

    def _is_ours(self, frame: Frame) -> bool:
        kinds = (Kind.HELLO, Kind.READY, Kind.STATUS, Kind.STEP)
        return frame.kind in kinds or (frame.kind == Kind.REJECT and frame.flight == 0)

    def _hear(self, now: Now, name: str, frame: Frame) -> list[Output]:
        replica = self.engines.replicas[name]
        match frame.kind:
            case Kind.READY:
                return self.engines.became_ready(now, name, Ready.read(frame))
            case Kind.STATUS:
                replica.status = Status.read(frame)
                self.status_heard(now)
            case Kind.STEP:
                replica.in_step = Step.read(frame).tickets
            case Kind.REJECT:
                return self.engines.broken(name, Reject.read(frame).message)
        return []
