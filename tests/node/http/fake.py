"""A gateway whose one worker is a script: the real Stream over real flights, without a driver or a mesh."""

import random
from collections.abc import Callable
from typing import Any

import attrs
import trio

from mesh.attempt import Attempt
from mesh.claims import Claim, Claims
from mesh.flight import Flight
from mesh.frames import Accept, Finish, Logprob, Reject, Tokens
from mesh.now import Now
from node.engine.toy import expected_embedding
from node.errors import RequestError
from node.gateway import ModelCard, Stream

TEXT = ("def", " main", "():", "\n", "    return", " 1", "\n")
"""What the worker says, one token each; the text of token i of a long answer is TEXT[i % 7]."""

DIGEST = "sha256:0123456789abcdef0123"


@attrs.define
class FakeGateway:
    """Has the methods of node.gateway.Gateway. `run` must run for flights to get anywhere."""

    pace_s: float = 0.0
    name: str = "node-a"
    is_ready: bool = True
    script: Callable[["FakeGateway", Flight], Any] | None = None
    """What is done with each flight; `FakeGateway.serve` if None."""
    policies: dict[str, str] = attrs.Factory(dict)
    """Numerical policy of a worker, if it is not that of most."""
    submitted: list[Attempt] = attrs.Factory(list)
    closed: list[int] = attrs.Factory(list)
    open: dict[int, Flight] = attrs.Factory(dict)
    drained: bool = False
    forgotten: list[str] = attrs.Factory(list)
    announced: list[tuple[str, str]] = attrs.Factory(list)
    admits: int = 1_000_000
    """Requests that are admitted before one breaks."""
    claims: Claims = attrs.field(init=False)
    _events: dict[int, trio.Event] = attrs.Factory(dict)
    _nursery: trio.Nursery | None = None
    _rng: random.Random = attrs.Factory(lambda: random.Random(1))

    def __attrs_post_init__(self) -> None:
        self.claims = Claims(lambda flight: self.open[flight].log_bytes)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    # -- what the shells call -------------------------------------------------

    def models(self) -> tuple[ModelCard, ...]:
        return (ModelCard("ember-py", DIGEST, 2048, self.is_ready, ("node-a", "node-b")),)

    def submit(self, request: Attempt, timeout_s: float | None = None, id: int = 0) -> Stream:
        if request.model != "ember-py":
            raise RequestError("model_not_found", f"no node serves `{request.model}`", "model")
        if len(self.submitted) == self.admits:
            raise ZeroDivisionError("secret words")
        self.submitted.append(request)
        flight = Flight(id or self._rng.getrandbits(64), request)
        self.open[flight.id] = flight
        assert self._nursery is not None
        self._nursery.start_soon(self.script or FakeGateway.serve, self, flight)
        return self.stream(flight.id)

    def stream(self, flight: int) -> Stream:
        return Stream(self.open[flight], self, self.watch(flight))  # type: ignore[arg-type]

    def claim(self, claim: Claim) -> None:
        self.claims.add(claim)

    def attach(self, id: int) -> Claim | None:
        return self.claims.attach(id)

    def detach(self, claim: Claim) -> None:
        self._forget(self.claims.detach(self._now(), claim))

    async def covered(self, claim: Claim) -> bool:
        return False

    async def find(self, id: int) -> None:
        return None

    def pass_time(self) -> None:
        """Let waiting claims expire that are due."""
        self._forget(self.claims.tick(self._now()))

    def _forget(self, facts: list[Any]) -> None:
        for ended in facts:
            for flight in ended.flights:
                self.close(flight)

    def _now(self) -> Now:
        return Now(trio.current_time(), trio.current_time())

    def watch(self, flight: int) -> trio.Event:
        event = self._events.get(flight)
        if event is None or event.is_set():
            event = self._events[flight] = trio.Event()
        return event

    def close(self, flight: int) -> None:
        self.closed.append(flight)
        if flight in self.open:
            self.open.pop(flight).cancel()

    def ready(self) -> tuple[bool, str]:
        return (True, "") if self.is_ready else (False, "the model `ember-py` is still loading on node-a")

    def members(self) -> list[dict[str, Any]]:
        return [_member("node-a", "alive", 0), _member("node-b", "alive", 1), _member("node-c", "suspect", 2)]

    def flights(self) -> list[dict[str, Any]]:
        return [
            {"id": f"{f.id:016x}", "worker": f.worker, "delivered": f.delivered, "attempts": f.attempt}
            for f in self.open.values()
        ]

    def records(self, namespace: str) -> list[dict[str, Any]]:
        rows = [{"namespace": "config", "id": "a", "value": "v"}, {"namespace": "keys", "id": "k"}]
        return [row for row in rows if namespace in ("", row["namespace"])]

    async def view(self):
        yield {"kind": "snapshot", "number": 7, "members": []}
        yield {"kind": "change", "number": 8, "members": [{"name": "node-b"}]}
        await trio.sleep_forever()

    async def converged(self, timeout_s: float) -> list[str]:
        await trio.sleep(min(timeout_s, 3.0))
        return ["node-c"] if timeout_s < 3.0 else []

    def forget(self, node: str) -> bool:
        self.forgotten.append(node)
        return node == "00000000000000ab"

    def metadata(self, node: str) -> bytes | None:
        return {"00000000000000ab": b"zone = 'b'\x00", "00000000000000ac": b""}.get(node)

    def announce(self, name: str, payload: str) -> None:
        if len(payload) > 1024:
            raise RequestError("invalid_request", "too large")
        self.announced.append((name, payload))

    def events(self) -> list[dict[str, Any]]:
        return [{"name": name, "payload": payload} for name, payload in self.announced]

    def why_there(self, flight: int) -> list[dict[str, object]]:
        return [{"request": f"{flight:016x}", "chosen": "b"}] if flight == 0xAB else []

    def why(self, node: str) -> list[dict[str, Any]]:
        rows = [{"node": "a", "verdict": "quarantined"}, {"node": "b", "verdict": "dead"}]
        return [row for row in rows if node in ("", row["node"])]

    def drain(self) -> None:
        self.drained = True

    def statistics(self) -> dict[str, Any]:
        return {
            "flights": {"active": len(self.open)},
            "swim": {
                "members": {"alive": 2, "suspect": 1},
                "digest": "ab12",
                "lag_s": 0.25,
                "quarantined": ("x",),
            },
            "engines": {"ember-py": {"state": "ready", "deaths": 2}},
            "forward": {"moves": 3},
        }

    # -- the worker -------------------------------------------------------------

    def wake(self, flight: Flight) -> None:
        self._events.get(flight.id, trio.Event()).set()

    def accept(self, flight: Flight, worker: str) -> None:
        """Have a worker take the flight, moved to it if another had it."""
        if flight.target is not None:
            flight.lost(flight.attempt, "link")
        elif flight.attempt == 0:
            flight.route()
        flight.open(worker, 0)
        prompt = flight.request.prompt[0]
        flight.accept(
            flight.attempt,
            Accept(
                len(prompt.ids) or len(prompt.text.split()), 1, DIGEST, self.policies.get(worker, "p"), worker
            ),
        )
        self.wake(flight)

    def say(self, flight: Flight, count: int = 1) -> None:
        """Produce tokens, in one chunk."""
        first = flight.delivered
        ids = tuple(range(first, first + count))
        words = [TEXT[index % len(TEXT)] for index in ids]
        top = flight.request.parameters.logprobs
        logprobs = () if top is None else tuple(_logprob(word, top) for word in words)
        flight.tokens(flight.attempt, Tokens(first, ids, "".join(words), logprobs))
        self.wake(flight)

    def finish(self, flight: Flight, reason: str = "length") -> None:
        flight.finished(flight.attempt, Finish(flight.delivered, reason))
        self.wake(flight)

    def refuse(self, flight: Flight, code: str, message: str) -> None:
        """Have the worker say no for good."""
        if flight.attempt == 0:
            flight.route()
            flight.open("node-b", 0)
        flight.rejected(flight.attempt, Reject(code, message, retryable=False, retry_after_ms=2500))
        self.wake(flight)

    async def serve(self, flight: Flight) -> None:
        """Answer as asked: `max_tokens` tokens, at the pace, moving to node-c after twenty."""
        if flight.ended:
            return
        self.accept(flight, "node-b")
        if flight.request.pooling:
            flight.finished(
                flight.attempt, Finish(0, "stop", vector=expected_embedding(flight.request.prompt[0].text))
            )
            self.watch(flight.id).set()
            return
        for index in range(flight.request.parameters.max_tokens or len(TEXT)):
            await trio.sleep(self.pace_s)
            if index == 20:
                self.accept(flight, "node-c")
            if flight.ended:
                return
            self.say(flight)
        self.finish(flight, "length" if flight.request.parameters.max_tokens else "stop")


def _member(name: str, state: str, number: int) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"127.0.0.1:{7946 + number}",
        "http": f"127.0.0.1:{8080 + number}",
        "state": state,
        "quarantined": state == "suspect",
        "incarnation": number,
        "draining": False,
        "models": ["ember-py"],
        "load": None,
    }


def _logprob(word: str, top: int) -> Logprob:
    others = ((word.encode(), -0.5), (b"\xc3", -1.5))
    return Logprob(word.encode(), -0.5, others[:top])
