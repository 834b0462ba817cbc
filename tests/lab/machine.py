"""A machine of the lab: what faults do to a `sim.host.Host` is done to a real process here."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mesh.effects import Address
from node.cli.fleet import ANY_PORTS
from tests.lab.front import Front
from tests.lab.sockets import children, descriptors

if TYPE_CHECKING:
    from tests.lab.stage import Stage

TOY = ("--model", "toy")
ENTRY = ("--role", "entry")


@attrs.frozen
class EngineProcess:
    """An engine's process, as faults of engines take it."""

    pid: int

    def die(self, _reason: str) -> None:
        """End it by SIGKILL."""
        _signal(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it for good."""
        _signal(self.pid, signal.SIGSTOP)


@attrs.define(eq=False)
class Machine:
    """One node: its process, where it really listens, and its front."""

    stage: "Stage"
    name: str
    directory: Path
    worker: bool
    front: Front = attrs.field(init=False)
    process: subprocess.Popen[bytes] | None = None
    seeds: tuple[Address, ...] = ()
    bind: Address | None = None
    """Where it really listens, once it has said so."""
    http: str = ""
    ops: str = ""
    powered: bool = True
    paused: bool = False
    seen_as: Address | None = None
    lives: int = 0
    expected_up: bool = False
    """Whether nothing that the lab did has ended it."""
    disk_full: bool = False
    """Whether no file of it can grow."""
    _refusing: bool = False
    """Whether its process was started on a full disk and has not ended yet."""

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return self.front.address

    @property
    def core(self) -> "Machine | None":
        """Itself while its process runs, as hosts of the simulator say it."""
        return self if self.process is not None and self.process.poll() is None else None

    @property
    def engines(self) -> dict[str, EngineProcess]:
        """Its engines' processes."""
        found = children(self.process.pid) if self.core else []
        return {str(pid): EngineProcess(pid) for pid in found if _is_engine(pid)}

    @property
    def log(self) -> Path:
        """What all of its lives have logged."""
        return self.directory / f"{self.name}.log"

    # -- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life; where it listens is known once its ready file is there (`look`)."""
        self.powered, self.paused, self.bind, self.http = True, False, None, ""
        self.stage.forget_sources()
        self.lives += 1
        self._ready_file.unlink(missing_ok=True)
        self.directory.joinpath(self.name).mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._words(),
                stdin=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=_write_nothing if self.disk_full else None,
            )
        self.expected_up, self._refusing = not self.disk_full, self.disk_full
        self.stage.reset_streams(self)
        self.front.open()
        self.stage.note(self.name, "started")

    def _words(self) -> list[str]:
        host, port = self.address
        joins = [word for seed in self.seeds for word in ("--join", f"{seed[0]}:{seed[1]}")]
        paths = ["--ready-file", str(self._ready_file), "--data-dir", str(self.directory / self.name)]
        role = TOY if self.worker else ENTRY
        words = [sys.executable, "-m", "node", "--name", self.name, *ANY_PORTS, *role, *paths, *joins]
        return [*words, "--advertise", f"{host}:{port}", *self.stage.flags]

    @property
    def _ready_file(self) -> Path:
        return self.directory / f"{self.name}.ready.json"

    def look(self) -> bool:
        """Learn where the node listens, if it has said so by now; return whether it is known."""
        if self._refusing and self.core is None:
            self._refusing = False
            self.stage.bite("FullDisk")
        if self.bind is None and self.core is not None and self._ready_file.exists():
            ready: dict[str, Any] = json.loads(self._ready_file.read_text())
            host, _, port = ready["bind"].rpartition(":")
            self.bind, self.http, self.ops = (host, int(port)), ready["http"], ready["ops"]
        return self.bind is not None

    def crash(self, power: bool = False) -> None:
        """End the process at once. With `power` its machine goes too, and tells nobody."""
        if self.core is None:
            return
        self.powered, self.expected_up, self.paused = not power, False, False
        engines = self.engines.values()
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for engine in engines:
            engine.die("its node is gone")
        self._gone()
        self.stage.note(self.name, "crashed")

    def _gone(self) -> None:
        self.bind, self.http = None, ""
        if self.powered:
            self.front.shut()

    def leave(self) -> None:
        """Ask the node to leave in good order."""
        if self.core is not None:
            self.expected_up = False
            self.process.send_signal(signal.SIGTERM)
            self.stage.note(self.name, "leaving")

    def forget(self) -> None:
        """Lose the data directory."""
        shutil.rmtree(self.directory / self.name, ignore_errors=True)

    def pause(self, engines: bool = False) -> None:
        """SIGSTOP; with `engines` they freeze for good."""
        self.paused = True
        for engine in self.engines.values() if engines else ():
            engine.freeze()
        self.process.send_signal(signal.SIGSTOP)
        self.stage.note(self.name, "paused")

    def resume(self) -> None:
        """SIGCONT."""
        if self.paused and self.core is not None:
            self.paused = False
            self.process.send_signal(signal.SIGCONT)
            self.stage.note(self.name, "resumed")

    def end(self) -> None:
        """Kill whatever of it still runs, and give its address up."""
        self.crash()
        self.front.close()

    # -- what others do to it ---------------------------------------------------------------------

    def datagram(self, source: Address, data: bytes) -> bool:
        """Take a datagram as from `source`; return whether a process is there to get it."""
        if self.core is None or self.bind is None:
            return False
        return self.stage.voice(source).deliver(self.bind, data)

    # -- what the kernel knows of it --------------------------------------------------------------

    def descriptors(self) -> int:
        """How many file descriptors its process holds."""
        return len(descriptors(self.process.pid)) if self.core else 0

    def threads(self) -> int:
        """How many threads its process has."""
        return len(os.listdir(f"/proc/{self.process.pid}/task")) if self.core else 0


def _is_engine(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\0node.engine\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _write_nothing() -> None:
    """Let every write to a file fail: the nearest to a full disk that needs no privileges (EFBIG, not ENOSPC)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
