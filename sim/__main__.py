"""`python -m sim COMMAND`: run scenarios in virtual time, and look into what was found."""

import argparse
import sys
from collections.abc import Sequence

from sim.cli import compare, run, shrink, swarm, whatif
from sim.cli.common import Usage, refuse
from sim.configuration import ConfigurationError

COMMANDS = {
    "run": (run, "run a scenario, or the same with several seeds"),
    "swarm": (swarm, "run scenarios drawn from many seeds, over all cores"),
    "shrink": (shrink, "make a scenario that fails as small as possible, and print it as a test"),
    "compare": (compare, "run two configurations under the same clients and faults, and tell what differs"),
    "whatif": (whatif, "say what would happen to a mesh of your own"),
}
"""Name -> (module with `add` and `main`, what it does)."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parse = argparse.ArgumentParser(
        prog="python -m sim",
        description="Run the real node cores in virtual time under faults, and check what must always hold.",
        epilog="exit status: 0 all checks held, 1 a check failed, 2 bad usage, 130 stopped by Ctrl-C",
    )
    commands = parse.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, says) in COMMANDS.items():
        module.add(commands.add_parser(name, help=says, description=f"{says[:1].upper()}{says[1:]}."))
    return parse


def helps() -> dict[str, str]:
    """Return the help of the whole, under the name `sim`, and of each command. `COLUMNS` is their width."""
    parse = parser()
    (commands,) = (action for action in parse._actions if isinstance(action, argparse._SubParsersAction))
    return {
        "sim": parse.format_help(),
        **{name: each.format_help() for name, each in commands.choices.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command; return the exit status. Options without a command are those of `run`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "run")
    arguments = parser().parse_args(words)
    module, _ = COMMANDS[arguments.command]
    try:
        return module.main(arguments)
    except (Usage, ConfigurationError) as error:
        return refuse(error)


if __name__ == "__main__":
    sys.exit(main())
