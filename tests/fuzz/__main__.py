"""Fuzz for some seconds and keep a ledger: `python -m tests.fuzz --seconds 60`.

Each kind runs in a process of its own. An input must be accepted or refused with a clear error: no other exception,
no death, no second of processor time, no growth by 64 MiB from a file's header. Kinds that a node runs in its text
worker may be ended by the kernel's timer, as there, or end that worker, which is counted: its request is refused.
`--kind K --seed S` repeats one input. Exit status 1 if any rule broke.
"""

import argparse
import contextlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SECONDS_MAX = 1.0
"""Processor time of one input."""
GROWTH_BYTES_MAX = 64 << 20
MEMORY_BYTES_MAX = 1 << 30
"""Address space beside what is loaded, for kinds that a text worker runs."""
WALL_S_MAX = 30.0
"""An input that computes little and takes longer on the clock hangs, however busy the machine is."""


def main() -> int:
    """Fuzz every kind, or repeat one input; print the ledger."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all kinds together")
    parser.add_argument("--kind", default="", help="only this kind")
    parser.add_argument("--seed", type=int, default=None, help="repeat just this input of the kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child >= 0:
        return child(options.kind, options.first, options.seconds)
    if options.seed is not None:
        print(judged(options.kind, options.seed))
        return 0
    from tests.fuzz.kinds import KINDS

    kinds = [options.kind] if options.kind else list(KINDS)
    broken = [
        fault for kind in kinds for fault in campaign(kind, options.first, options.seconds / len(kinds))
    ]
    for kind, seed, what in broken:
        print(f"BROKEN {kind} {seed}: {what}\n  python -m tests.fuzz --kind {kind} --seed {seed}")
    return 1 if broken else 0


def campaign(kind: str, first: int, seconds: float) -> list[tuple[str, int, str]]:
    """Attack one kind in children until the time is over; print its line of the ledger."""
    from tests.fuzz.kinds import KINDS

    ends, faults, until = Counter[str](), [], time.monotonic() + seconds
    seed = first
    while time.monotonic() < until and len(faults) < 20:
        words = (
            "--child",
            "0",
            "--kind",
            kind,
            "--first",
            str(seed),
            "--seconds",
            str(until - time.monotonic()),
        )
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + 60,
            )
            output, status = done.stdout, done.returncode
        except subprocess.TimeoutExpired as late:
            output, status = (late.stdout or b"").decode(), -signal.SIGALRM
        lines = [line.split(" ", 2) for line in output.splitlines()]
        for number, end, what in (line for line in lines if len(line) == 3):
            ends[end] += 1
            if end == "broken":
                faults.append((kind, int(number), what))
        seed = int(lines[-1][0]) + 1 if lines else seed + 1
        if status and lines and len(lines[-1]) == 1:  # it died over the last input that it has named
            if status in (-signal.SIGPROF, -signal.SIGALRM) and KINDS[kind].timed:
                ends["ended by the timer"] += 1
            elif status == -signal.SIGSEGV and KINDS[kind].timed:
                ends["ended its worker"] += 1
            else:
                faults.append((kind, int(lines[-1][0]), f"the process died: status {status}"))
        elif status:
            faults.append((kind, seed, f"the child died: {done.stderr[-300:]!r}"))
    told = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
    print(f"{kind:10} {sum(ends.values()):7,} inputs: {told}", flush=True)
    return faults


def child(kind: str, first: int, seconds: float) -> int:
    """Try seed after seed; each is named before it is tried, and judged after."""
    warm(kind)
    until, seed = time.monotonic() + seconds, first
    while time.monotonic() < until:
        sys.stdout.write(f"{seed}")
        sys.stdout.flush()
        sys.stdout.write(f" {judged(kind, seed)}\n")
        sys.stdout.flush()
        seed += 1
    return 0


def judged(kind: str, seed: int) -> str:
    """Try one input; return how it ended, in a word, and why."""
    from tests.fuzz.kinds import KINDS

    attacked = KINDS[kind]
    draw = random.Random(f"{kind} {seed}")
    warm(kind)
    before = _peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        _limit(SECONDS_MAX if attacked.timed else 10 * SECONDS_MAX)
        try:
            refusal = attacked.attempt(draw, Path(folder))
        except MemoryError:
            return "broken MemoryError" if attacked.frugal else "refused -"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"broken {type(error).__name__}: {str(error)[:200]!r}"
        finally:
            _limit(0)
        took = time.process_time() - started
    if took > SECONDS_MAX:
        return f"broken took {took:.1f} s"
    grown = _peak_bytes() - before
    if attacked.frugal and grown > GROWTH_BYTES_MAX:
        return f"broken grew by {grown >> 20} MiB"
    if refusal is not None and not str(refusal).strip():
        return "broken an error without a word"
    return "accepted -" if refusal is None else "refused -"


WARM: set[str] = set()
"""Kinds that have run once: imports are not an input's doing."""


def warm(kind: str) -> None:
    """Load what the kind needs, once, before anything is measured."""
    if kind in WARM:
        return
    from tests.fuzz.kinds import KINDS

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception):
        KINDS[kind].attempt(random.Random("warm"), Path(folder))
    WARM.add(kind)
    if not KINDS[kind].frugal:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES_MAX, resource.RLIM_INFINITY))


def _limit(seconds: float) -> None:
    """Let the kernel end the process after so much processor time, as a text worker does; 0 lifts it."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_S_MAX if seconds else 0)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
