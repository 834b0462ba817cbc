"""Who this node is across restarts: an id and a generation, kept in the data directory.

With a data directory the id is drawn once and the generation rises by one at each
start, so that rumours about an earlier life lose. Without one, each start is a new
node: the id is fresh and the name is only a label. Two processes that live at once
cannot share one: they would be one node with two voices.
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mesh.identity import GENERATION_MAX, Identity, is_node_id
from node.configure import SettingsError

FILE = "identity.json"
LOCK = "lock"
"""Held as long as a process uses the directory; the kernel lets go of it however the process ends."""


@contextlib.contextmanager
def claimed(data_dir: Path | None) -> Iterator[None]:
    """Keep a data directory to this process while the context lasts. Raises SettingsError."""
    if data_dir is None:
        yield
        return
    with _locked(data_dir):
        yield


def _locked(data_dir: Path) -> IO[bytes]:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / LOCK).open("ab")
    except OSError as error:
        raise _unusable(data_dir, error) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if not isinstance(error, BlockingIOError):
            raise _unusable(data_dir, error) from None
        raise SettingsError(f"`{data_dir}` is used by another node", "give each its own --data-dir") from None
    return file


def _unusable(data_dir: Path, error: OSError) -> SettingsError:
    return SettingsError(f"`{data_dir}` cannot be used: {error.strerror}", "give another --data-dir")


def next_life(data_dir: Path | None) -> Identity:
    """Begin a life: read the identity of the last one, raise its generation, and keep that. Raises SettingsError."""
    if data_dir is None:
        return Identity(_fresh_id(), 0, 0)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        identity = _following(data_dir / FILE)
    except OSError as error:
        raise _unusable(data_dir, error) from None
    keep_generation(data_dir, identity)
    return identity


def keep_generation(data_dir: Path | None, identity: Identity) -> None:
    """Let the next life begin above this generation, to which the running one has risen. Raises SettingsError."""
    if data_dir is None:
        return
    try:
        _write(data_dir / FILE, {"node": identity.node, "generation": identity.generation})
    except OSError as error:
        raise _unusable(data_dir, error) from None


def _fresh_id() -> str:
    return f"{secrets.randbits(64) or 1:016x}"


def _following(path: Path) -> Identity:
    if not path.exists():
        return Identity(_fresh_id(), 1, 0)
    try:
        kept = json.loads(path.read_text())
        node, generation = kept["node"], kept["generation"]
    except (ValueError, KeyError, TypeError):
        node, generation = "", 0
    known = isinstance(node, str) and is_node_id(node)
    if not (known and type(generation) is int and 0 <= generation < GENERATION_MAX):
        raise SettingsError(f"`{path}` is damaged", "remove it; this node then joins under a new id")
    return Identity(node, generation + 1, 0)


def _write(path: Path, value: dict[str, object]) -> None:
    """Replace a file so that a crash leaves the old or the new one, never half of either."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
