"""What the kernels cost: by arithmetic, or measured on a GPU.

    python -m kernels.bench --plan   the least time of each kernel and each step, chip by chip: nothing is run
    python -m kernels.bench          correctness, then times, on the GPU of this machine: some minutes
    python -m kernels.bench --dry    the same way on tiny shapes, to see that it is open: no measurement

The plan's figures follow from shapes and data sheets (`kernels.cost`); a measurement is held against them, with
the ceilings that the chip reached in the same run. `make gpu` measures whole models too. A dry run without a GPU
needs Triton's interpreter: `TRITON_INTERPRET=1 python -m kernels.bench --dry`.

    exit 0  all was measured, and every kernel was right (goals of speed may be missed: the table says so)
    exit 1  a kernel disagrees with its specification, a row depends on its company, or a stage failed
    exit 2  it cannot run here
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch

from kernels.cost import CHIPS, SHAPES, Bytes, Chip, Cost, Row, Shape, floor_s, step
from kernels.record import DRY, Record, figure_lines, goal_lines
from kernels.stages import STAGES, ceilings_of, runnable


@attrs.frozen
class Scene:
    """A step worth knowing the floor of."""

    name: str
    rows: tuple[Row, ...]
    bytes_: Bytes = Bytes()


FP8 = Bytes(weight=1, kv=1)

SCENES = (
    Scene("decode 1 x 0", (Row(1, 0),)),
    Scene("decode 1 x 0, int8", (Row(1, 0),), Bytes(weight=1)),
    Scene("decode 1 x 0, int4", (Row(1, 0),), Bytes(weight=0.5)),
    Scene("decode 1 x 32k", (Row(1, 32_768),)),
    Scene("decode 8 x 20k", (Row(1, 20_000),) * 8),
    Scene("decode 64 x 2k", (Row(1, 2048),) * 64),
    Scene("decode 256 x 1.5k", (Row(1, 1536),) * 256),
    Scene("decode 256 x 1.5k, fp8", (Row(1, 1536),) * 256, FP8),
    Scene("decode 1 x 128k + 31 x 4k", (Row(1, 131_072), *(Row(1, 4096),) * 31)),
    Scene("prefill 8k", (Row(8192, 0),)),
    Scene("prefill 512 beside 64 x 2k", (Row(512, 0), *(Row(1, 2048),) * 64)),
)

DETAILED = ("decode 64 x 2k", "prefill 8k")
"""Scenes that are shown kernel by kernel."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns lined up, the first to the left and the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(line, widths) for line in (header, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    padded = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |"


def plan_of_steps(shape: Shape) -> str:
    """Return the floor of each scene on each chip, in milliseconds, launches included."""
    rows = []
    for scene in SCENES:
        costs = step(scene.rows, shape, scene.bytes_)
        moved = sum(cost.bytes_moved for cost in costs) / 1e9
        work = sum(cost.operations for cost in costs) / 1e12
        floors = [f"{floor_s(costs, chip) * 1e3:.2f}" for chip in CHIPS]
        rows.append([scene.name, f"{moved:.2f}", f"{work:.2f}", str(len(costs)), *floors])
    return table(["step", "GB", "TFLOP", "launches", *(f"{chip.name} ms" for chip in CHIPS)], rows)


def plan_of_kernels(shape: Shape, scene: Scene) -> str:
    """Return what each kernel of a scene moves, does and is limited by, summed over the step."""
    costs = step(scene.rows, shape, scene.bytes_)
    names = dict.fromkeys(cost.name for cost in costs)
    rows = [_kernel_row(name, [cost for cost in costs if cost.name == name]) for name in names]
    return table(["kernel", "launches", "GB", "TFLOP", *(chip.name for chip in CHIPS)], rows)


def _kernel_row(name: str, costs: Sequence[Cost]) -> list[str]:
    moved, work = sum(c.bytes_moved for c in costs) / 1e9, sum(c.operations for c in costs) / 1e12
    return [name, str(len(costs)), f"{moved:.3f}", f"{work:.3f}", *(_floor(costs, chip) for chip in CHIPS)]


def _floor(costs: Sequence[Cost], chip: Chip) -> str:
    return f"{floor_s(costs, chip, launches=False) * 1e3:.3f} ms, {costs[0].limit(chip)}"


def plan() -> str:
    """Return everything that `--plan` prints."""
    return "\n\n".join(part for shape in SHAPES for part in _plan_of(shape))


def _plan_of(shape: Shape) -> list[str]:
    steps = f"## {shape.name}: whole steps, launches included\n\n{plan_of_steps(shape)}"
    detailed = [scene for scene in SCENES if scene.name in DETAILED]
    return [
        steps,
        *(f"## {shape.name}: {s.name}, by kernel\n\n{plan_of_kernels(shape, s)}" for s in detailed),
    ]


def report(record: Record) -> str:
    """Return the tables of a run: figures by stage, then goals."""
    found = ceilings_of(record)
    stages = dict.fromkeys(figure.stage for figure in record.figures if figure.stage != "ceilings")
    header = ["", "ms", "rate", "of floor", "peers' time"]
    parts = [
        table([stage, *header[1:]], figure_lines([f for f in record.figures if f.stage == stage], found))
        for stage in stages
    ]
    goals = table(["goal", "wanted", "got", "verdict", "note"], goal_lines(record.goals))
    limits = f"ceilings of this run: {found.bytes_per_s / 1e12:.2f} TB/s, {found.flops / 1e12:.0f} TFLOP/s"
    marks = [DRY] if record.dry else []
    return "\n\n".join([*marks, limits, *parts, goals, *marks])


def faulty(record: Record) -> bool:
    """Whether anything was wrong, as opposed to slow."""
    wrong = any(goal.wanted == 0 and goal.verdict == "missed" for goal in record.goals)
    return wrong or any(name.endswith(": fault") for name in record.facts)


def begin(dry: bool, path: Path | None, budget_s: float) -> Record:
    """Return an empty record of a run on this machine's GPU, or a dry one in the interpreter."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    return Record(device, dry, path, budget_s, say=lambda line: print(line, flush=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was asked for, or measure."""
    parse = argparse.ArgumentParser(
        prog="python -m kernels.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--plan", action="store_true", help="print floors from shapes and data sheets")
    parse.add_argument("--dry", action="store_true", help="tiny shapes, no measurement")
    parse.add_argument("--json", type=Path, help="write the figures to this file after each stage")
    parse.add_argument(
        "--budget", type=float, default=300.0, metavar="S", help="leave out what would take longer"
    )
    arguments = parse.parse_args(argv)
    if arguments.plan:
        print(plan())
        return 0
    reason = runnable(arguments.dry)
    if reason:
        print(f"error: the kernels cannot run here: {reason}\n{HINT}", file=sys.stderr)
        return 2
    record = begin(arguments.dry, arguments.json, arguments.budget)
    for stage in STAGES:
        record.stage(*stage)
    print(f"\n{report(record)}")
    return int(faulty(record))


HINT = "hint: `--plan` needs no GPU, and `TRITON_INTERPRET=1 python -m kernels.bench --dry` tries the way"


if __name__ == "__main__":
    sys.exit(main())
