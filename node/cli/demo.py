"""`python -m node demo`: kill nodes under running streams and compare every text.

Clients enter through two nodes that are never killed. Each request runs twice with
the same seed: once undisturbed, once while two of the other nodes are SIGKILLed as
they serve. Both texts must be equal to the byte.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

from node.cli.fleet import ANY_PORTS, Fleet, FleetError, Pause, wait_until
from node.cli.streams import Crowd, Watched
from node.configure import to_flags
from node.settings import Config

ENTRIES = 2
"""Nodes through which clients enter; never killed."""

VICTIMS = 2
"""Nodes that are killed."""

TEMPERATURE = 0.8
"""Sampled, since greedy text falls into loops that would hide a wrong continuation."""

KILL_AT = (0.15, 0.35)
"""Shares of all tokens delivered at which each victim is killed."""

RUN_MAX_S = 1200.0
"""Longest that one run of all streams may take."""

PROMPTS = (
    "# Lib/json/tool.py\n",
    "# Lib/heapq.py\n",
    "import os\n\ndef walk(",
    "class Queue:\n    def __init__(self",
    "# Lib/test/test_bisect.py\n",
)


@attrs.frozen
class Kill:
    """A node that was killed, and how many streams it served then."""

    node: str
    serving: int
    at_tokens: int


def run(config: Config, nodes: int, streams: int, tokens: int) -> int:
    """Run the demonstration; 0 if every text arrived whole and equal, 1 if not."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="inferno-demo-") as directory,
            Fleet(Path(directory)) as fleet,
        ):
            return _demonstrate(fleet, config, nodes, streams, tokens)
    except FleetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _demonstrate(fleet: Fleet, config: Config, nodes: int, streams: int, tokens: int) -> int:
    _say(f"starting {nodes} nodes with {config.models[0]}")
    names = [f"n{number + 1}" for number in range(nodes)]
    fleet.start_all(names, *_flags(config, nodes))
    fleet.wait_converged()
    bodies = [_body(config, number, tokens) for number in range(streams)]
    _say(f"undisturbed: {streams} streams of {tokens} tokens")
    calm = _run_streams(fleet, bodies)
    _say("the same again, and two nodes are killed as they serve")
    kills: list[Kill] = []
    stormy = _run_streams(fleet, bodies, kills)
    return _judge(calm, stormy, kills)


