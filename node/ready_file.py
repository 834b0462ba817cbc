"""The ready file: how whoever started a node learns where it listens.

It is written once, whole or not at all, and tells of this start only: one that an earlier
process left is removed first, so that nobody reads the ports of the dead.
"""

from pathlib import Path

from node.configure import SettingsError


def prepare(path: Path | None) -> None:
    """Remove an earlier file and check that a new one can be written. Raises SettingsError."""
    if path is None:
        return
    hint = "--ready-file names a file to write, in a directory that exists"
    if path.exists() and not path.is_file():
        raise SettingsError(f"`{path}` is not a plain file", hint)
    try:
        _partial(path).touch()
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"`{path}` cannot be written: {error.strerror}", hint) from None


def write(path: Path, text: str) -> None:
    """Put the whole text in its place at once. Raises OSError."""
    _partial(path).write_text(text)
    _partial(path).replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
