"""Clients over HTTP who know every character they must receive: what `sim.workload.Client` is to real nodes."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from node.cli.fleet import Pause
from node.engine.toy import expected_text
from sim.workload import Request

if TYPE_CHECKING:
    from tests.lab.machine import Machine

SILENCE_MAX_S = 120.0
"""A stream from which nothing comes for this long has hung."""

READ_BYTES = 64 * 1024
"""Most bytes that a client takes at once."""

BURST_S = 0.02
"""How long a slow reader reads what has come, before it rests again."""


@attrs.frozen
class Piece:
    """What one event brought."""

    at: float
    characters: int
    """Of the text so far."""
    worker: str


@attrs.define(eq=False)
class LabClient:
    """One request from its first byte to its end; run in a thread of its own."""

    request: Request
    host: "Machine"
    """The entry."""
    clock: Callable[[], float]
    outcome: str = ""
    """As in the simulator: `done`, `cancelled`, `entry_lost`, `refused:CODE` or `failed:CODE`."""
    text: str = ""
    pieces: list[Piece] = attrs.Factory(list)
    began_at: float = 0.0
    ended_at: float = 0.0
    tokens: int = 0
    """As the usage says."""
    finish: str = ""
    moves: int = 0
    returns: int = 0
    """As in the simulator; a client of the lab stays at its entry."""
    wrong: str = ""
    """How the text differs from what the toy defines, as soon as it does."""
    why: str = ""
    """What the entry or the socket said, where it went wrong."""
    answered: bool = False
    """Whether the entry answered 200."""
    _socket: socket.socket | None = None
    _cancelled: bool = False
    _expected: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        request = self.request
        self._expected = expected_text(request.prompt, request.seed, request.tokens)

    @property
    def label(self) -> str:
        """How reports name it."""
        return f"client {self.request.seed:x}"

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between events that follow each other."""
        return [b.at - a.at for a, b in zip(self.pieces, self.pieces[1:], strict=False)]

    def run(self) -> None:
        """Ask, read to the end, and say how it ended; a cancel comes from a timer."""
        self.began_at = self.clock()
        timer = None
        if self.request.cancel_after_s is not None:
            timer = threading.Timer(self.request.cancel_after_s, self.cancel)
            timer.daemon = True
            timer.start()
        try:
            self._ask()
        except (OSError, http.client.HTTPException) as error:
            self.why = f"{type(error).__name__}: {error}"
            self.outcome = "cancelled" if self._cancelled else "entry_lost"
        self.ended_at = self.clock()
        if timer is not None:
            timer.cancel()

    def cancel(self) -> None:
        """Close the connection, as a client who has lost interest."""
        self._cancelled = True
        with contextlib.suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _ask(self) -> None:
        host, _, port = self.host.http.rpartition(":")
        if not port:
            raise ConnectionRefusedError("the entry is down")
        connection = http.client.HTTPConnection(host, int(port), timeout=SILENCE_MAX_S)
        with contextlib.closing(connection):
            connection.connect()
            self._socket = connection.sock
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(self._body()), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self._refused(answer.read(2000))
                return
            self.answered = True
            self._read(answer)
            self._ended()

    def _read(self, answer: http.client.HTTPResponse) -> None:
        waiting, woke_at = b"", self.clock()
        while some := answer.read1(READ_BYTES):
            *lines, waiting = (waiting + some).split(b"\n")
            for line in lines:
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    self._take(json.loads(line[6:]))
            if self.request.read_s and self.clock() - woke_at > BURST_S:
                Pause(self.request.read_s).once()
                woke_at = self.clock()

    def _body(self) -> dict[str, Any]:
        request = self.request
        return {
            "model": request.model,
            "prompt": request.prompt,
            "max_tokens": request.tokens,
            "seed": request.seed,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _refused(self, body: bytes) -> None:
        self.why = body.decode(errors="replace")
        try:
            code = json.loads(body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            code = "unknown"
        self.outcome = f"refused:{code}"

    def _take(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.why = event["error"]["message"]
            self.outcome = f"failed:{event['error'].get('code')}"
            return
        mark = event.get("inferno", {})
        for choice in event["choices"]:
            self.text += choice["text"]
            self.finish = choice["finish_reason"] or self.finish
            self.pieces.append(Piece(self.clock(), len(self.text), mark.get("worker", "")))
        self.tokens = (event.get("usage") or {}).get("completion_tokens", self.tokens)
        self.moves = mark.get("moves", self.moves)
        self._compare()

    def _compare(self) -> None:
        if not self.wrong and not self._expected.startswith(self.text):
            pairs = enumerate(zip(self.text, self._expected, strict=False))
            place = next((n for n, (a, b) in pairs if a != b), len(self._expected))
            self.wrong = f"differs at character {place}: `{self.text[place : place + 20]}`"

    def _ended(self) -> None:
        if self.outcome:
            return
        if self.finish:
            self.outcome = "done"
        else:
            self.outcome = "cancelled" if self._cancelled else "entry_lost"
            self.why = self.why or "the stream ended without a finish reason"

    def mistakes(self) -> list[str]:
        """Say what is not as it must be of a request that is done: all of the text, its length, its usage."""
        found = [self.wrong] if self.wrong else []
        if self.outcome == "done":
            if self.text != self._expected:
                found.append(f"{len(self.text)} characters instead of {len(self._expected)}")
            if (self.finish, self.tokens) != ("length", self.request.tokens):
                found.append(f"finish `{self.finish}` after {self.tokens} of {self.request.tokens} tokens")
        return found
