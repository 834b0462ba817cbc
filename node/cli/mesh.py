"""`python -m node mesh`: several nodes on this machine, joined, in the foreground."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from node.cli.fleet import Fleet, FleetError, Pause
from node.configure import SettingsError, to_flags
from node.settings import Config

PER_NODE = ("name", "join", "ready_file", "data_dir", "http", "ops", "bind", "advertise")
"""Settings that cannot be the same for every node of one machine."""


def run(config: Config, nodes: int) -> int:
    """Start the nodes, say where they are, and stay until Ctrl-C; return the exit status."""
    for name in PER_NODE:
        if config.explicit(name):
            raise SettingsError(
                f"`{name}` cannot be the same for {nodes} nodes", "leave it out: each finds its own"
            )
    stop = _stop_on_signal()
    with tempfile.TemporaryDirectory(prefix="inferno-") as directory:
        fleet = Fleet(Path(directory), keep_logs=False)
        try:
            fleet.start_all([f"node-{n + 1}" for n in range(nodes)], *_flags(config, nodes))
            _show(fleet, config)
            _stay(fleet, stop)
        except FleetError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            fleet.stop()
    return 0


def _flags(config: Config, nodes: int) -> list[str]:
    flags = to_flags(config)
    if not config.explicit("threads"):
        flags += ["--threads", str(max(1, (os.cpu_count() or 1) // nodes))]
    return flags


def _stop_on_signal() -> list[int]:
    """Return a list that grows by each signal that asks us to stop."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    return asked


def _stay(fleet: Fleet, asked: list[int]) -> None:
    pause = Pause(0.1)
    while not asked and fleet.running:
        pause.once()
    print("\nstopping: streams may end, then the nodes leave", flush=True)
    if asked == [signal.SIGINT]:
        fleet.wait_stopped()  # Ctrl-C went to every process of the terminal's group


def _show(fleet: Fleet, config: Config) -> None:
    first = fleet.members[0]
    print(
        f"\n  inferno: a mesh of {len(fleet.members)} nodes, serving {', '.join(config.models) or 'no model'}\n"
    )
    for member in fleet.members:
        print(
            f"  {member.name:10} http://{member.http:22} operations http://{member.ops:22} pid {member.process.pid}"
        )
    print(f"\n  chat page   http://{first.http}/")
    if config.models:
        print(f"  try         {curl_line(first.http, Path(config.models[0]).name)}")
    print(f"  then        kill -9 {fleet.members[-1].process.pid}    (a node; the streams go on)")
    print("  stop        Ctrl-C\n", flush=True)


def curl_line(http: str, model: str) -> str:
    """Return a line to paste that streams a completion."""
    body = f'{{"model": "{model}", "prompt": "# Lib/json/tool.py\\n", "max_tokens": 200, "stream": true}}'
    return f"curl -N http://{http}/v1/completions -H 'content-type: application/json' -d '{body}'"
