"""The machine that a bench runs on: its name, and whether others leave it alone."""

import time

from node.cli.fleet import Pause

QUIET_LOAD = 0.3
"""Processor share of others, of all cores, below which the machine is quiet."""

QUIET_WAIT_S = 20.0


def processor() -> str:
    """Return the processor's name."""
    with open("/proc/cpuinfo") as file:
        return next(
            (line.split(": ")[1].strip() for line in file if line.startswith("model name")), "unknown"
        )


def wait_quiet() -> float:
    """Wait until others leave the machine alone; return the share of it that they use."""
    deadline = time.monotonic() + QUIET_WAIT_S
    while (busy := _busy_share(1.0)) > QUIET_LOAD and time.monotonic() < deadline:
        pass
    return busy


def _busy_share(seconds: float) -> float:
    before = _ticks()
    Pause(seconds).once()
    after = _ticks()
    total = sum(after) - sum(before)
    return 1 - (after[3] - before[3]) / total if total else 0.0


def _ticks() -> list[int]:
    with open("/proc/stat") as file:
        return [int(word) for word in file.readline().split()[1:9]]
