"""The mesh key file: read with care for who else may read it, and written so that nobody may.

What is in it: `mesh.keyring`.
"""

import os
import stat
from pathlib import Path

from mesh.keyring import FILE_BYTES_MAX, KEY_BYTES, KEY_ID_MAX, Keyring, KeyringError, MeshKey, line, parse
from node.configure import SettingsError

FLAG = "--mesh-key-file"


def read(path: Path) -> Keyring:
    """Read a ring of keys. Raises SettingsError if the file cannot be used or others may read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(
            f"{FLAG} `{path}` cannot be read: {error.strerror}", "`python -m node keys` makes one"
        ) from None
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{FLAG} `{path}` is open to others (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        )
    if len(text) > FILE_BYTES_MAX:
        raise SettingsError(f"{FLAG} `{path}` is longer than {FILE_BYTES_MAX} bytes", "is it a file of keys?")
    try:
        return parse(text.decode("ascii", "replace"))
    except KeyringError as error:
        raise SettingsError(f"{FLAG} `{path}`: {error.message}", error.hint) from None


def fresh(ring: Keyring | None = None) -> MeshKey:
    """Draw a key; its id follows the greatest in the ring, the least free one after 255."""
    taken = {key.id for key in ring.keys} if ring is not None else set()
    wanted = [max(taken, default=0) + 1, *range(1, KEY_ID_MAX + 1)]
    free = next(id for id in wanted if id <= KEY_ID_MAX and id not in taken)
    return MeshKey(free, os.urandom(KEY_BYTES))


def add(path: Path) -> tuple[MeshKey, bool]:
    """Write a new key below those of a file, or into a new one; return it and whether the file is new.

    Raises SettingsError with nothing changed; a crash leaves the old file or the new one.
    """
    ring = read(path) if path.exists() else None
    key = fresh(ring)
    lines = [] if ring is None else path.read_text().splitlines()
    text = "\n".join([*lines, line(key)]) + "\n"
    try:
        parse(text)
        _write(path, text)
    except KeyringError as error:
        raise SettingsError(f"{FLAG} `{path}`: {error.message}", error.hint) from None
    except OSError as error:
        raise SettingsError(f"{FLAG} `{path}` cannot be written: {error.strerror}", "name another") from None
    return key, ring is None


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(number, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
