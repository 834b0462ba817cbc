"""`make bench`: figures as ratios against a named peer, measured in the same run.

    python -m tests.bench [NAME ...]

Timings are spoilt while others compute on the same cores: each bench first waits
for a quiet machine and says so if it did not get one.
"""

import os
import sys
import time

from node.cli.fleet import Pause
from tests.bench import decode, startup

BENCHES = {"startup": startup.run, "decode": decode.run}

QUIET_LOAD = 0.3
"""Processor share of others, of all cores, below which the machine is quiet."""

QUIET_WAIT_S = 20.0


def main(names: list[str]) -> int:
    """Run the named benches, or all; 2 if there is no such bench."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(
            f"error: there is no bench `{unknown[0]}`\nhint: there are {', '.join(BENCHES)}", file=sys.stderr
        )
        return 2
    print(f"{os.cpu_count()} cores, {processor()}, {time.strftime('%Y-%m-%d')}")
    for name in names or BENCHES:
        print(f"\n{name}  (others used {wait_quiet():.0%} of the machine before it)")
        BENCHES[name]()
    return 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
