"""Work over many processes: results as they come, Ctrl-C left to this process alone."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import Pool
from typing import Any

JOBS_MAX = 256


def results(work: Callable[[Any], Any], tasks: Sequence[Any], jobs: int | None) -> Iterator[Any]:
    """Yield `work(task)` for each task, in any order, over so many processes; None is one per core."""
    jobs = min(jobs or os.cpu_count() or 1, len(tasks))
    if jobs == 1:
        yield from map(work, tasks)
        return
    with _pool(jobs) as pool:
        yield from pool.imap_unordered(work, tasks)


def _pool(jobs: int) -> Pool:
    """Start processes that ignore Ctrl-C: what is ignored here when they start, they ignore."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return multiprocessing.get_context("spawn").Pool(jobs)
    finally:
        signal.signal(signal.SIGINT, handler)
