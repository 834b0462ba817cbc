"""`python -m node keys`: make a mesh key, or the next one of a rotation."""

import sys

from mesh.keyring import line
from node import keys
from node.settings import Config


def run(config: Config) -> int:
    """Write a new key into the key file, or print one where none is named; return the exit status."""
    if config.mesh_key_file is None:
        print(line(keys.fresh()))
        hint = "keep this line in a file of mode 600 on every node, and name it with --mesh-key-file"
        print(f"hint: {hint}", file=sys.stderr)
        return 0
    key, is_new = keys.add(config.mesh_key_file)
    if is_new:
        print(
            f"key {key.id} is in `{config.mesh_key_file}`: copy the file to every node, and keep it from all others"
        )
    else:
        print(f"key {key.id} is added to `{config.mesh_key_file}`, and opens but does not seal yet")
        print(
            "next: copy the file to every node and send each SIGHUP; then move the line to the top everywhere"
        )
    return 0
