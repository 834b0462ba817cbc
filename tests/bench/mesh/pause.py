"""A quarter of the nodes is stopped, together, again and again: who else is held dead, and how soon they are back."""

import random
import signal
import time

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row, percentile
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.stage import Scale, Stage
from tests.bench.mesh.views import Kind, completed_at, routed_at

SETTLE_S = 5.0
APART_S = 0.064
"""So long do they run between two stops: Lifeguard's hardest interval."""
GIVE_UP_S = 60.0

ROWS = (
    Row("false_deaths", "never stopped, yet held dead", "count", 0, digits=0),
    Row("false_deaths_healthy", "... by one that was never stopped either", "count", 0, digits=0),
    Row("victims", "... nodes that somebody held so", "count", digits=0),
    Row("stopped_deaths", "stopped, and held dead", "count", digits=0),
    Row("back_p50", "a resumed node is in a router's choice again, median", "s"),
    Row("back_p99", "a resumed node is in a router's choice again, p99", "s", 1.0),
    Row("back_max", "a resumed node is in a router's choice again, maximum", "s"),
    Row("whole_s", "all see all again", "s"),
)


def run(contender: Contender, scale: Scale) -> Figures:
    """Stop and resume the same quarter; count deaths until all is whole again."""
    with Herd(contender) as herd:
        herd.start_all(scale.nodes)
        herd.rest(SETTLE_S)
        stopped = random.Random(scale.seed).sample(herd.names, scale.nodes // 4)
        others = [name for name in herd.names if name not in stopped]
        mark = herd.views.mark
        for number in range(scale.pauses):
            if number:
                herd.rest(APART_S)
            herd.signal(stopped, signal.SIGSTOP)
            herd.rest(scale.pause_s)
            resumed_at = time.monotonic()
            herd.signal(stopped, signal.SIGCONT)
        herd.holds(lambda: herd.views.all_complete(herd.names), GIVE_UP_S)
        herd.rest(SETTLE_S)
        deaths = [*herd.views.since(mark, Kind.DEAD)]
        routed = routed_at(herd.views.events)
        whole = completed_at(herd.views.events, herd.names)
    never = resumed_at + GIVE_UP_S
    pairs = [(observer, subject) for observer in others for subject in stopped]
    back = [max(0.0, routed.get(pair, never) - resumed_at) for pair in pairs]
    false = [event for event in deaths if event.subject in others]
    return {
        "false_deaths": len(false),
        "false_deaths_healthy": sum(event.observer in others for event in false),
        "victims": len({event.subject for event in false}),
        "stopped_deaths": len(deaths) - len(false),
        "back_p50": percentile(back, 0.5),
        "back_p99": percentile(back, 0.99),
        "back_max": max(back),
        "whole_s": max(0.0, max(whole.get(name, never) for name in [*others, *stopped]) - resumed_at),
    }


STAGE = Stage("pause", "a quarter of the nodes is stopped and resumed", run, lambda _: ROWS)
