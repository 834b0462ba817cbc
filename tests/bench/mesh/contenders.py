"""Whom the bench compares: how each is started, and what its log lines mean."""

import re
import shutil
import sys
from collections.abc import Callable, Sequence

import attrs

from tests.bench.mesh.views import Kind

Said = tuple[Kind, str]
"""What a line says, and of whom."""


@attrs.frozen
class Contender:
    """A membership program that runs as one process per node."""

    name: str
    command: Callable[[str, str, Sequence[str]], list[str]]
    """(node's name, where it binds, seeds) -> words."""
    said: Callable[[str], Said | None]
    """What a line of its log says of a member; None for any other line."""
    ready: str
    """A line that contains this says that the node takes part."""
    missing: Callable[[], str]
    """What this machine lacks to run it; empty if nothing."""


# Ours: the control process alone, as `--role entry` runs it: no engine, no model, no torch.

STATES = {"alive": Kind.ALIVE, "suspect": Kind.SUSPECT, "dead": Kind.DEAD, "left": Kind.LEFT}
MEMBER = re.compile(r" member node=(\S+) state=(\w+)")
QUARANTINE = re.compile(r" (quarantined|quarantine_lifted) node=(\S+)")


def our_command(name: str, bind: str, seeds: Sequence[str]) -> list[str]:
    """Start a node on `bind`; HTTP and operations take any port."""
    joins = [word for seed in seeds for word in ("--join", seed)]
    ports = ["--http", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--bind", bind]
    return [sys.executable, "-m", "node", "--role", "entry", "--name", name, *ports, *joins]


def our_said(line: str) -> Said | None:
    """Read `member node=NAME state=STATE ...` and `quarantined node=NAME ...`."""
    if found := MEMBER.search(line):
        kind = STATES.get(found[2])
        return (kind, found[1]) if kind else None
    if found := QUARANTINE.search(line):
        return (Kind.QUARANTINED if found[1] == "quarantined" else Kind.LIFTED, found[2])
    return None


OURS = Contender("inferno", our_command, our_said, " serving name=", lambda: "")


# Serf: the agent with its defaults (profile lan). Its log has whole seconds; we stamp lines as they come.

SERF_EVENTS = {
    "EventMemberJoin": Kind.ALIVE,
    "EventMemberUpdate": Kind.ALIVE,
    "EventMemberFailed": Kind.DEAD,
    "EventMemberLeave": Kind.LEFT,
    "EventMemberReap": Kind.LEFT,
}
SERF_EVENT = re.compile(r"serf: (EventMember\w+)(?: \(forced\))?: (\S+)")
SERF_SUSPECT = re.compile(r"memberlist: Suspect (\S+) has failed")


def serf_command(name: str, bind: str, seeds: Sequence[str]) -> list[str]:
    """Start an agent on `bind`; its RPC port is the same number, ten thousand higher."""
    port = int(bind.rpartition(":")[2])
    joins = [f"-retry-join={seed}" for seed in seeds]
    words = ["serf", "agent", f"-node={name}", f"-bind={bind}", f"-rpc-addr=127.0.0.1:{port + 10_000}"]
    return [*words, "-log-level=info", "-retry-interval=1s", *joins]


def serf_said(line: str) -> Said | None:
    """Read `serf: EventMemberFailed: NAME ADDRESS` and `memberlist: Suspect NAME has failed ...`."""
    if found := SERF_EVENT.search(line):
        kind = SERF_EVENTS.get(found[1])
        return (kind, found[2]) if kind else None
    found = SERF_SUSPECT.search(line)
    return (Kind.DOUBTED, found[1]) if found else None


def serf_missing() -> str:
    """Say how to get serf where there is none."""
    return "" if shutil.which("serf") else "there is no `serf` (Debian, Ubuntu: apt install serf)"


SERF = Contender("serf", serf_command, serf_said, "Serf agent starting", serf_missing)

CONTENDERS = {contender.name: contender for contender in (OURS, SERF)}
