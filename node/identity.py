"""Who this node is across restarts: an id and a generation, kept in the data directory.

With a data directory the id is drawn once and the generation rises by one at each
start, so that rumours about an earlier life lose. Without one, each start is a new
node: the id is fresh and the name is only a label.
"""

import json
import os
import secrets
from pathlib import Path

from mesh.identity import Identity, is_node_id
from node.configure import SettingsError

FILE = "identity.json"


def next_life(data_dir: Path | None) -> Identity:
    """Begin a life: read the identity of the last one, raise its generation, and keep that. Raises SettingsError."""
    if data_dir is None:
        return Identity(_fresh_id(), 0, 0)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        identity = _following(data_dir / FILE)
        _write(data_dir / FILE, {"node": identity.node, "generation": identity.generation})
    except OSError as error:
        raise SettingsError(f"`{data_dir}` cannot be used: {error.strerror}", "give another --data-dir") from None
    return identity


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
    if not (isinstance(node, str) and is_node_id(node) and type(generation) is int):
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