def _flags(config: Config, nodes: int) -> list[str]:
    flags = [*ANY_PORTS, *to_flags(config)]
    if not config.explicit("threads"):
        flags += ["--threads", str(max(1, (os.cpu_count() or 1) // nodes))]
    return flags


def _body(config: Config, number: int, tokens: int) -> dict[str, Any]:
    return {
        "model": Path(config.models[0]).name,
        "prompt": PROMPTS[number % len(PROMPTS)],
        "max_tokens": tokens,
        "temperature": TEMPERATURE if number % 10 else 0.0,
        "seed": 1000 + number,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _run_streams(
    fleet: Fleet, bodies: list[dict[str, Any]], kills: list[Kill] | None = None
) -> list[Watched]:
    """Run all streams at once; if `kills` is a list, kill nodes on the way and note each in it."""
    entries = [member.http for member in fleet.members[:ENTRIES]]
    watched = [Watched(n + 1, entries[n % ENTRIES], body) for n, body in enumerate(bodies)]
    crowd = Crowd(watched)
    total = sum(body["max_tokens"] for body in bodies)
    progress = Progress(total)
    while not crowd.ended:
        delivered = sum(stream.events for stream in watched)
        progress.show(delivered)
        if kills is not None and len(kills) < VICTIMS and delivered >= KILL_AT[len(kills)] * total:
            kills.append(_kill_one(fleet, delivered))
        Pause(0.1).once()
    crowd.join()
    progress.show(total, last=True)
    return watched


def _kill_one(fleet: Fleet, delivered: int) -> Kill:
    """Kill, of the nodes that are no entry, the one that serves most streams."""
    victims = [member for member in fleet.running if member not in fleet.members[:ENTRIES]]
    serving = wait_until(
        lambda: _serving(fleet), RUN_MAX_S, "a stream to be served by a node that may be killed"
    )
    victim = max(victims, key=lambda member: serving.get(member.name, 0))
    victim.kill()
    kill = Kill(victim.name, serving.get(victim.name, 0), delivered)
    _say(f"kill -9 {victim.name} (pid {victim.process.pid}) while it serves {kill.serving} streams")
    return kill


def _serving(fleet: Fleet) -> dict[str, int]:
    """Return how many streams each node that is no entry serves now, if any does."""
    entries = fleet.members[:ENTRIES]
    workers = [flight["worker"] for entry in entries for flight in entry.ask("/flights") or []]
    others = [member.name for member in fleet.running if member not in entries]
    return {name: workers.count(name) for name in others if name in workers}


# -- what is shown ----------------------------------------------------------------------------------


@attrs.define
class Progress:
    """How far, how fast, how long still: redrawn on a terminal, a line per ten seconds elsewhere."""

    total: int
    _began: float = attrs.field(init=False, factory=time.monotonic)
    _shown: float = attrs.field(init=False, factory=time.monotonic)

    def show(self, done: int, last: bool = False) -> None:
        """Show where things stand, if it is time to."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if not last and now - self._shown < (0.2 if terminal else 10):
            return
        self._shown = now
        rate = done / max(now - self._began, 0.001)
        left = (self.total - done) / rate if rate else 0
        line = f"  {done:6} of {self.total} events, {rate:5.0f}/s, {left:4.0f} s left"
        end = "\n" if last or not terminal else ""
        print(("\r" if terminal else "") + line, end=end, file=sys.stderr, flush=True)


def _judge(calm: list[Watched], stormy: list[Watched], kills: list[Kill]) -> int:
    rows = list(zip(calm, stormy, strict=True))
    print("\n  stream  entry            served by             tokens  moved  longest pause  text")
    for one, other in rows:
        print(_row(one, other))
    equal = sum(_is_equal(one, other) for one, other in rows)
    lost = sum(bool(other.error) for _, other in rows)
    moved = sum(other.moves > 0 for _, other in rows)
    pauses = sorted(other.longest_pause_s for _, other in rows if other.moves)
    print(f"\n  killed: {', '.join(f'{k.node} serving {k.serving}' for k in kills) or 'nobody'}")
    longest = max(pauses, default=0.0)
    print(f"  {len(rows)} streams: {equal} equal, {lost} lost, {moved} moved, longest pause {longest:.2f} s")
    good = equal == len(rows) and not lost and len(kills) == VICTIMS and all(kill.serving for kill in kills)
    print("  every text is the undisturbed one, to the byte" if good else "  NOT as promised")
    return 0 if good else 1


def _is_equal(calm: Watched, stormy: Watched) -> bool:
    return not calm.error and not stormy.error and bool(calm.text) and calm.text == stormy.text


def _row(calm: Watched, stormy: Watched) -> str:
    verdict = (
        "equal"
        if _is_equal(calm, stormy)
        else stormy.error or calm.error or _difference(calm.text, stormy.text)
    )
    workers = " > ".join(stormy.workers)
    pause = f"{stormy.longest_pause_s * 1000:8.0f} ms"
    figures = f"{stormy.tokens:7}  {stormy.moves:5}  {pause:>13}"
    return f"  {stormy.number:6}  {stormy.entry:15}  {workers:20} {figures}  {verdict}"


def _difference(calm: str, stormy: str) -> str:
    pairs = enumerate(zip(calm, stormy, strict=False))
    shared = next((index for index, (one, other) in pairs if one != other), min(len(calm), len(stormy)))
    return f"DIFFERS at character {shared} of {len(calm)}"


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
