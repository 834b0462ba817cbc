"""Two configurations on the same scenarios: what differs, and how sure that is.

Both run every seed, with the same clients and faults at the same times, so that each
seed gives a pair and what all seeds share cancels out. The mean of the differences has
a confidence interval by the bootstrap (Efron 1979; percentiles of `RESAMPLES` means of
resampled pairs, drawn from a seeded generator, so that one comparison is one table).

A figure that does not exist in a run (nobody crashed; somebody never noticed) leaves its
pair out of that row; the row says how many pairs it rests on.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from node.core import NodeOptions
from sim.journal import Journal
from sim.members import Plan, with_swim
from sim.members import run as run_members
from sim.report import report
from sim.scenario import Scenario, run
from sim.stream import random_of

RESAMPLES = 2000
CONFIDENCE = 0.95
PAIRS_MIN = 5
"""With fewer pairs no interval is given."""

Figures = dict[str, Any]


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _detections(field: str) -> Callable[[Figures], float | None]:
    return lambda figures: _mean([found[field] for found in figures["detections"]])


def _failed(figures: Figures) -> float:
    outcomes = figures["clients"]["outcomes"]
    return float(sum(count for name, count in outcomes.items() if name not in ("done", "cancelled")))


METRICS: dict[str, Callable[[Figures], float | None]] = {
    "out of routing, first (s)": _detections("out_of_routing_first_s"),
    "out of routing, everywhere (s)": _detections("out_of_routing_all_s"),
    "dead, first (s)": _detections("dead_first_s"),
    "dead, everywhere (s)": _detections("dead_all_s"),
    "held dead though running": lambda figures: float(figures["membership"]["false_deaths"]),
    "quarantined though running": lambda figures: float(figures["membership"]["false_quarantines"]),
    "gossip (bytes/node/s)": lambda figures: figures["traffic"]["bytes_per_node_s"],
    "gossip (datagrams/node/s)": lambda figures: figures["traffic"]["datagrams_per_node_s"],
    "longest client pause (s)": lambda figures: figures["clients"]["longest_pause_s"]["max"],
    "first token, p99 (s)": lambda figures: figures["clients"]["first_token_s"]["p99"],
    "moved streams": lambda figures: float(figures["clients"]["moves"]),
    "requests that failed": _failed,
}
"""Row -> the figure of one run; lower is better in all of them, moves and bytes by cost."""

CLIENT_METRICS = frozenset(list(METRICS)[8:])
"""Rows that runs of membership alone do not have."""


@attrs.frozen
class Pair:
    """What one seed gave under each configuration."""

    seed: int
    one: dict[str, float | None]
    other: dict[str, float | None]
    failed_one: str = ""
    """The check that failed; empty if all held."""
    failed_other: str = ""


@attrs.frozen
class Difference:
    """One row: the second configuration less the first."""

    metric: str
    pairs: int
    one: float | None = None
    """Mean over the pairs under the first configuration."""
    other: float | None = None
    difference: float | None = None
    low: float | None = None
    """Ends of the confidence interval of the mean difference; None with fewer than `PAIRS_MIN` pairs."""
    high: float | None = None

    @property
    def verdict(self) -> str:
        """`less`, `more`, `same` if every pair agrees, or `unclear` if the interval holds zero."""
        if self.low is None or self.high is None:
            return "too few"
        if self.low == self.high == 0.0:
            return "same"
        if self.high < 0.0:
            return "less"
        return "more" if self.low > 0.0 else "unclear"


def pair(scenario: Scenario, one: NodeOptions, other: NodeOptions) -> Pair:
    """Run a scenario under both configurations."""
    first, failed_one = _measured(scenario, one)
    second, failed_other = _measured(scenario, other)
    return Pair(scenario.seed, first, second, failed_one, failed_other)


def _measured(scenario: Scenario, options: NodeOptions) -> tuple[dict[str, float | None], str]:
    journal = Journal()
    configured = attrs.evolve(scenario, options=attrs.evolve(scenario.options, node=options))
    return _metrics(report(run(configured, listen=journal.attach), journal))


def pair_members(plan: Plan, one: NodeOptions, other: NodeOptions) -> Pair:
    """Run membership alone under both configurations, the same nodes in the same trouble."""
    first, second = (_metrics(run_members(with_swim(plan, options.swim))) for options in (one, other))
    return Pair(plan.seed, first[0], second[0], first[1], second[1])


def _metrics(figures: Figures) -> tuple[dict[str, float | None], str]:
    has_clients = "clients" in figures
    measured = {
        name: metric(figures) if has_clients or name not in CLIENT_METRICS else None
        for name, metric in METRICS.items()
    }
    return measured, figures["violation"]["check"] if figures["violation"] else ""


def differences(pairs: Sequence[Pair]) -> list[Difference]:
    """Return a row for each metric."""
    return [_difference(name, pairs) for name in METRICS]


def _difference(name: str, pairs: Sequence[Pair]) -> Difference:
    there = [
        (p.one[name], p.other[name]) for p in pairs if p.one[name] is not None and p.other[name] is not None
    ]
    if not there:
        return Difference(name, 0)
    deltas = [other - one for one, other in there]
    low, high = (
        interval(deltas, random_of(0, "bootstrap", name)) if len(deltas) >= PAIRS_MIN else (None, None)
    )
    one, other = _mean([one for one, _ in there]), _mean([other for _, other in there])
    return Difference(name, len(there), one, other, _mean(deltas), low, high)


def interval(
    values: Sequence[float], rng: random.Random, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bootstrap's interval of the mean of some values, at least one."""
    count = len(values)
    means = sorted(sum(rng.choices(values, k=count)) / count for _ in range(RESAMPLES))
    tail = (1.0 - confidence) / 2
    return means[int(RESAMPLES * tail)], means[min(RESAMPLES - 1, int(RESAMPLES * (1.0 - tail)))]
