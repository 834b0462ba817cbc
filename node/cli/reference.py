"""docs/reference/settings.md; `make docs` writes it with this module's output."""

import sys

from node import values
from node.settings import GROUPS, SETTINGS, Setting

HEAD = """\
# Settings

Written by `make docs` from the table in `node/settings.py`; a test compares.

A value is taken from the first place that gives one: flag, environment, TOML file (`--config FILE`), default.
Keys of the file are the names below, all at top level; a setting that may be repeated takes a list there, and
a list with commas in the environment. Variables also answer to `PINGORA_` instead of `INFERNO_`.
Unknown flags, keys and `INFERNO_` variables are errors. Sizes may carry `KiB`, `MiB` or `GiB`, durations
`ms`, `s`, `m` or `h`.
"""

ABOUT = {
    "addresses": "A default port that is taken moves to the next free one; an explicit one is an error."
    " Port 0 takes any free one. Without a mesh key, only loopback addresses are allowed; `http` and `ops` stay"
    " there in any case, since clients are not authenticated yet.",
    "mesh": "Who belongs to the mesh: docs/explanation/security.md.",
    "engine": "What is computed here, and with what.",
    "process": "The process itself.",
    "limits": "What one node holds at most. What is beyond a limit is refused by name.",
    "timeouts": "How long silence is borne.",
}
"""One paragraph for each group."""


def page() -> str:
    """Return the whole reference page."""
    return "\n".join([HEAD, *(section(group) for group in GROUPS)])


def section(group: str) -> str:
    """Return one group: its paragraph and its table."""
    rows = "\n".join(line(setting) for setting in SETTINGS if setting.group == group)
    head = "| name | flag and variable | default | range | what it does |\n| --- | --- | --- | --- | --- |"
    return f"## {group.capitalize()}\n\n{ABOUT[group]}\n\n{head}\n{rows}\n"


def line(setting: Setting) -> str:
    """Return one row of a table."""
    default = "" if setting.default is None else f"`{values.show(setting.default, setting.unit)}`"
    older = "".join(f", older `{name}`" for name in setting.older)
    how = f"`{setting.flag} {setting.metavar}`, `{setting.variables[0]}`{older}".replace("|", "\\|")
    name = f"`{setting.name}`" if setting.in_file else f"`{setting.name}` (not in the file)"
    return f"| {name} | {how} | {default} | {setting.limits} | {setting.help} |"


if __name__ == "__main__":
    sys.stdout.write(page())
