"""Many nodes start at once, through one seed: how long after the last is ready does each see all."""

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row, percentile
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.stage import Scale, Stage
from tests.bench.mesh.views import completed_at

GIVE_UP_S = 150.0

ROWS = (
    Row("complete_p50", "all see all, after the last node is ready, median", "s"),
    Row("complete_max", "all see all, after the last node is ready, maximum", "s", 5.0),
    Row("incomplete", "bursts that never completed", "count", 0, digits=0),
    Row("bursts", "bursts", "count", digits=0),
    Row("start_s", "all started and ready, median", "s"),
    Row("start_cpu_s", "processor time of a start, until complete, median", "s"),
)


def run(contender: Contender, scale: Scale) -> Figures:
    """Start a mesh as fast as processes can be made, several times."""
    bursts = [_burst(contender, scale.nodes) for _ in range(scale.bursts)]
    complete = [complete_s for complete_s, _, _ in bursts]
    return {
        "complete_p50": percentile(complete, 0.5),
        "complete_max": max(complete),
        "incomplete": sum(complete_s >= GIVE_UP_S for complete_s in complete),
        "bursts": len(bursts),
        "start_s": percentile([start_s for _, start_s, _ in bursts], 0.5),
        "start_cpu_s": percentile([cpu_s for _, _, cpu_s in bursts], 0.5),
    }


def _burst(contender: Contender, count: int) -> tuple[float, float, float]:
    with Herd(contender) as herd:
        seed = herd.start(0, ())
        herd.until(lambda: seed.ready_at is not None, GIVE_UP_S, "the seed to be ready")
        for number in range(1, count):
            herd.start(number, [seed.bind])
        nodes = herd.nodes.values()
        herd.until(lambda: all(node.ready_at for node in nodes), GIVE_UP_S, "all to be ready")
        ready_at = max(node.ready_at or 0.0 for node in nodes)
        start_s = ready_at - (seed.ready_at or 0.0)
        if not herd.holds(lambda: herd.views.all_complete(herd.names), GIVE_UP_S):
            return GIVE_UP_S, start_s, sum(node.cpu_s for node in nodes) / count
        cpu_s = sum(node.cpu_s for node in nodes) / count
        at = max(completed_at(herd.views.events, herd.names).values())
        return max(0.0, at - ready_at), start_s, cpu_s


STAGE = Stage("burst", "many nodes join at once", run, lambda _: ROWS)
