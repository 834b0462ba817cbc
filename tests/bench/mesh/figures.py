"""From samples to a table: percentiles, ratios, targets."""

import math
from collections.abc import Iterable, Sequence

import attrs

Figures = dict[str, float]
"""What one stage measured on one contender, by key."""


def percentile(samples: Iterable[float], share: float) -> float:
    """The smallest sample that at least this share of all do not exceed (nearest rank); NaN of none."""
    ordered = sorted(samples)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(key: str, samples: Sequence[float]) -> Figures:
    """The usual figures of some samples, under `key`."""
    return {
        f"{key}_p50": percentile(samples, 0.50),
        f"{key}_p99": percentile(samples, 0.99),
        f"{key}_max": max(samples, default=math.nan),
        f"{key}_count": len(samples),
    }


@attrs.frozen
class Row:
    """One line of the table; less is better in every one."""

    key: str
    what: str
    unit: str
    at_most: float | None = None
    """What ours must not exceed, if anything was promised."""
    digits: int = 2


HEADINGS = ("", "inferno", "serf", "ratio", "promised", "")


def table(rows: Sequence[Row], ours: Figures | None, theirs: Figures | None) -> list[str]:
    """Lines for a terminal; what was not measured is a dash."""
    cells = [HEADINGS, *(_cells(row, ours or {}, theirs or {}) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return [_line(line, widths) for line in cells]


def _cells(row: Row, ours: Figures, theirs: Figures) -> tuple[str, ...]:
    mine, their = ours.get(row.key), theirs.get(row.key)
    promised = "-" if row.at_most is None else f"≤ {row.at_most:g}"
    return (
        f"{row.what}, {row.unit}",
        _shown(mine, row),
        _shown(their, row),
        ratio(mine, their),
        promised,
        met(row, mine),
    )


def _shown(value: float | None, row: Row) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.{row.digits}f}"


def ratio(mine: float | None, their: float | None) -> str:
    """Ours divided by theirs, or a dash where that says nothing."""
    if mine is None or not their or math.isnan(mine) or math.isnan(their):
        return "-"
    return f"{mine / their:.3g}"


def met(row: Row, mine: float | None) -> str:
    """Whether the promise was kept; a figure that is missing keeps none."""
    if row.at_most is None or mine is None:
        return ""
    return "yes" if mine <= row.at_most else "NO"


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    return "  " + "  ".join((line[0].ljust(len(first)), *rest)).rstrip()
