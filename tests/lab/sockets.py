"""Whose a socket is: what Linux tells under /proc of the sockets of processes that we started."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from mesh.effects import Address


def encoded(address: Address) -> str:
    """Write an IPv4 address as /proc/net does: the bytes backwards, in hexadecimal."""
    host, port = address
    return "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{port:04X}"


def inode(protocol: str, local: Address, remote: Address | None = None) -> str:
    """Return the inode of the socket with these ends, of protocol `tcp` or `udp`; "" if there is none."""
    ours, theirs = encoded(local), encoded(remote) if remote else None
    for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == ours and theirs in (None, words[2]):
            return words[9]
    return ""


def holds(pid: int, number: str) -> bool:
    """Whether a process has the socket of this inode open."""
    return any(link == f"socket:[{number}]" for link in descriptors(pid))


def descriptors(pid: int) -> list[str]:
    """Return what each file descriptor of a process leads to; none if it is gone."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def owner(pids: Iterable[int], number: str) -> int | None:
    """Return which of these processes has the socket of this inode open."""
    return next((pid for pid in pids if number and holds(pid, number)), None)


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    return []
