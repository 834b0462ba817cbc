"""What is measured of a front door, one function per stage."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.bench.door.contenders import (
    LOAD_CORE,
    Contender,
    Running,
    node,
    null_upstream,
    processor_s,
    resident_bytes,
    rest,
    scratch,
)
from tests.bench.mesh.figures import Figures, Row, percentile

PROBE_S = 0.05
"""How often a door that is busy with streams is asked something small, to see how late its loop runs."""

LUA = """wrk.method = "POST"
wrk.body = '{"model":"toy","max_tokens":16,"messages":[{"role":"user","content":"Say something short about the sea."}]}'
wrk.headers["content-type"] = "application/json"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"spent_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@attrs.frozen
class Scale:
    """How much is run."""

    seconds: float = 10.0
    rounds: int = 3
    connections: int = 16
    event_clients: int = 200
    event_rate: float = 100.0
    """Tokens a second for each of those clients: 20,000 in all."""
    open_streams: int = 10_000
    open_s: float = 300.0
    idle: int = 10_000


QUICK = Scale(seconds=3.0, rounds=1, open_streams=1000, open_s=10.0, idle=2000)


@attrs.frozen
class Stage:
    """One thing that is measured, and the lines of its table."""

    name: str
    what: str
    run: Callable[[Contender, Scale], Figures]
    rows: tuple[Row, ...]
    peers: bool = False
    """Whether the peers are measured as well."""


