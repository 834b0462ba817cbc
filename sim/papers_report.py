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
    cells: int
    """Different ones of the grid; a cell that was repeated is several runs."""
    false: int
    false_at_healthy: int
    packets_per_s: float
    bytes_per_s: float


@attrs.frozen
class Share:
    """False positives of one configuration as a part of another's, over the runs that both have."""

    percent: float | None
    """None where the other has none."""
    percent_at_healthy: float | None
    paper: float | None
    """The paper's, in per cent; None where it has no such configuration."""
    paper_at_healthy: float | None
    cells: int
    runs: int


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
    member_s = max(1.0, MEMBERS * sum(outcome.seconds for outcome in outcomes))
    return Falsehoods(
        configuration,
        len(outcomes),
        len({_place(cell) for cell, _ in results if cell.configuration == configuration}),
        sum(outcome.false for outcome in outcomes),
        sum(outcome.false_at_healthy for outcome in outcomes),
        sum(outcome.packets for outcome in outcomes) / member_s,
        sum(outcome.bytes for outcome in outcomes) / member_s,
    )


def share(configuration: str, base: str, results: Results) -> Share:
    """How many of the false positives of `base` a configuration has, where both ran the same schedule."""
    one, other = _by_schedule(configuration, results), _by_schedule(base, results)
    common = [key for key in one if key in other]
    ours, theirs = TABLE_IV.get(configuration), TABLE_IV.get(base)
    paper = [100 * a / b for a, b in zip(ours, theirs, strict=True)] if ours and theirs else [None, None]
    return Share(
        _percent(sum(one[key].false for key in common), sum(other[key].false for key in common)),
        _percent(
            sum(one[key].false_at_healthy for key in common),
            sum(other[key].false_at_healthy for key in common),
        ),
        paper[0],
        paper[1],
        len({key[:-1] for key in common}),
        len(common),
    )


def _place(cell: Cell) -> tuple[int, int, int]:
    return cell.concurrent, cell.duration_ms, cell.interval_ms


def _by_schedule(configuration: str, results: Results) -> dict[tuple[int, ...], Outcome]:
    return {
        (*_place(cell), cell.repetition): outcome
        for cell, outcome in results
        if cell.configuration == configuration
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


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
    """Table IV in Markdown: counts, and the mean of a run beside the paper's mean over its whole grid."""
    lines = [
        "| configuration | cells, runs | FP | FP- | FP of a run (paper) | packets/s, B/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        paper = TABLE_IV.get(row.configuration)
        mean = f"{row.false / max(1, row.runs):.1f}" + (f" ({paper[0] / INTERVAL_RUNS:.1f})" if paper else "")
        lines.append(
            f"| {row.configuration} | {row.cells}, {row.runs} | {row.false} | {row.false_at_healthy} "
            f"| {mean} | {row.packets_per_s:.1f}, {row.bytes_per_s:,.0f} |"
        )
    return "\n".join(lines)


def share_table(names: Sequence[str], results: Results) -> str:
    """The shape of Table IV in Markdown: parts of SWIM's and of Lifeguard's false positives, and the paper's.

    Each row compares only runs of the same schedule, so that half a campaign says something already.
    """
    lines = [
        "| configuration | against | FP (paper) | FP- (paper) | cells, runs in common |",
        "| --- | --- | --- | --- | --- |",
    ]
    for base in ("swim", "lifeguard"):
        for name in (name for name in names if name not in ("swim", base)):
            row = share(name, base, results)
            if row.runs:
                all_of_them = _beside(row.percent, row.paper)
                healthy = _beside(row.percent_at_healthy, row.paper_at_healthy)
                lines.append(
                    f"| {name} | {base} | {all_of_them} | {healthy} | {row.cells}, {row.runs} |",
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def _seconds(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _beside(ours: float | None, paper: float | None) -> str:
    text = f"{ours:.2f} %" if ours is not None else "-"
    return f"{text} ({paper:.2f} %)" if paper is not None else text
