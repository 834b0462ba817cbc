"""The file whose content a node publishes about itself (`mesh.metadata`): read whole, and within its limit."""

from pathlib import Path

from mesh.codec import METADATA_BYTES_MAX
from node.configure import SettingsError

FLAG = "--metadata-file"


def read(path: Path) -> bytes:
    """Read what is to be published. Raises SettingsError if the file cannot be read or is over 64 KiB."""
    try:
        with path.open("rb") as file:
            value = file.read(METADATA_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(
            f"{FLAG} `{path}` cannot be read: {error.strerror}", "name a file that the node may read"
        ) from None
    if len(value) > METADATA_BYTES_MAX:
        raise SettingsError(
            f"{FLAG} `{path}` is over the limit of {METADATA_BYTES_MAX} bytes",
            "publish where the rest is to be had",
        )
    return value
