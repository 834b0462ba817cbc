"""The way in: parse, configure, hand over to the command. Exit status 2 is a mistake in what was typed."""

import sys
from collections.abc import Sequence

from node.cli import arguments
from node.cli.arguments import Arguments
from node.configure import SettingsError, load
from node.settings import Config

MISTAKE = 2
"""Exit status when the command line, the environment or the file asks for what cannot be (a taken port too)."""

INTERRUPTED = 130
"""Exit status after Ctrl-C before there was anything to stop in good order (128 + SIGINT)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (the process's own unless given); return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        parsed = arguments.parse(words)
        return run(parsed, load(parsed.flags))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED


def run(parsed: Arguments, config: Config) -> int:
    """Hand over to the command; each is imported only when it is wanted, so that none pays for another."""
    match parsed.command:
        case "mesh":
            from node.cli import mesh

            return mesh.run(config, **parsed.options)
        case "keys":
            from node.cli import keys

            return keys.run(config)
        case "forget":
            from node.cli import forget

            return forget.run(config, parsed.word)
        case "demo":
            from node.cli import demo

            return demo.run(config, **parsed.options)
        case _:
            from node import app

            return app.run(config)
