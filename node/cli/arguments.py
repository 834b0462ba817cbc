"""The command line: commands, and one flag per row of the table of settings.

`python -m node [COMMAND] [flags]`; the command comes first, and `serve` is meant when there is none.
Flags are left as the words that were typed: `node.configure` parses all places alike.
"""

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs

from node import values
from node.configure import SettingsError, nearest
from node.settings import BY_NAME, GROUPS, SETTINGS, Setting
from node.version import VERSION

RARE = ("limits", "timeouts")
"""Groups that the short usage line leaves out."""


FLAGS = tuple(setting.flag for setting in SETTINGS)


@attrs.frozen
class Option:
    """A whole number that one command takes beside the settings."""

    name: str
    default: int
    low: int
    high: int
    help: str


@attrs.frozen
class Command:
    """Something to do, named by the first word."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    word: str = ""
    """What must stand behind the command, if anything must."""


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("serve", "run one node in the foreground (what is done when no command is named)"),
        Command(
            "keys",
            "make a mesh key: into --mesh-key-file where one is named, below the keys it has; else to be seen",
        ),
        Command(
            "forget",
            "let the mesh forget a dead member, by id or name, through --ops of any node",
            word="node",
        ),
        Command(
            "mesh",
            "run several nodes on this machine in the foreground, joined to one mesh",
            (Option("nodes", 3, 1, 64, "number of nodes"),),
        ),
        Command(
            "demo",
            "kill nodes under running streams and show that every text arrives whole",
            (
                Option("nodes", 5, 4, 64, "number of nodes"),
                Option("streams", 20, 1, 1000, "number of concurrent streams"),
                Option("tokens", 1000, 1, 100_000, "tokens of each stream"),
            ),
        ),
    )
}


@attrs.frozen
class Arguments:
    """A parsed command line."""

    command: str
    flags: dict[str, Any]
    """Words given for settings, by name of the setting; for `node.configure.load`."""
    options: dict[str, int]
    """The command's own numbers, by name, defaults filled in."""
    word: str = ""
    """What stands behind the command."""


class Parser(argparse.ArgumentParser):
    """Argparse that raises SettingsError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, "`--help` lists every flag")


def parse(words: Sequence[str]) -> Arguments:
    """Parse a command line; raises SettingsError. `--help` and `--version` print and raise SystemExit."""
    command, rest = split_command(list(words))
    parser = build(command)
    found, strange = parser.parse_known_args(rest)
    if strange:
        raise unexpected(strange[0], command)
    given = {name: value for name, value in vars(found).items() if value is not None}
    return Arguments(
        command.name,
        {name: value for name, value in given.items() if name in BY_NAME},
        {option.name: number(option, given.get(option.name, option.default)) for option in command.options},
        given.get("word", ""),
    )


def split_command(words: list[str]) -> tuple[Command, list[str]]:
    """Take the command off the front; `serve` if the line begins with a flag or is empty."""
    if not words or words[0].startswith("-"):
        return COMMANDS["serve"], words
    if words[0] not in COMMANDS:
        hint = nearest(words[0], COMMANDS) or "the commands are " + ", ".join(
            f"`{name}`" for name in COMMANDS
        )
        raise SettingsError(f"there is no command `{words[0]}`", hint)
    return COMMANDS[words[0]], words[1:]


def build(command: Command) -> Parser:
    """Build the parser of one command."""
    parser = Parser(
        prog="python -m node" if command.name == "serve" else f"python -m node {command.name}",
        usage=usage(command),
        description=overview(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this and stop.")
    parser.add_argument(
        "--version", action="version", version=f"inferno {VERSION}", help="Show the version and stop."
    )
    if command.word:
        parser.add_argument(
            "word", metavar=command.word.upper(), help="id or name, as GET /members tells them"
        )
    for option in command.options:
        parser.add_argument(
            f"--{option.name}",
            metavar="N",
            help=f"{option.help} ({option.low} to {option.high}; {option.default})",
        )
    for group in GROUPS:
        section = parser.add_argument_group(group)
        for setting in SETTINGS:
            if setting.group == group:
                section.add_argument(
                    setting.flag,
                    dest=setting.name,
                    metavar=setting.metavar,
                    action="append" if setting.repeated else "store",
                    help=describe(setting).replace("%", "%%"),
                )
    return parser


def usage(command: Command) -> str:
    """Return the usage line, with the flags that most people need."""
    own = "".join(f" [--{option.name}\xa0N]" for option in command.options)
    name = "" if command.name == "serve" else f" {command.name}"
    name += f" {command.word.upper()}" if command.word else ""
    flags = " ".join(
        f"[{setting.flag}\xa0{setting.metavar}]" + "..." * setting.repeated
        for setting in SETTINGS
        if setting.group not in RARE
    )
    line = f"python -m node{name}{own} {flags}"
    wrapped = textwrap.fill(line, 96, subsequent_indent=" " * 9, break_on_hyphens=False)
    return wrapped.replace("\xa0", " ")


def overview(command: Command) -> str:
    """Return what stands above the flags: what the command does; on the first page, the other commands."""
    if command.name != "serve":
        return command.help[0].upper() + command.help[1:] + "."
    commands = "\n".join(f"  {each.name:8}{each.help}" for each in COMMANDS.values())
    return (
        "Run one node of an Inferno mesh. Every flag may also stand in the environment (INFERNO_...) or\n"
        f"in a TOML file; docs/reference/settings.md has the table.\n\ncommands (the first word):\n{commands}"
    )


def describe(setting: Setting) -> str:
    """Return a setting's line of help, with its default."""
    if setting.default is None:
        return setting.help
    return f"{setting.help} (default: {values.show(setting.default, setting.unit)})"


def number(option: Option, given: Any) -> int:
    """Parse and bound a command's own number."""
    message = f"`{given}` cannot be used for --{option.name} ({option.low} to {option.high})"
    try:
        value = values.whole(given)
    except ValueError as error:
        raise SettingsError(message, str(error)) from None
    if not option.low <= value <= option.high:
        raise SettingsError(message, f"--{option.name}: {option.help}")
    return value


def unexpected(word: str, command: Command) -> SettingsError:
    """Return the error for a word that means nothing here."""
    flag = word.split("=", 1)[0]
    if not flag.startswith("-"):
        return SettingsError(
            f"`{word}` is not expected after `{command.name}`", "flags begin with `--`, a command comes first"
        )
    known = ["--help", "--version", *(f"--{option.name}" for option in command.options), *FLAGS]
    return SettingsError(f"there is no flag `{flag}`", nearest(flag, known) or "`--help` lists every flag")
