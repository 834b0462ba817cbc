"""Questions to a node's operations port, which may be slow, stopped or gone."""

import json
import urllib.error
import urllib.request
from typing import Any

import trio

TIMEOUT_S = 2.0
"""Longest wait for an answer; who takes longer has none."""


def ask_now(address: str, path: str) -> Any:
    """Return the JSON or text that a node gives; None if it gives none in time. Blocks."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return None
    return json.loads(body) if body[:1] in (b"[", b"{") else body.decode()


async def ask(address: str, path: str) -> Any:
    """As `ask_now`, in a thread."""
    return await trio.to_thread.run_sync(ask_now, address, path, abandon_on_cancel=True)


def figures(exposition: str) -> dict[str, float]:
    """Return the series of a Prometheus text by their names with labels."""
    lines = [line.rpartition(" ") for line in exposition.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(series: dict[str, float], name: str) -> float:
    """Return the sum of a metric over its labels."""
    return sum(value for key, value in series.items() if key == name or key.startswith(name + "{"))
