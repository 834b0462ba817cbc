"""An engine that computes nothing: it answers at once, or sleeps between tokens.

    python -m tests.bench.door.engine [--tokens N] [--pace-ms MS] [--cores LIST] + what a node says to its engines

Every attempt yields `--tokens` tokens, one per `--pace-ms` (all at once if that is 0), whatever it asks for, so
that what is measured is the node in front of it. It speaks `mesh.frames`, as every engine must. Bodies that
never change are encoded once, and everything that is due leaves in one write.
"""

import argparse
import functools
import heapq
import os
import select
import socket
import sys
import time

import attrs

from mesh.frames import Accept, Finish, Frame, Hello, Kind, Ready, Status, Tokens
from mesh.link import HEADER, PROTOCOL, Link
from node.engine.process import progress_counter

READ_BYTES = 256 * 1024
STATUS_S = 0.5
"""How often it says how much it holds, and shows that it is not frozen."""

WORD = " word"


@functools.cache
def tokens_body(position: int) -> bytes:
    """Encode one token at a position."""
    return Tokens(position, (1000 + position,), WORD).frame().body


@attrs.define
class Stream:
    """One attempt under way."""

    flight: int
    attempt: int
    position: int = 0


@attrs.define
class NullEngine:
    """Attempts in, tokens out; `pace_s` is the time between two tokens of one attempt, 0 for none at all."""

    tokens: int
    pace_s: float
    worker: str = ""
    streams: dict[int, Stream] = attrs.Factory(dict)
    _due: list[tuple[float, int]] = attrs.Factory(list)
    _accept: bytes = b""

    def __attrs_post_init__(self) -> None:
        self._accept = Accept(16, 0, "null", "null", self.worker, "null").frame().body

    def receive(self, now: float, frame: Frame) -> bytes:
        """Take a frame of the node; return the bytes of the answer."""
        if frame.kind == Kind.CANCEL:
            self.streams.pop(frame.flight, None)
        if frame.kind != Kind.OPEN:
            return b""
        stream = Stream(frame.flight, frame.attempt)
        accept = _piece(Kind.ACCEPT, stream, self._accept)
        if not self.pace_s:
            return accept + b"".join(self._next(stream) for _ in range(self.tokens))
        self.streams[frame.flight] = stream
        heapq.heappush(self._due, (now + self.pace_s, frame.flight))
        return accept

    def _next(self, stream: Stream) -> bytes:
        stream.position += 1
        said = _piece(Kind.TOKENS, stream, tokens_body(stream.position - 1))
        if stream.position < self.tokens:
            return said
        return said + _piece(Kind.FINISH, stream, Finish(stream.position, "length").frame().body)

    def advance(self, now: float) -> bytes:
        """Return the bytes of every token that is due."""
        said = []
        while self._due and self._due[0][0] <= now:
            due, flight = heapq.heappop(self._due)
            stream = self.streams.get(flight)
            if stream is None:
                continue
            said.append(self._next(stream))
            if stream.position < self.tokens:
                heapq.heappush(self._due, (due + self.pace_s, flight))
            else:
                del self.streams[flight]
        return b"".join(said)

    def wait_s(self, now: float) -> float:
        """Return how long nothing is due, at most `STATUS_S`."""
        return min(STATUS_S, max(0.0, self._due[0][0] - now)) if self._due else STATUS_S

    def status(self) -> bytes:
        """Say how much is held."""
        held = len(self.streams)
        status = Status(0, held, held * self.tokens, 1.0, 1e6, 1e6).frame()
        return HEADER.pack(status.kind, 0, 0, len(status.body), 0) + status.body


def _piece(kind: Kind, stream: Stream, body: bytes) -> bytes:
    return HEADER.pack(kind, 0, stream.attempt, len(body), stream.flight) + body


def main() -> int:
    """Serve a node until it has gone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--pace-ms", type=float, default=0.0)
    parser.add_argument("--cores", default="")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--progress-fd", type=int, default=-1)
    parser.add_argument("--model", default="null")
    parser.add_argument("--worker", default="")
    asked, _ = parser.parse_known_args()
    if asked.cores:
        os.sched_setaffinity(0, {int(core) for core in asked.cores.split(",")})
    link = Link(Hello(PROTOCOL, asked.model))
    link.send(Ready(asked.model, "null", "null", context_max=1 << 20).frame())
    engine = NullEngine(asked.tokens, asked.pace_ms / 1000, asked.worker)
    return serve(socket.socket(fileno=asked.fd), link, engine, asked.progress_fd)


def serve(peer: socket.socket, link: Link, engine: NullEngine, progress_fd: int) -> int:
    """Run the loop; 0 when the node has gone."""
    bump, poll, status_at = progress_counter(progress_fd), select.poll(), 0.0
    poll.register(peer, select.POLLIN)
    peer.sendall(link.output())
    try:
        while True:
            ready = poll.poll(1000 * engine.wait_s(time.monotonic()))
            now = time.monotonic()
            frames = link.input(_read(peer)) if ready else []
            answers = b"".join(engine.receive(now, frame) for frame in frames) + engine.advance(now)
            if now >= status_at:
                answers, status_at = answers + engine.status(), now + STATUS_S
                bump()
            peer.sendall(answers)
    except ConnectionError:
        return 0


def _read(peer: socket.socket) -> bytes:
    data = peer.recv(READ_BYTES)
    if not data:
        raise ConnectionResetError("the node has gone")
    return data


if __name__ == "__main__":
    sys.exit(main())
