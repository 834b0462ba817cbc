"""What a benchmark writes down: figures, the goals they are held against, one JSON file, one table.

The file is written anew after each stage, so a run that is cut short leaves what it had. Times are medians of
`triton.testing.do_bench`, which clears the cache between runs. A dry run goes the same way on tiny shapes, in
the interpreter if there is no GPU: its figures say that the way is open, and nothing else.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError

import attrs
import torch

from kernels._triton import faults

Call = Callable[[], object]

DRY = "DRY RUN: no figure below is a measurement."


@attrs.frozen
class Figure:
    """One thing that was timed."""

    stage: str
    name: str
    seconds: float
    bytes_moved: float = 0.0
    operations: float = 0.0
    by: str = "inferno"
    """Whose it is: ours, or a peer's in the same run."""
    fault: str = ""
    """Why it could not be had."""

    @property
    def bytes_per_s(self) -> float:
        """The rate at which it moves what it must; 0 if it could not be had."""
        return self.bytes_moved / self.seconds if self.seconds else 0.0

    @property
    def flops(self) -> float:
        """The rate of what it must multiply."""
        return self.operations / self.seconds if self.seconds else 0.0


@attrs.frozen
class Ceilings:
    """What the device did at its best in this run."""

    bytes_per_s: float
    flops: float

    def floor_s(self, figure: Figure) -> float:
        """The least seconds by these ceilings: the slower of moving and multiplying."""
        return max(figure.bytes_moved / self.bytes_per_s, figure.operations / self.flops)


@attrs.frozen
class Goal:
    """Something that was promised, and what was measured."""

    name: str
    unit: str
    wanted: float
    got: float | None
    least: bool = True
    """Whether `wanted` is a least value, or a most."""
    note: str = ""
    dry: bool = False

    @property
    def verdict(self) -> str:
        """`kept`, `missed`, or `not measured`, as nothing is in a dry run."""
        if self.got is None or self.dry:
            return "not measured"
        kept = self.got >= self.wanted if self.least else self.got <= self.wanted
        return "kept" if kept else "missed"


@attrs.define
class Record:
    """One run: where it ran, what it measured, and how long it may still take."""

    device: torch.device
    dry: bool
    path: Path | None
    budget_s: float
    say: Callable[[str], None]
    figures: list[Figure] = attrs.Factory(list)
    facts: dict[str, object] = attrs.Factory(dict)
    """Of the machine and of stages without times, by name."""
    goals: list[Goal] = attrs.Factory(list)
    skipped: list[str] = attrs.Factory(list)
    _began: float = attrs.Factory(time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget_s - (time.monotonic() - self._began)

    def stage(self, name: str, least_s: float, run: Callable[["Record"], None]) -> None:
        """Run a stage if `least_s` are left, and write the file. A stage that fails is said, and the next runs."""
        if self.left_s < least_s:
            self.skipped.append(name)
            self.say(f"{name}: left out, {self.left_s:.0f} s of the budget are left")
            self.write()
            return
        began = time.monotonic()
        try:
            run(self)
        except (*faults(), OSError, SubprocessError) as error:
            self.facts[f"{name}: fault"] = f"{type(error).__name__}: {error}"[:500]
            self.say(f"{name}: FAILED: {self.facts[f'{name}: fault']}")
        self.facts[f"{name}: seconds"] = round(time.monotonic() - began, 1)
        self.say(f"{name}: {self.facts[f'{name}: seconds']} s, {self.left_s:.0f} s left")
        self.write()

    def seconds(self, call: Call) -> float:
        """The median time of a call, in seconds; in a dry run that of one call."""
        if self.dry:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began
        from triton.testing import do_bench

        return do_bench(call, warmup=20, rep=80, return_mode="median") / 1e3

    def time(
        self, stage: str, name: str, call: Call, moved: float = 0.0, work: float = 0.0, by: str = "inferno"
    ) -> Figure:
        """Time a call and keep the figure. A peer that cannot run is kept with its fault."""
        try:
            figure = Figure(stage, name, self.seconds(call), moved, work, by)
        except faults() as error:
            if by == "inferno":
                raise
            figure = Figure(stage, name, 0.0, moved, work, by, f"{type(error).__name__}: {error}"[:200])
        self.figures.append(figure)
        return figure

    def promise(
        self,
        name: str,
        unit: str,
        wanted: float,
        got: float | None,
        *,
        least: bool = True,
        note: str = "",
        certain: bool = False,
    ) -> None:
        """Hold a value against a goal. certain: it does not depend on time, and counts in a dry run too."""
        self.goals.append(Goal(name, unit, wanted, got, least, note, self.dry and not certain))

    def find(self, name: str, by: str = "inferno") -> Figure | None:
        """A figure by its name, if it was measured."""
        return next((f for f in self.figures if f.name == name and f.by == by and not f.fault), None)

    def write(self) -> None:
        """Write all of it as JSON, whole or not at all."""
        if self.path is None:
            return
        content = {
            "dry": self.dry,
            "facts": self.facts,
            "figures": [attrs.asdict(figure) for figure in self.figures],
            "goals": [attrs.asdict(goal) | {"verdict": goal.verdict} for goal in self.goals],
            "skipped": self.skipped,
        }
        draft = self.path.with_name(f"{self.path.name}.new")
        draft.write_text(json.dumps(content, indent=1, default=str) + "\n")
        draft.replace(self.path)


def figure_lines(figures: Sequence[Figure], ceilings: Ceilings) -> list[list[str]]:
    """Rows of the table of figures: time, rate, percent of the floor, and a peer's time as a ratio."""
    ours = [figure for figure in figures if figure.by == "inferno"]
    return [_figure_line(figure, figures, ceilings) for figure in ours]


def _figure_line(figure: Figure, figures: Sequence[Figure], ceilings: Ceilings) -> list[str]:
    floor = ceilings.floor_s(figure)
    rate = f"{figure.flops / 1e12:.0f} TFLOP/s" if _bound_by_work(figure, ceilings) else _bandwidth(figure)
    peers = [peer for peer in figures if peer.name == figure.name and peer.by != "inferno"]
    beside = ", ".join(
        f"{peer.by} {'failed' if peer.fault else f'{peer.seconds / figure.seconds:.2f}x'}" for peer in peers
    )
    share = f"{100 * floor / figure.seconds:.0f} %" if floor and figure.seconds else "-"
    return [figure.name, f"{figure.seconds * 1e3:.3f}", rate, share, beside or "-"]


def _bound_by_work(figure: Figure, ceilings: Ceilings) -> bool:
    return figure.operations / ceilings.flops > figure.bytes_moved / ceilings.bytes_per_s


def _bandwidth(figure: Figure) -> str:
    return f"{figure.bytes_per_s / 1e12:.2f} TB/s" if figure.bytes_moved else "-"


def goal_lines(goals: Sequence[Goal]) -> list[list[str]]:
    """Rows of the table of goals."""
    return [
        [
            goal.name,
            f"{'≥' if goal.least else '≤'} {goal.wanted:g} {goal.unit}",
            "-" if goal.got is None else f"{goal.got:.4g}",
            goal.verdict,
            goal.note or "-",
        ]
        for goal in goals
    ]
