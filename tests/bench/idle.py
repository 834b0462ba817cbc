"""What a node costs when nothing happens: `python -m tests.bench.idle [NODES...]`.

Real processes on loopback. Processor time and memory are read from /proc over a while in which nobody asks
them anything; packets and bytes are the nodes' own counters (with 28 bytes for IP and UDP each), read at the
two ends. Processor time is of the control process alone, and of the engine process beside it.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

import attrs

from node.cli.fleet import ANY_PORTS, Fleet, Member, Pause

NODES = (3, 12)
SECONDS = 30.0
SETTLE_S = 8.0
"""After all have seen all: rumours, load records and first round trips are over by then."""
IP_UDP_BYTES = 28
ROW = "  {:>6} {:>7} {:>9} {:>9} {:>10} {:>8} {:>9} {:>10} {:>11}"


@attrs.frozen
class Cost:
    """What a process, and the node in it, has used since it began."""

    control_s: float
    engine_s: float
    packets: float
    bytes: float


def run(nodes: tuple[int, ...] = NODES, seconds: float = SECONDS, model: str = "toy") -> None:
    """Print a row for each size."""
    names = (
        "nodes",
        "seconds",
        "control %",
        "engine %",
        "packets/s",
        "B/s",
        "RSS MiB",
        "engine MiB",
        "most control %",
    )
    print(ROW.format(*names))
    for count in nodes:
        with tempfile.TemporaryDirectory() as directory, Fleet(Path(directory)) as fleet:
            flags = ("--model", model) if model else ("--role", "entry")
            fleet.start_all([f"idle-{index}" for index in range(count)], *ANY_PORTS, *flags)
            fleet.wait_converged()
            Pause(SETTLE_S).once()
            _measure(fleet.members, seconds)


def _measure(members: list[Member], seconds: float) -> None:
    began, before = time.monotonic(), [_cost(member) for member in members]
    Pause(seconds).once()
    after = [_cost(member) for member in members]
    spent_s, count = time.monotonic() - began, len(members)

    def mean(field: str) -> float:
        used = (getattr(b, field) - getattr(a, field) for a, b in zip(before, after, strict=True))
        return sum(used) / spent_s / count

    most = max(b.control_s - a.control_s for a, b in zip(before, after, strict=True)) / spent_s
    wire_bytes = mean("bytes") + IP_UDP_BYTES * mean("packets")
    resident = sum(_resident_mib(member.process.pid) for member in members) / count
    engines = [pid for member in members for pid in member.engines]
    engine_mib = sum(map(_resident_mib, engines)) / max(1, len(engines))
    print(
        ROW.format(
            count,
            f"{spent_s:.0f}",
            f"{mean('control_s'):.3%}",
            f"{mean('engine_s'):.3%}",
            f"{mean('packets'):.2f}",
            f"{wire_bytes:.0f}",
            f"{resident:.1f}",
            f"{engine_mib:.0f}",
            f"{most:.3%}",
        ),
        flush=True,
    )


def _cost(member: Member) -> Cost:
    metrics = member.ask("/metrics")
    engines = sum(_processor_s(pid) for pid in member.engines)
    packets, payload = (_metric(metrics, f"inferno_swim_{name}_sent") for name in ("packets", "bytes"))
    return Cost(_processor_s(member.process.pid), engines, packets, payload)


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:_total)? (\S+)$", text, re.MULTILINE)
    assert found, f"no metric {name}"
    return float(found[1])


def _processor_s(pid: int) -> float:
    """Time on a processor, all threads, to the nanosecond: ticks of 10 ms would say little about 0.1 %."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int, default=list(NODES))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--model", default="toy", help="model of each node; empty for entries without one")
    arguments = parser.parse_args()
    run(tuple(arguments.nodes), arguments.seconds, arguments.model)


if __name__ == "__main__":
    main()
