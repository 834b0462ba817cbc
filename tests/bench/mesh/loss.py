"""A share of all packets is lost: who is held dead, although everybody lives."""

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.stage import Scale, Stage
from tests.bench.mesh.views import Kind

SETTLE_S = 5.0
AFTER_S = 20.0
"""Suspicions of the last lossy second have run out by then."""


def run(contender: Contender, scale: Scale) -> Figures:
    """Lose each share for a while, each on a new mesh."""
    figures: Figures = {}
    for percent in scale.losses_percent:
        figures |= {f"{key}_{percent}": value for key, value in _lossy(contender, scale, percent).items()}
    return figures


def _lossy(contender: Contender, scale: Scale, percent: int) -> Figures:
    with Herd(contender) as herd:
        herd.start_all(scale.nodes)
        herd.rest(SETTLE_S)
        mark = herd.views.mark
        herd.space.sides[0].lose(percent)
        herd.rest(scale.loss_s)
        herd.space.heal()
        herd.rest(AFTER_S)
        names = herd.names
        counts = {kind: sum(1 for _ in herd.views.since(mark, kind)) for kind in Kind}
        victims = {event.subject for event in herd.views.since(mark, Kind.DEAD)}
        incomplete = sum(not herd.views.is_complete(name, names) for name in names)
    return {
        "deaths": counts[Kind.DEAD],
        "victims": len(victims),
        "suspicions": counts[Kind.SUSPECT] + counts[Kind.DOUBTED],
        "quarantines": counts[Kind.QUARANTINED],
        "incomplete": incomplete,
    }


def rows(scale: Scale) -> tuple[Row, ...]:
    """The lines of the table, for each share."""
    found: list[Row] = []
    for percent in scale.losses_percent:
        found += [
            Row(
                f"deaths_{percent}",
                f"{percent} % lost for {scale.loss_s:g} s: false deaths",
                "count",
                0,
                digits=0,
            ),
            Row(f"victims_{percent}", "... nodes that somebody held dead", "count", digits=0),
            Row(f"suspicions_{percent}", "... suspicions", "count", digits=0),
            Row(
                f"incomplete_{percent}",
                f"... nodes that do not see all {AFTER_S:g} s later",
                "count",
                0,
                digits=0,
            ),
        ]
    return tuple(found)


STAGE = Stage("loss", "packets are lost", run, rows)
