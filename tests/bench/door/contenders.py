"""Front doors that are measured: how each is started before the null engine, on one core."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import attrs

from node.cli.fleet import Member, Pause, wait_until

DOOR_CORE = 0
LOAD_CORE = 1
"""The load generator and the engine behind the door share this one."""

PEERS = Path.home() / ".cache" / "inferno-bench" / "peers"
"""A virtual environment of the bench's own: `python3 -m venv` there, then `pip install vllm-router`."""

ANSWER = (
    '{"id":"chatcmpl-0000000000000000","object":"chat.completion","created":1790000000,"model":"toy",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":" word","refusal":null},"logprobs":null,'
    '"finish_reason":"length"}],"usage":{"prompt_tokens":16,"completion_tokens":1,"total_tokens":17}}'
)
"""What the null upstream says to everything."""

NGINX = """daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_buffer_size 1m;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  upstream back {{ server 127.0.0.1:{back}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""
MOCK = f"location / {{ default_type application/json; return 200 '{ANSWER}'; }}"
PASS = 'location / { proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }'

HAPROXY = """global
  nbthread 1
  maxconn 5000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend door
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server one 127.0.0.1:{back}
"""


@attrs.frozen
class Running:
    """A front door that answers: where, and by which process."""

    address: str
    pid: int
    ops: str = ""


@attrs.frozen
class Contender:
    """One front door: `start` is a context manager that yields it, ready."""

    name: str
    start: Callable[[Path], contextlib.AbstractContextManager[Running]]
    program: str = ""
    """What must be there to run it; empty if it always can."""

    def missing(self) -> str:
        """Say what is missing here; empty if nothing is."""
        return "" if not self.program or shutil.which(self.program) else f"`{self.program}` is not installed"


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def process(words: Sequence[str], core: int | None, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core; end it at the end."""
    pinned = [*(("taskset", "-c", str(core)) if core is not None else ()), *words]
    running = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_answers(address: str) -> None:
    """Wait until somebody answers a request for tokens there. Raises FleetError."""
    body = b'{"model":"toy","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
    asked = urllib.request.Request(
        f"http://{address}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    wait_until(lambda: _answers(asked), 30, f"an answer on {address}")


def _answers(asked: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextlib.contextmanager
def node(directory: Path, *engine: str, flags: Sequence[str] = ()) -> Iterator[Running]:
    """Run a node whose engine is the bench's, with every default on; the log goes to a file."""
    ready = directory / "ready.json"
    ports = [word for flag in ("--http", "--ops", "--bind") for word in (flag, "127.0.0.1:0")]
    words = [sys.executable, "-m", "tests.bench.door.node", "--cores", str(LOAD_CORE), *engine, "--"]
    words += ["--name", "door", "--model", "toy", "--ready-file", str(ready), *ports, *flags]
    path = directory / "node.log"
    with path.open("wb") as log, process(words, DOOR_CORE, log) as running:
        member = Member("door", running, ready, path)
        member.wait_ready_file()
        wait_until(lambda: _is_ready(member), 30, "the engine")
        yield Running(member.http, running.pid, member.ops)


def _is_ready(member: Member) -> bool:
    rows = member.ask("/members") or []
    return any(row["models"] for row in rows)


@contextlib.contextmanager
def null_upstream(directory: Path) -> Iterator[Running]:
    """Run an nginx that answers everything with the same small completion, on the load generator's core."""
    with _nginx(directory / "mock", MOCK, LOAD_CORE, back=1) as running:
        yield running


@contextlib.contextmanager
def _nginx(directory: Path, location: str, core: int, back: int) -> Iterator[Running]:
    directory.mkdir()
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port, back=back, location=location))
    words = ["nginx", "-c", str(config), "-e", str(directory / "start.log")]
    with (directory / "log").open("wb") as log, process(words, core, log) as running:
        wait_answers(f"127.0.0.1:{port}")
        yield Running(f"127.0.0.1:{port}", running.pid)


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[Running]:
    """Run nginx as a proxy."""
    with (
        null_upstream(directory) as back,
        _nginx(directory / "door", PASS, DOOR_CORE, _port(back)) as running,
    ):
        yield running


@contextlib.contextmanager
def haproxy(directory: Path) -> Iterator[Running]:
    """Run haproxy."""
    port = free_port()
    with null_upstream(directory) as back:
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=port, back=_port(back)))
        words = ["haproxy", "-db", "-f", str(config)]
        with (directory / "log").open("wb") as log, process(words, DOOR_CORE, log) as running:
            wait_answers(f"127.0.0.1:{port}")
            yield Running(f"127.0.0.1:{port}", running.pid)


@contextlib.contextmanager
def vllm_router(directory: Path) -> Iterator[Running]:
    """Run vllm-router with one worker, round robin."""
    port = free_port()
    with null_upstream(directory) as back:
        words = [str(PEERS / "bin" / "vllm-router"), "--worker-urls", f"http://{back.address}"]
        words += ["--port", str(port), "--policy", "round_robin", "--prometheus-port", str(free_port())]
        with (directory / "log").open("wb") as log, process(words, DOOR_CORE, log) as running:
            wait_answers(f"127.0.0.1:{port}")
            yield Running(f"127.0.0.1:{port}", running.pid)


def _port(running: Running) -> int:
    return int(running.address.rpartition(":")[2])


OURS = Contender("inferno", node)
CONTENDERS = {
    one.name: one
    for one in (
        OURS,
        Contender("vllm-router", vllm_router, str(PEERS / "bin" / "vllm-router")),
        Contender("nginx", nginx, "nginx"),
        Contender("haproxy", haproxy, "haproxy"),
    )
}


def processor_s(pid: int) -> float:
    """Return the processor time of a process, all its threads and children, in seconds."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    own = sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    return own + sum(processor_s(int(child)) for child in children if _is_same(pid, int(child)))


def _is_same(pid: int, child: int) -> bool:
    """Whether a child is of the same program: an engine, which is no part of the door, is not."""
    first, second = (Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0") for one in (pid, child))
    return first[:3] == second[:3]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="door-") as name:
        yield Path(name)


def rest(seconds: float) -> None:
    """Wait for real: other processes give us no event."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        Pause(left).once()
