"""How fast a crowd of membership cores runs, idle, on one core: `python -m tests.bench.sim_speed [NODES...]`.

Real codec at every hop, checks after every input. One process for each row, so that its memory is its own.
Ratios are virtual seconds by seconds of processor time, which others on the machine disturb less than the
clock on the wall.
"""

import argparse
import resource
import subprocess
import sys
import time

from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions

NODES = {128: 60.0, 1000: 12.0, 10000: 3.0}
"""Virtual seconds that are timed."""
WARM_S = 2.5
"""Virtual seconds before: each has been probed by then."""
ROW = "  {:>6} {:>6} {:>9} {:>8} {:>8} {:>8} {:>10} {:>9} {:>8}"


def check(peer, outputs):
    """Cheap, after every input: a node that runs is alive in its own eyes and looks ahead; the table is whole."""
    core = peer.core
    deadline = core.next_deadline()
    assert core.me.is_live, "nobody buries itself"
    assert deadline is not None and deadline < peer.origin_s + 1e6, "a core that runs has a deadline"
    assert len(outputs) < 64, "an idle core says little"


def measure(nodes, seconds, preset):
    """Print one row."""
    options = CrowdOptions(getattr(SwimOptions, preset)(), keep_log=False)
    crowd = Crowd(1, options)
    began = time.process_time()
    crowd.form(nodes)
    formed_s = time.process_time() - began
    crowd.taps.append(check)
    crowd.run_for(WARM_S * options.swim.probe_period_s)
    packets, wire_bytes = crowd.counts.packets, crowd.counts.bytes
    wall, began = time.monotonic(), time.process_time()
    crowd.run_for(seconds)
    spent_s, wall_s = time.process_time() - began, time.monotonic() - wall
    packets, wire_bytes = crowd.counts.packets - packets, crowd.counts.bytes - wire_bytes
    assert crowd.converged(), "an idle mesh stays of one mind"
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = (
        nodes,
        preset,
        f"{seconds:g}",
        f"{wall_s:.2f}",
        f"{spent_s:.2f}",
        f"{seconds / spent_s:.2f}x",
        f"{packets / spent_s:,.0f}",
        f"{rss:.2f}",
        f"{wire_bytes / nodes / seconds:.0f}",
    )
    print(ROW.format(*row), f" formed in {formed_s:.1f} s", flush=True)


def run(nodes=tuple(NODES), presets=("lan", "local")):
    """Print a row for each size and preset, each in a process of its own."""
    print(
        ROW.format(
            "nodes", "preset", "virtual s", "wall s", "core s", "ratio", "packets/s", "RSS GiB", "B/s each"
        )
    )
    for count in nodes:
        for preset in presets:
            words = [sys.executable, "-m", "tests.bench.sim_speed", str(count), "--preset", preset, "--here"]
            subprocess.run(words, check=True)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int, default=list(NODES))
    parser.add_argument("--preset", choices=("local", "lan", "wan"), action="append")
    parser.add_argument("--seconds", type=float, help="virtual seconds to time")
    parser.add_argument("--here", action="store_true", help="one row, in this process")
    arguments = parser.parse_args()
    if not arguments.here:
        run(tuple(arguments.nodes), tuple(arguments.preset or ("lan", "local")))
        return
    for count in arguments.nodes:
        seconds = arguments.seconds or NODES.get(count, max(1.0, 12_000 / count))
        measure(count, seconds, arguments.preset[0])


if __name__ == "__main__":
    main()
