"""`make gpu`: is it right, and how fast is it, on the GPU of this machine; under ten minutes on an H200.

    python -m tests.bench.gpu [--json PATH] [--budget S] [--dry]

First `kernels.bench`'s stages (ceilings, every kernel against fp64, independence of rows, times beside torch),
then whole models: one text in any company and across devices, time per token, throughput, cold start. JSON after
each stage, tables last. `TRITON_INTERPRET=1 ... --dry` goes the same way on tiny shapes without a GPU.
Exit status as `kernels.bench`.
"""

import argparse
import sys
from pathlib import Path

from kernels import stages
from kernels.bench import HINT, begin, faulty, report
from tests.bench.gpu import engine, same

BUDGET_S = 580.0


def main() -> int:
    """Measure all that the budget allows."""
    parse = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description="Measure on a GPU.")
    parse.add_argument("--json", type=Path, default=Path("reports/gpu.json"), help="file for the figures")
    parse.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="seconds for all")
    parse.add_argument("--dry", action="store_true", help="tiny shapes, no measurement")
    arguments = parse.parse_args()
    reason = stages.runnable(arguments.dry)
    if reason:
        print(f"error: nothing can be measured here: {reason}\n{HINT}", file=sys.stderr)
        return 2
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    record = begin(arguments.dry, arguments.json, arguments.budget)
    for stage in (*stages.STAGES, ("ember-py", 30, same.texts), *engine.STAGES):
        record.stage(*stage)
    record.write()
    print(f"\n{report(record)}")
    return int(faulty(record))


if __name__ == "__main__":
    sys.exit(main())
