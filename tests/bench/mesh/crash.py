"""Nodes of an idle mesh end, one after another: how long until each other node holds each dead.

Two stages. In `crash` the process is killed, and its kernel resets what connections it had. In `silent`
it is stopped, as if its machine were gone: nothing tells of it but its silence.
"""

import random
import signal
from collections.abc import Callable

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row, spread
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.stage import Scale, Stage
from tests.bench.mesh.views import Kind

SETTLE_S = 10.0
"""Rumours of the start are over by then: the mesh is idle."""
GIVE_UP_S = 60.0
"""A death that is not known everywhere by then counts as missed."""
APART_S = (1.0, 2.0)
"""The next node is killed so long after the last death was known everywhere: any phase of a period."""

ROWS = (
    Row("first_p50", "first node that holds it dead, median", "s"),
    Row("each_p50", "dead at a node, median", "s"),
    Row("each_p99", "dead at a node, p99", "s"),
    Row("all_p50", "dead everywhere, median", "s"),
    Row("all_p99", "dead everywhere, p99", "s", 2.5),
    Row("all_max", "dead everywhere, maximum", "s", 5.0),
    Row("all_count", "nodes ended", "count", digits=0),
    Row("missed", "nodes that never learnt of one", "count", 0, digits=0),
    Row("false_deaths", "living nodes held dead", "count", 0, digits=0),
)

End = Callable[[Herd, str], float]
"""Ends a node; returns when."""


def kill(herd: Herd, victim: str) -> float:
    """End it by SIGKILL."""
    return herd.kill(victim)


def silence(herd: Herd, victim: str) -> float:
    """Stop it for good: its kernel still takes what is sent to it, and nobody answers."""
    return herd.remove(victim, signal.SIGSTOP)


def run(contender: Contender, scale: Scale, end: End, count: int) -> Figures:
    """End a node, wait until it is known, and so on: the mesh shrinks by one each time."""
    rng = random.Random(scale.seed)
    first, each, everywhere, missed = [], [], [], 0
    with Herd(contender) as herd:
        herd.start_all(scale.nodes)
        herd.rest(SETTLE_S)
        mark, ended = herd.views.mark, set()
        for _ in range(count):
            victim = rng.choice(herd.names)
            ended.add(victim)
            times = time_to_dead(herd, victim, end)
            unaware = [name for name in herd.names if herd.views.belief(name, victim) is not Kind.DEAD]
            missed += len(unaware)
            first.append(min(times, default=GIVE_UP_S))
            everywhere.append(GIVE_UP_S if unaware else max(times))
            each += times
            herd.rest(rng.uniform(*APART_S))
        false = sum(event.subject not in ended for event in herd.views.since(mark, Kind.DEAD))
    measured = {**spread("first", first), **spread("each", each), **spread("all", everywhere)}
    return {**measured, "missed": missed, "false_deaths": false}


def time_to_dead(herd: Herd, victim: str, end: End) -> list[float]:
    """End a node; return after how many seconds each other node that learnt it held it dead."""
    mark = herd.views.mark
    at = end(herd, victim)
    herd.holds(lambda: all(herd.views.belief(name, victim) is Kind.DEAD for name in herd.names), GIVE_UP_S)
    deaths = (event for event in herd.views.since(mark, Kind.DEAD) if event.subject == victim)
    return [when - at for when in {event.observer: event.at for event in deaths}.values()]


def run_crash(contender: Contender, scale: Scale) -> Figures:
    """Kill as many as the scale says."""
    return run(contender, scale, kill, scale.kills)


def run_silent(contender: Contender, scale: Scale) -> Figures:
    """Silence as many as the scale says."""
    return run(contender, scale, silence, scale.silences)


STAGE = Stage("crash", "a node of an idle mesh is killed", run_crash, lambda _: ROWS)
SILENT = Stage("silent", "a node of an idle mesh falls silent", run_silent, lambda _: ROWS)
