"""`make bench`: figures as ratios against a named peer, measured in the same run.

    python -m tests.bench [NAME ...]

Timings are spoilt while others compute on the same cores: each bench first waits
for a quiet machine and says so if it did not get one.
"""

import os
import sys
import time

from tests.bench import decode, idle, sim_speed, startup
from tests.bench.machine import processor, wait_quiet

BENCHES = {"startup": startup.run, "decode": decode.run, "idle": idle.run, "sim_speed": sim_speed.run}


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
