"""Clients that wrk cannot be: a fixed schedule of arrivals, many streams, idle connections.

    python -m tests.bench.door.clients streams|schedule|idle HOST:PORT [--count N] [--rate R] [--seconds S] ...

One process, one epoll, no framework, so that it costs little beside what it measures. Prints one JSON object.
Times are in seconds. `idle` holds its connections until its standard input ends.
"""

import argparse
import json
import select
import socket
import sys
import time
from array import array
from collections import deque

import attrs

from tests.bench.mesh.figures import percentile

EVENT = b"data: "
END = b"\r\n0\r\n\r\n"
"""The last chunk of an answer of unknown length."""

READ_BYTES = 1 << 16
OPEN_PER_TURN = 64
"""Streams opened between two looks at those that run."""


def request(body: dict[str, object]) -> bytes:
    """Encode a chat completion."""
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(data), data)


def body_of(model: str, **more: object) -> dict[str, object]:
    """Write a small request, of 120 bytes or so."""
    messages = [{"role": "user", "content": "Say something short about the sea."}]
    return {"model": model, "max_tokens": 100_000, "messages": messages, **more}


@attrs.define
class Reading:
    """One stream, as its client sees it."""

    events: int = 0
    heard_at: float = 0.0
    tail: bytes = b""

    def take(self, data: bytes) -> int:
        """Count the events that begin in `data`; one cut in two counts once."""
        text = self.tail + data
        found = text.count(EVENT) - self.tail.count(EVENT)
        self.tail = text[-len(END) :]
        self.events += found
        return found

    @property
    def complete(self) -> bool:
        """Whether the answer has ended as it should."""
        return self.tail == END


@attrs.define
class Streams:
    """Many streams at once."""

    address: tuple[str, int]
    asked: bytes
    pace_s: float
    _poll: select.epoll = attrs.Factory(select.epoll)
    _open: dict[int, tuple[socket.socket, Reading]] = attrs.Factory(dict)
    late: array = attrs.Factory(lambda: array("d"))
    """By how much each gap between two tokens was longer than the pace."""
    events: int = 0
    begun: int = 0
    """Streams of which at least one event has come: a connection alone may still wait in the door's backlog."""
    completed: int = 0
    broken: int = 0

    def run(self, count: int, seconds: float, measured: bool = True) -> dict[str, float]:
        """Open `count` streams; follow them to their ends, or for `seconds` after all are open."""
        left, deadline, began, before = count, float("inf"), 0.0, 0
        while self._open or left:
            for _ in range(min(left, OPEN_PER_TURN)):
                self._connect()
                left -= 1
            if not left and not began and self.begun >= count - self.broken:
                began = time.monotonic()
                deadline, before = began + seconds, self.events
                del self.late[:]
                print(json.dumps({"open": len(self._open)}), flush=True)
            if time.monotonic() > deadline:
                break
            for fd, _ in self._poll.poll(0 if left else 0.1):
                self._read(fd)
        spent_s = max(1e-9, time.monotonic() - began)
        return {
            "events_per_s": (self.events - before) / spent_s,
            "late_p50": percentile(self.late, 0.5),
            "late_p99": percentile(self.late, 0.99),
            "completed": self.completed,
            "dropped": self.broken,
            "open": len(self._open),
        }

    def _connect(self) -> None:
        peer = socket.create_connection(self.address)
        peer.sendall(self.asked)
        peer.setblocking(False)
        self._open[peer.fileno()] = peer, Reading()
        self._poll.register(peer.fileno(), select.EPOLLIN)

    def _read(self, fd: int) -> None:
        peer, reading = self._open[fd]
        try:
            data = peer.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        found, now = reading.take(data) if data else 0, time.monotonic()
        self.events += found
        self.begun += found > 0 and reading.events == found
        if (
            found and reading.events > found + 1
        ):  # the first events tell the role, and how long the prompt took
            self.late.append(now - reading.heard_at - self.pace_s)
        if found:
            reading.heard_at = now
        if not data or reading.complete:
            self.completed += reading.complete
            self.broken += not reading.complete
            self._poll.unregister(fd)
            del self._open[fd]
            peer.close()


def schedule(
    address: tuple[str, int], asked: bytes, rate: float, seconds: float, count: int
) -> dict[str, float]:
    """Send a request every 1/rate seconds on whichever of `count` connections is free; latency is from its due time."""
    poll, free, due_of, peers = select.epoll(), deque[int](), dict[int, float](), dict[int, socket.socket]()
    for _ in range(count):
        peer = socket.create_connection(address)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peers[peer.fileno()] = peer
        poll.register(peer.fileno(), select.EPOLLIN)
        free.append(peer.fileno())
    took, errors, began, sent = array("d"), 0, time.monotonic(), 0
    total = int(rate * seconds)
    while len(took) + errors < total:
        now = time.monotonic()
        while free and sent < total and began + sent / rate <= now:
            fd = free.popleft()
            due_of[fd] = began + sent / rate
            peers[fd].sendall(asked)
            sent += 1
        due_s = began + sent / rate - now if sent < total and free else 0.1
        for fd, _ in poll.poll(max(0.0, due_s)):
            data = peers[fd].recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the server closed a kept connection")
            errors += not data.startswith(b"HTTP/1.1 200")
            took.append(time.monotonic() - due_of.pop(fd))
            free.append(fd)
    return {
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "errors": errors,
        "requests_per_s": total / (time.monotonic() - began),
    }


def idle(address: tuple[str, int], count: int) -> dict[str, float]:
    """Hold connections on which nothing was ever asked, until standard input ends."""
    peers = [socket.create_connection(address) for _ in range(count)]
    print(json.dumps({"open": len(peers)}), flush=True)
    sys.stdin.read()
    return {"open": len(peers)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("streams", "schedule", "idle"))
    parser.add_argument("address")
    parser.add_argument("--model", default="toy")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pace", type=float, default=0, help="seconds between two tokens")
    asked = parser.parse_args()
    host, _, port = asked.address.rpartition(":")
    address = host, int(port)
    match asked.kind:
        case "streams":
            body = request(body_of(asked.model, stream=True))
            told = Streams(address, body, asked.pace).run(asked.count, asked.seconds)
        case "schedule":
            told = schedule(address, request(body_of(asked.model)), asked.rate, asked.seconds, asked.count)
        case _:
            told = idle(address, asked.count)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
