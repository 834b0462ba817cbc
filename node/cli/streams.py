"""Streams of completions as a client sees them: threads, sockets and a clock, nothing of ours.

The reader is the standard library's HTTP client, so that what the demonstration
shows is what any client would see.
"""

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import attrs

SILENCE_MAX_S = 120.0
"""A stream from which nothing comes for this long has hung."""


@attrs.define
class Watched:
    """One stream and what has come of it so far; written by its thread, read by others."""

    number: int
    entry: str
    """`HOST:PORT` of the node that the client talks to."""
    body: dict[str, Any]
    text: str = ""
    events: int = 0
    workers: list[str] = attrs.Factory(list)
    moves: int = 0
    first_s: float = 0.0
    """Seconds to the first text (TTFT)."""
    longest_pause_s: float = 0.0
    seconds: float = 0.0
    finish: str = ""
    tokens: int = 0
    error: str = ""

    def run(self) -> None:
        """Read the stream to its end; whatever goes wrong becomes `error`."""
        began = last = time.monotonic()
        try:
            for event in events(self.entry, self.body):
                now = time.monotonic()
                self.longest_pause_s = max(self.longest_pause_s, now - last) if self.events else 0.0
                self.first_s = self.first_s or now - began
                last = now
                self._take(event)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = time.monotonic() - began
        if not self.finish and not self.error:
            self.error = "the stream ended without a finish reason"

    def _take(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error = event["error"]["message"]
            return
        self.events += 1
        for choice in event["choices"]:
            self.text += choice["text"]
            self.finish = choice["finish_reason"] or self.finish
        self.tokens = (event.get("usage") or {}).get("completion_tokens", self.tokens)
        mark = event.get("inferno", {})
        self.moves = mark.get("moves", self.moves)
        worker = mark.get("worker")
        if worker and worker not in self.workers[-1:]:
            self.workers.append(worker)


def events(entry: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Post a completion and yield its server-sent events as they come. Raises OSError and ValueError."""
    host, _, port = entry.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SILENCE_MAX_S)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}: {answer.read(2000).decode(errors='replace')}")
        while line := answer.readline():
            if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                yield json.loads(line[6:])
    finally:
        connection.close()


@attrs.define
class Crowd:
    """Many streams at once, one thread each."""

    streams: list[Watched]
    _pool: ThreadPoolExecutor = attrs.field(init=False)
    _done: list[Future[None]] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(len(self.streams))
        self._done = [self._pool.submit(stream.run) for stream in self.streams]

    @property
    def ended(self) -> bool:
        """Whether every stream has ended, well or badly."""
        return all(future.done() for future in self._done)

    def join(self) -> None:
        """Wait for all to end; raises what a thread raised."""
        for future in self._done:
            future.result()
        self._pool.shutdown()
