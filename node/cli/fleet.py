"""Nodes as child processes of this one: started, awaited, asked, killed, stopped.

Used by `mesh` and `demo`, and by the tests that need real processes. Each node
writes a ready file once it listens, which is how its ports are learnt.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import attrs

ANY_PORTS = ("--http", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--bind", "127.0.0.1:0")
"""Flags for a node that must disturb nobody: the system chooses its ports."""

START_S = 30.0
"""A node that has not written its ready file by then has failed to start."""

STOP_S = 15.0
"""A node that has not ended by then after SIGTERM is killed."""

POLL_S = 0.02
"""How often files and ports of children are looked at."""

ASK_TIMEOUT_S = 5.0
"""Longest wait for an answer on a node's operations port."""


class FleetError(Exception):
    """A node did not do what was asked in time; the message says which and what."""


@attrs.define
class Member:
    """One node process and what its ready file says."""

    name: str
    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path | None
    http: str = ""
    ops: str = ""
    bind: str = ""
    engines: list[int] = attrs.Factory(list)
    startup_ms: dict[str, int] = attrs.Factory(dict)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def wait_ready_file(self) -> None:
        """Wait until the node listens. Raises FleetError."""
        wait_until(
            lambda: self.ready_file.exists() or not self.is_running, START_S, f"`{self.name}` to listen"
        )
        if not self.ready_file.exists():
            raise FleetError(f"`{self.name}` ended with status {self.process.returncode}\n{self._log_tail()}")
        ready = json.loads(self.ready_file.read_text())
        self.http, self.ops, self.bind = ready["http"], ready["ops"], ready["bind"]
        self.engines, self.startup_ms = ready["engines"], ready["startup_ms"]

    def _log_tail(self) -> str:
        return self.log.read_text()[-2000:] if self.log and self.log.exists() else ""

    def ask(self, path: str) -> Any:
        """Return the JSON (or text) that the operations port gives; None if it gives none now."""
        try:
            with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=ASK_TIMEOUT_S) as answer:
                body = answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None
        return json.loads(body) if body[:1] in (b"[", b"{") else body.decode()

    def kill(self) -> None:
        """SIGKILL: no goodbye. Its engines end when their socketpair closes."""
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self.is_running:
            self.process.send_signal(number)


@attrs.define
class Fleet:
    """Several nodes on this machine. A context manager: whatever still runs is stopped at the end."""

    directory: Path
    """Where ready files and logs go."""
    keep_logs: bool = True
    """Whether nodes log to files here, or to this process's standard error."""
    members: list[Member] = attrs.Factory(list)

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, *flags: str) -> Member:
        """Start a node; it joins the first member that runs. Call `wait_ready_file` on it next."""
        ready_file = self.directory / f"{name}.{len(self.members)}.json"
        log = self.directory / f"{name}.log" if self.keep_logs else None
        seeds = [member.bind for member in self.members if member.is_running and member.bind][:1]
        join = [word for seed in seeds for word in ("--join", seed)]
        words = [sys.executable, "-m", "node", "--name", name, "--ready-file", str(ready_file), *join, *flags]
        with _opened(log) as stderr:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=stderr)
        member = Member(name, process, ready_file, log)
        self.members.append(member)
        return member

    def start_all(self, names: list[str], *flags: str) -> None:
        """Start nodes, the first of them as seed of the others, and wait until all listen."""
        self.start(names[0], *flags).wait_ready_file()
        for member in [self.start(name, *flags) for name in names[1:]]:
            member.wait_ready_file()

    def __getitem__(self, name: str) -> Member:
        return next(member for member in reversed(self.members) if member.name == name)

    @property
    def running(self) -> list[Member]:
        """Nodes whose processes have not ended."""
        return [member for member in self.members if member.is_running]

    def wait_converged(self, seconds: float = 60.0) -> None:
        """Wait until every node that runs can answer and sees all of them alive with a model ready."""
        for member in self.running:
            wait_until(lambda m=member: self._sees_all(m), seconds, f"`{member.name}` to see a ready mesh")

    def _sees_all(self, member: Member) -> bool:
        rows = member.ask("/members") or []
        live = [row for row in rows if row["state"] == "alive"]
        loaded = all(row["models"] for row in live if row["load"] and row["load"]["models"])
        return len(live) == len(self.running) and all(row["load"] for row in live) and loaded

    def stop(self) -> None:
        """Let every node drain and leave; kill those that do not."""
        for member in self.running:
            member.send(signal.SIGTERM)
        self.wait_stopped()

    def wait_stopped(self) -> None:
        """Wait for every node to end; kill those that do not in time."""
        deadline = time.monotonic() + STOP_S
        for member in self.members:
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.kill()


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Look until the condition holds; return its value. Raises FleetError after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = Pause()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise FleetError(f"waited {seconds:g} s for {what}")
        pause.once()
    return value


@attrs.frozen
class Pause:
    """Waits between two looks at what other processes do: they give us no event to wait for."""

    seconds: float = POLL_S

    def once(self) -> None:
        """Rest for a moment."""
        signal.sigtimedwait([], self.seconds)


@contextlib.contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    with log.open("ab") as file:
        yield file
