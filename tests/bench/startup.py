"""How long until a node answers `/health`, and until the embedded model's first token.

Peers, in the same run and environment: the interpreter importing torch, and
`transformers` loading the same directory and generating one token.
"""

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node.cli.fleet import Fleet, Member, wait_until
from node.cli.streams import events

RUNS = 5
EMBER = Path(__file__).parents[2] / "node" / "models" / "ember-py"

TRANSFORMERS = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(EMBER)!r})
tokenizer = AutoTokenizer.from_pretrained({str(EMBER)!r})
model.generate(**tokenizer("import ", return_tensors="pt", return_token_type_ids=False), max_new_tokens=1)
"""


def run() -> None:
    """Print medians and ratios."""
    rows = [_node() for _ in range(RUNS)]
    health = statistics.median(health for health, _ in rows)
    first = statistics.median(first for _, first in rows)
    torch = statistics.median(_process("import torch") for _ in range(RUNS))
    peer = statistics.median(_process(TRANSFORMERS) for _ in range(3))
    _row("node to /health", health, "import torch alone", torch)
    _row("node to first token", first, "transformers, one token", peer)


def _row(ours: str, our_s: float, theirs: str, their_s: float) -> None:
    print(f"  {ours:20} {our_s:6.2f} s    {theirs:24} {their_s:6.2f} s   {their_s / our_s:5.1f}x")


def _node() -> tuple[float, float]:
    """Start a node on free ports; return seconds to `/health` and to the first token."""
    with tempfile.TemporaryDirectory() as directory, Fleet(Path(directory)) as fleet:
        ops, http_port = _free_port(), _free_port()
        began = time.monotonic()
        flags = ("--http", f"127.0.0.1:{http_port}", "--ops", f"127.0.0.1:{ops}", "--bind", "127.0.0.1:0")
        member = fleet.start("bench", *flags)
        member.ops = f"127.0.0.1:{ops}"
        _wait_answer(member, "/health", ops)
        health_s = time.monotonic() - began
        body = {"model": "ember-py", "prompt": "import ", "max_tokens": 1, "stream": True}
        next(events(f"127.0.0.1:{http_port}", body))
        return health_s, time.monotonic() - began


def _wait_answer(member: Member, path: str, port: int) -> None:
    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    wait_until(answers, 30, f"`{member.name}` to answer {path}")


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _process(code: str) -> float:
    began = time.monotonic()
    words = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(words, check=True, capture_output=True, cwd=tempfile.gettempdir())
    return time.monotonic() - began
