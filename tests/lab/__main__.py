"""The fault lab: one scenario file, in the simulator and against real processes.

python -m tests.lab list                          the scenarios here, and what can be done for real
python -m tests.lab run FILE|NAME                 real processes behind fronts of the lab's; no privileges
python -m tests.lab run FILE|NAME --in simulator  the same file in virtual time
"""

import argparse
import sys
from pathlib import Path

from node.cli.fleet import FleetError
from sim.configuration import ConfigurationError
from sim.scenario import Scenario
from sim.scenario import run as simulate
from sim.scenario_file import load
from tests.lab import experiment
from tests.lab.feasible import DONE, REFUSED, InfeasibleError
from tests.lab.page import page
from tests.lab.run import run

SCENARIOS = Path(__file__).parent / "scenarios"


def named(name: str) -> Scenario:
    """Return the scenario of a file, or of one here by its name. Raises OSError and ConfigurationError."""
    path = Path(name)
    if not path.suffix:
        path = SCENARIOS / f"{name}.toml"
    return load(path.read_text(), path.stem)


def main(words: list[str]) -> int:
    """Run what was asked; 0 if every oracle held, 1 if one did not, 2 if it could not be run."""
    asked = _arguments(words)
    try:
        return {"list": _list, "run": _run, "experiment": _experiment}[asked.what](asked)
    except (ConfigurationError, InfeasibleError, FleetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("list", help="name the scenarios here, and the faults that can be done for real")
    one = what.add_parser("run", help="run a scenario")
    one.add_argument("scenario", help="a scenario file, or the name of one here")
    one.add_argument("--in", dest="where", choices=("processes", "simulator"), default="processes")
    one.add_argument(
        "--html", type=Path, metavar="PAGE", help="draw the run of real processes into this file"
    )
    many = what.add_parser("experiment", help="800 requests and a fault, some times over")
    many.add_argument("fault", choices=tuple(experiment.FAULTS))
    many.add_argument("--runs", type=int, default=1, help="how often (default 1)")
    many.add_argument(
        "--requests", type=int, default=experiment.REQUESTS, help="of each client (default 100)"
    )
    many.add_argument(
        "--fault-at", type=float, default=30.0, metavar="S", help="when it strikes (default 30)"
    )
    return parser.parse_args(words)


def _list(_asked: argparse.Namespace) -> int:
    print("scenarios:", " ".join(sorted(path.stem for path in SCENARIOS.glob("*.toml"))))
    print("faults for real:", " ".join(sorted(DONE)))
    for kind, why in sorted(REFUSED.items()):
        print(f"  not {kind}: {why}")
    return 0


def _run(asked: argparse.Namespace) -> int:
    scenario = named(asked.scenario)
    if asked.where == "simulator":
        result = simulate(scenario)
        verdict = str(result.violation) if result.violation else "every check held"
        print(f"{scenario.name}: {verdict}; {result.outcomes}, bites {result.world.bitten}")
        return 1 if result.violation else 0
    outcome = run(scenario)
    print(outcome.line())
    if asked.html:
        asked.html.write_text(page(outcome))
    return 1 if outcome.violation else 0


def _experiment(asked: argparse.Namespace) -> int:
    bad = 0
    for number in range(asked.runs):
        planned = experiment.scenario(asked.fault, asked.requests, asked.fault_at)
        outcome = run(planned, experiment.CLIENTS)
        felt = experiment.felt(outcome)
        bad += outcome.violation is not None or felt.failed > 0
        print(f"run {number + 1}: {felt} {outcome.violation or 'every oracle held'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
