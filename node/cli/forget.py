"""`python -m node forget NODE`: let the mesh forget a member, through the operations port of any node (`--ops`)."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import attrs

from node.settings import Config

TIMEOUT_S = 5.0
"""Longest wait for an answer of the operations port."""


@attrs.frozen
class Refusal(Exception):
    """Why the member cannot be forgotten, in words for the operator."""

    why: str
    hint: str


def run(config: Config, node: str) -> int:
    """Find the member by its id or its name, and have it forgotten; return the exit status."""
    base = f"http://{config.ops}"
    try:
        found = pick(_ask(f"{base}/members"), node)
        _ask(f"{base}/forget?node={found}", method="POST")
    except Refusal as refusal:
        print(f"error: {refusal.why}\nhint: {refusal.hint}", file=sys.stderr)
        return 1
    print(
        f"`{node}` ({found}) is being forgotten: at once if it is gone; else after a look, unless it answers"
    )
    return 0


def pick(members: list[dict[str, Any]], node: str) -> str:
    """Return the id of the one member of that id or name. Raises Refusal."""
    ids = [row["node"] for row in members if node == row["node"]]
    ids = ids or [row["node"] for row in members if node == row["name"]]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise Refusal(f"{len(ids)} members are named `{node}`", f"name one by its id: {', '.join(ids)}")
    known = ", ".join(row["name"] for row in members[:16])
    raise Refusal(f"the mesh has no member `{node}`", f"it knows {known}")


def _ask(url: str, method: str = "GET") -> Any:
    """Return what the operations port answers. Raises Refusal."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Refusal(
            f"the node answers {error.code}: {error.read(500).decode()}", "it cannot forget itself"
        ) from None
    except (OSError, ValueError) as error:
        where = urllib.parse.urlsplit(url).netloc
        raise Refusal(f"no node answers at {where}: {error}", "name its operations port with --ops") from None