def client(*words: object) -> subprocess.Popen[str]:
    """Start a client process on the load generator's core."""
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "tests.bench.door.clients"]
    return subprocess.Popen(
        [*command, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def told_by(started: subprocess.Popen[str]) -> Figures:
    """Wait for a client's end; return what it printed last. Raises RuntimeError if it failed."""
    said, _ = started.communicate()
    if started.returncode:
        raise RuntimeError(f"a client ended with status {started.returncode}")
    figures: Figures = json.loads(said.splitlines()[-1])
    return figures


# -- requests -------------------------------------------------------------------------------------


def requests(contender: Contender, scale: Scale) -> Figures:
    """Ask as fast as it answers, then at half that rate on a fixed schedule, of it and of the upstream itself."""
    with scratch() as directory, contender.start(directory) as door:
        wrk(directory, door, scale.connections, min(3.0, scale.seconds))
        rounds = [_round(directory, door, scale) for _ in range(scale.rounds)]
        middle = sorted(rounds, key=lambda figures: figures["requests_per_s"])[len(rounds) // 2]
        half = _scheduled(door.address, middle["requests_per_s"] / 2, scale)
    with scratch() as directory, null_upstream(directory) as back:
        bare = _scheduled(back.address, middle["requests_per_s"] / 2, scale)
    added = half["p99"] - bare["p99"]
    return middle | {"half_p99_ms": 1000 * half["p99"], "half_added_p99_ms": 1000 * added}


def _scheduled(address: str, rate: float, scale: Scale) -> Figures:
    words = ("--rate", rate, "--seconds", scale.seconds, "--count", 4 * scale.connections)
    return told_by(client("schedule", address, *words))


def _round(directory: Path, door: Running, scale: Scale) -> Figures:
    before = processor_s(door.pid)
    told = wrk(directory, door, scale.connections, scale.seconds)
    spent_s = processor_s(door.pid) - before
    return {
        "requests_per_s": told["requests"] / told["spent_us"] * 1e6,
        "p50_ms": told["p50_us"] / 1000,
        "p99_ms": told["p99_us"] / 1000,
        "errors": told["errors"],
        "cpu_us": spent_s * 1e6 / max(1, told["requests"]),
        "resident_mib": resident_bytes(door.pid) / 2**20,
    }


def wrk(directory: Path, door: Running, connections: int, seconds: float) -> Figures:
    """Load a door with wrk, one thread, on the load generator's core."""
    script = directory / "post.lua"
    script.write_text(LUA)
    words = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
    ]
    words += ["-s", str(script), f"http://{door.address}/v1/chat/completions"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    figures: Figures = json.loads(said.splitlines()[-1])
    return figures


# -- streams --------------------------------------------------------------------------------------


def events(_: Contender, scale: Scale) -> Figures:
    """Carry many tokens to some clients."""
    return _streams(scale.event_clients, scale.event_rate, scale.seconds)


def open_streams(_: Contender, scale: Scale) -> Figures:
    """Carry a token a second to very many clients."""
    return _streams(scale.open_streams, 1.0, scale.open_s)


def _streams(count: int, rate: float, seconds: float) -> Figures:
    engine = ("--tokens", str(10**6), "--pace-ms", str(1000 / rate))
    flags = ("--flights-max", str(2 * count), "--http-connections-max", str(count + 100))
    with scratch() as directory, node(directory, *engine, flags=flags) as door:
        empty = resident_bytes(door.pid)
        started = client("streams", door.address, "--count", count, "--seconds", seconds, "--pace", 1 / rate)
        assert started.stdout is not None
        opened = json.loads(started.stdout.readline() or '{"open": 0}')["open"]
        before, began = processor_s(door.pid), time.monotonic()
        late = _probe(door, 0.9 * seconds)
        cpu = (processor_s(door.pid) - before) / (time.monotonic() - began)
        held = resident_bytes(door.pid) - empty
        told = told_by(started)
    return {
        "opened": opened,
        "events_per_s": told["events_per_s"],
        "late_p99_ms": 1000 * told["late_p99"],
        "dropped": told["dropped"] + count - opened,
        "kib_each": held / count / 1024,
        "cpu_share": cpu,
        "cpu_us_per_event": cpu * 1e6 / max(1.0, told["events_per_s"]),
        "probe_p99_ms": 1000 * percentile(late, 0.99),
    }


def _probe(door: Running, seconds: float) -> list[float]:
    """Ask for the node's health again and again; return how long each answer took."""
    took, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        began = time.monotonic()
        urllib.request.urlopen(f"http://{door.ops}/health", timeout=30).read()
        took.append(time.monotonic() - began)
        rest(PROBE_S)
    return took


def idle(_: Contender, scale: Scale) -> Figures:
    """Hold connections on which nobody asks anything."""
    flags = ("--http-connections-max", str(scale.idle + 100), "--http-idle-timeout-s", "600")
    with scratch() as directory, node(directory, flags=flags) as door:
        empty = resident_bytes(door.pid)
        started = client("idle", door.address, "--count", scale.idle)
        assert started.stdout is not None
        started.stdout.readline()
        rest(2.0)
        figures: Figures = {"kib_each": (resident_bytes(door.pid) - empty) / scale.idle / 1024}
        began, before = time.monotonic(), processor_s(door.pid)
        rest(scale.seconds)
        figures["cpu_share"] = (processor_s(door.pid) - before) / (time.monotonic() - began)
        told_by(started)
    return figures


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "requests",
            "small chat completions of one token, engine answers at once, wrk -t1 -c16",
            requests,
            (
                Row("requests_per_s", "requests", "1/s", digits=0),
                Row("cpu_us", "processor time of the door per request", "µs", digits=0),
                Row("p50_ms", "latency p50, as fast as it can", "ms"),
                Row("p99_ms", "latency p99, as fast as it can", "ms", 3.3),
                Row("half_p99_ms", "latency p99 at half that rate, fixed schedule", "ms"),
                Row("half_added_p99_ms", "p99 added to the bare upstream's at half the rate", "ms", 2.0),
                Row("errors", "errors", "count", 0, digits=0),
                Row("resident_mib", "resident memory after load", "MiB", digits=0),
            ),
            peers=True,
        ),
        Stage(
            "events",
            "200 clients, 100 tokens a second each",
            events,
            (
                Row("events_per_s", "events", "1/s", digits=0),
                Row("cpu_share", "processor share of the door", "cores"),
                Row("cpu_us_per_event", "processor time of the door per event", "µs", digits=1),
                Row("late_p99_ms", "gap between tokens beyond the pace, p99", "ms"),
                Row("dropped", "streams dropped", "count", 0, digits=0),
            ),
        ),
        Stage(
            "open",
            "open streams, a token a second each",
            open_streams,
            (
                Row("opened", "streams", "count", digits=0),
                Row("events_per_s", "events", "1/s", digits=0),
                Row("dropped", "streams dropped or refused", "count", 0, digits=0),
                Row("kib_each", "memory of the door per stream", "KiB", 40, digits=1),
                Row("probe_p99_ms", "answer of the operations port meanwhile, p99", "ms", 50, digits=1),
                Row("cpu_share", "processor share of the door", "cores"),
            ),
        ),
        Stage(
            "idle",
            "idle connections",
            idle,
            (
                Row("kib_each", "memory of the door per connection", "KiB", 8, digits=1),
                Row("cpu_share", "processor share of the door", "cores", digits=4),
            ),
        ),
    )
}
