"""Real entries are killed under resumable streams: every client comes back elsewhere and gets every byte once."""

import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable

import attrs
import pytest

from node.cli.fleet import Fleet, wait_until
from node.engine.toy import expected_text

pytestmark = [pytest.mark.process, pytest.mark.slow]

PROMPT = "def g("
TOKENS = 600
STREAMS = 20
PATIENCE_S = 60.0


@attrs.define
class Returning:
    """A client that goes on wherever somebody answers, after the last event that it has got."""

    number: int
    addresses: list[str]
    """Where it asks, in this order and round about."""
    text: str = ""
    tokens: int = 0
    ids: list[str] = attrs.Factory(list)
    path: str = ""
    entries: list[str] = attrs.Factory(list)
    refused: list[int] = attrs.Factory(list)
    """Statuses other than 200 on the way."""
    done: bool = False
    error: str = ""
    finish: str | None = None

    def run(self) -> None:
        until = time.monotonic() + PATIENCE_S
        turn = 0
        while not self.done and not self.error and time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read(self.addresses[turn % len(self.addresses)])
            turn += 1

    def _read(self, address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            self._ask(connection)
            response = connection.getresponse()
            if response.status != 200:
                self.refused.append(response.status)
                raise http.client.HTTPException(response.read())
            self.path = response.headers["x-inferno-events"]
            self.entries.append(response.headers["x-inferno-node"])
            for line in response:
                self._take(line.decode().rstrip("\n"))
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        if self.path:
            headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
            connection.request("GET", self.path, headers=headers)
            return
        body = {"model": "toy", "prompt": f"{PROMPT}{self.number}", "max_tokens": TOKENS, "seed": self.number}
        asked = json.dumps({**body, "stream": True, "resumable": True}).encode()
        connection.request("POST", "/v1/completions", asked)

    def _take(self, line: str) -> None:
        """An event counts once its `data` is whole; its id is then the one to come back with."""
        if line.startswith("id: "):
            self._id = line[4:]
        elif line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                self.error = str(event)
                return
            self.ids.append(self._id)
            self.text += event["choices"][0]["text"]
            self.finish = event["choices"][0]["finish_reason"] or self.finish

    _id: str = ""


def wait_for_tokens(rng: random.Random, clients: list[Returning]) -> None:
    """Let one of those that go on get as many events more as is drawn."""
    client = rng.choice([client for client in clients if not client.done])
    due = len(client.ids) + rng.randint(1, 150)
    wait_until(lambda: client.done or len(client.ids) >= due, 30, "some more events")


def test_every_stream_ends_elsewhere_when_one_entry_after_the_other_is_killed(
    toys: Callable[[int], Fleet],
) -> None:
    fleet, rng = toys(3), random.Random(7)
    addresses = [fleet[name].http for name in ("n1", "n2", "n3")]
    clients = [Returning(number, addresses) for number in range(STREAMS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(client.ids for client in clients), 30, "every stream to be under way")
    wait_for_tokens(rng, clients)
    fleet["n1"].kill()
    wait_until(
        lambda: all("n2" in client.entries for client in clients if not client.done), 30, "a return to n2"
    )
    wait_for_tokens(rng, clients)
    fleet["n2"].kill()
    for thread in threads:
        thread.join(PATIENCE_S)
    for client in clients:
        assert client.error == ""
        assert client.done, (client.entries, client.refused, len(client.text))
        assert client.text == expected_text(f"{PROMPT}{client.number}", client.number, TOKENS)
        assert len(set(client.ids)) == len(client.ids), "an event came twice"
        assert client.finish == "length"
    assert sum(len(client.entries) > 1 for client in clients) == STREAMS
    assert any("n3" in client.entries for client in clients)
