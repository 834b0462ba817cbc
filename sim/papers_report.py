"""What a campaign of `sim.papers` adds up to, beside what the Lifeguard paper printed (tables IV, V and VI)."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from sim.papers_cells import MEMBERS, Cell, Outcome

QUANTILES = (0.5, 0.99, 0.999)

TABLE_V: Mapping[str, tuple[float, ...]] = {
    "swim": (12.44, 16.96, 19.40, 12.90, 16.93, 20.17),
    "lha-probe": (12.42, 17.75, 20.10, 12.90, 17.98, 20.56),
    "lha-suspicion": (12.42, 17.47, 25.41, 12.89, 17.33, 23.80),
    "buddy": (12.45, 17.12, 19.16, 12.92, 17.18, 19.81),
    "lifeguard": (12.45, 17.90, 21.20, 12.91, 18.05, 21.68),
}
"""Seconds to the first detection, and to all: p50, p99, p99.9 each."""

TABLE_IV: Mapping[str, tuple[int, int]] = {
    "swim": (339_002, 1_326),
    "lha-probe": (229_574, 436),
    "lha-suspicion": (10_174, 89),
    "buddy": (318_935, 591),
    "lifeguard": (5_193, 25),
}
"""False positives, at all and at healthy members, of the 4,320 runs of the interval experiment."""

INTERVAL_RUNS = 4_320

Results = Sequence[tuple[Cell, Outcome]]


@attrs.frozen
class Latencies:
    """Row of table V: seconds, and how they differ from the paper's, in per cent."""

    configuration: str
    first_s: tuple[float, ...]
    all_s: tuple[float, ...]
    samples: int
    undetected: int
    off_percent: tuple[float, ...]


@attrs.frozen
class Falsehoods:
    """Row of table IV, and of table VI per member and second."""

    configuration: str
    runs: int
    false: int
    false_at_healthy: int
    scaled: float
    """False positives, if all 4,320 runs were like these."""
    scaled_at_healthy: float
    packets_per_s: float
    bytes_per_s: float


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank); nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def latencies(configuration: str, results: Results) -> Latencies:
    """Table V's row of a configuration."""
    outcomes = [outcome for cell, outcome in results if cell.configuration == configuration]
    first = [value for outcome in outcomes for value in outcome.first_s]
    everywhere = [value for outcome in outcomes for value in outcome.all_s]
    first_s = tuple(quantile(first, share) for share in QUANTILES)
    all_s = tuple(quantile(everywhere, share) for share in QUANTILES)
    paper = TABLE_V.get(configuration, ())
    off = tuple(100 * (ours / theirs - 1) for ours, theirs in zip((*first_s, *all_s), paper, strict=False))
    undetected = sum(outcome.undetected for outcome in outcomes)
    return Latencies(configuration, first_s, all_s, len(everywhere), undetected, off)


def falsehoods(configuration: str, results: Results) -> Falsehoods:
    """Table IV's row of a configuration."""
    outcomes = [outcome for cell, outcome in results if cell.configuration == configuration]
    runs = len(outcomes)
    false = sum(outcome.false for outcome in outcomes)
    at_healthy = sum(outcome.false_at_healthy for outcome in outcomes)
    scale = INTERVAL_RUNS / max(1, runs)
    member_s = max(1.0, MEMBERS * sum(outcome.seconds for outcome in outcomes))
    return Falsehoods(
        configuration,
        runs,
        false,
        at_healthy,
        false * scale,
        at_healthy * scale,
        sum(outcome.packets for outcome in outcomes) / member_s,
        sum(outcome.bytes for outcome in outcomes) / member_s,
    )


def latency_table(rows: Iterable[Latencies]) -> str:
    """Table V in Markdown, with the difference from the paper's figures."""
    lines = [
        "| configuration | first p50 / p99 / p99.9 | everywhere p50 / p99 / p99.9 | against the paper | victims |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        off = ", ".join(f"{percent:+.1f} %" for percent in row.off_percent) or "-"
        first, everywhere = _seconds(row.first_s), _seconds(row.all_s)
        lines.append(f"| {row.configuration} | {first} | {everywhere} | {off} | {row.samples} |")
    return "\n".join(lines)


def falsehood_table(rows: Sequence[Falsehoods]) -> str:
    """Table IV in Markdown: counts, and shares of plain SWIM's, ours and the paper's."""
    base = next((row for row in rows if row.configuration == "swim"), None)
    lines = [
        "| configuration | runs | FP | FP- | FP of 4,320 runs | % of SWIM (paper) | FP- % (paper) | packets/s, B/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        paper = TABLE_IV.get(row.configuration)
        swim = TABLE_IV["swim"]
        share = _share(row.scaled, base.scaled if base else 0, paper[0] / swim[0] if paper else None)
        healthy = _share(
            row.scaled_at_healthy,
            base.scaled_at_healthy if base else 0,
            paper[1] / swim[1] if paper else None,
        )
        lines.append(
            f"| {row.configuration} | {row.runs} | {row.false} | {row.false_at_healthy} | {row.scaled:,.0f} "
            f"| {share} | {healthy} | {row.packets_per_s:.1f}, {row.bytes_per_s:,.0f} |"
        )
    return "\n".join(lines)


def _seconds(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _share(value: float, base: float, paper: float | None) -> str:
    ours = f"{100 * value / base:.2f}" if base else "-"
    return f"{ours} ({100 * paper:.2f})" if paper is not None else ours
