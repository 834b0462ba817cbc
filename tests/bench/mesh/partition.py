"""Two halves are cut from each other, one way or both, and joined again: how soon all see all, and who dies of it."""

import time

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row, spread
from tests.bench.mesh.herd import Herd
from tests.bench.mesh.stage import Cut, Scale, Stage
from tests.bench.mesh.views import Kind, completed_at

SETTLE_S = 5.0
GIVE_UP_S = 90.0
"""A mesh that is not whole again by then counts as never healed."""


def run(contender: Contender, scale: Scale) -> Figures:
    """Go through the cuts on one mesh, each after it is whole again."""
    figures: Figures = {}
    healed: list[float] = []
    late_deaths = 0
    with Herd(contender, sides=2) as herd:
        herd.start_all(scale.cut_nodes)
        for number, cut in enumerate(scale.cuts):
            herd.rest(SETTLE_S)
            heal_s, deaths = _cut(herd, cut)
            figures[f"heal_{number}_{cut.name}"] = max(heal_s)
            healed += heal_s
            late_deaths += deaths
    return {**figures, **spread("healed", healed), "late_deaths": late_deaths}


def _cut(herd: Herd, cut: Cut) -> tuple[list[float], int]:
    """Cut and heal; return each node's seconds until it saw all, and the deaths after the heal."""
    for side in herd.space.sides[: 1 if cut.one_way else 2]:
        side.cut()
    herd.rest(cut.seconds)
    at, mark = time.monotonic(), herd.views.mark
    herd.space.heal()
    herd.holds(lambda: herd.views.all_complete(herd.names), GIVE_UP_S)
    deaths = sum(1 for _ in herd.views.since(mark, Kind.DEAD))
    complete = completed_at(herd.views.events, herd.names)
    return [max(0.0, complete.get(name, at + GIVE_UP_S) - at) for name in herd.names], deaths


def rows(scale: Scale) -> tuple[Row, ...]:
    """The lines of the table, for each cut."""
    cuts = (
        Row(
            f"heal_{n}_{cut.name}",
            f"cut {'one way' if cut.one_way else 'both ways'} for {cut.seconds:g} s, all see all after",
            "s",
        )
        for n, cut in enumerate(scale.cuts)
    )
    return (
        *cuts,
        Row("healed_p50", "a node sees all after, median", "s"),
        Row("healed_p99", "a node sees all after, p99", "s", 3.0),
        Row("late_deaths", "held dead after the cut had healed", "count", 0, digits=0),
    )


STAGE = Stage("partition", "halves are cut apart and joined again", run, rows)
