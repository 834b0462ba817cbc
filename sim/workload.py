"""Clients that know every token they must receive.

A client enters at one node, reads the flight's log when it is woken (or slowly,
at its own pace), and compares each piece with the toy's expected text at once:
a token lost, doubled, swapped or spliced in from another flight fails the
`text_exact` check where it happens. How its request may end depends on what it
asked for and on what happened to its entry; `sim.checks` judges that.
"""

import random
from typing import TYPE_CHECKING

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from mesh.effects import Effect
from mesh.flight import Flight, State
from mesh.now import Now
from node.core import NodeCore
from node.engine.toy import expected_text
from node.errors import RequestError
from sim.engine import POISON_ID

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World


@attrs.frozen
class Request:
    """What one client asks for, and how it behaves."""

    entry: str
    """Host at which it enters."""
    at: float
    prompt: str
    seed: int
    tokens: int
    timeout_s: float | None = None
    cancel_after_s: float | None = None
    read_s: float = 0.0
    """Time between two reads of a slow reader; 0 reads whenever there is something."""
    model: str = "toy"

    @property
    def is_poison(self) -> bool:
        """Whether it kills every engine that computes it."""
        return chr(POISON_ID) in self.prompt


@attrs.define(eq=False)
class Client:
    """One request from its first byte to its end."""

    world: "World"
    request: Request
    flight: int = 0
    """Id of its flight; negative until the entry has taken the request."""
    outcome: str = ""
    """`done`, `cancelled`, `entry_lost`, `refused:CODE` or `failed:CODE`; empty while it goes on."""
    text: str = ""
    ended_at: float = 0.0
    moves: int = 0
    longest_pause_s: float = 0.0
    """Longest time between two pieces, or before the first; not measured on slow readers."""
    longest_ended_at: float = 0.0
    """When that pause ended."""
    first_at: float | None = None
    """When the first piece came."""
    _expected: str = attrs.field(init=False)
    _chunks: int = attrs.field(init=False, default=0)
    _tokens: int = attrs.field(init=False, default=0)
    _heard_at: float = attrs.field(init=False, default=0.0)
    _reading: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        request = self.request
        self._expected = expected_text(request.prompt, request.seed, request.tokens)
        self.world.clients.append(self)
        self.flight = -len(self.world.clients)
        self.world.at(request.at, self._begin)

    @property
    def host(self) -> "Host":
        """The entry."""
        return self.world.hosts[self.request.entry]

    @property
    def label(self) -> str:
        """How the trace names it."""
        return f"client {self.request.seed:x}"

    # -- asking -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._heard_at = self.world.time
        if self.host.core is None:
            self._end("entry_lost")
            return
        self.host.readers[self.flight] = self._woken
        self.host.give(self._submit)
        if self.request.cancel_after_s is not None:
            self.world.at(self.world.time + self.request.cancel_after_s, self._cancel)

    def _submit(self, core: NodeCore, now: Now) -> list[Effect]:
        request = self.request
        parameters = Parameters(max_tokens=request.tokens, ignore_eos=True)
        attempt = Attempt(request.model, (Segment("text", request.prompt),), parameters, request.seed)
        del self.host.readers[self.flight]
        try:
            self.flight, effects = core.submit(now, attempt, request.timeout_s)
        except RequestError as error:
            self._end(f"refused:{error.code}")
            return []
        self.host.readers[self.flight] = self._woken
        return effects

    def _cancel(self) -> None:
        if not self.outcome and self.flight > 0 and self.host.core is not None:
            self.host.give(lambda core, now: core.cancel(now, self.flight))

    # -- reading ----------------------------------------------------------------------------------

    def _woken(self) -> None:
        if self.outcome:
            return
        if self.host.core is None or self.flight not in self.host.readers:
            self._end("entry_lost")
        elif not self.request.read_s:
            self._read()
        elif not self._reading:
            self._reading = True
            self.world.at(self.world.time + self.request.read_s, self._read)

    def _read(self) -> None:
        self._reading = False
        if self.outcome or self.host.core is None:
            return
        flight = self.host.core.flights.get(self.flight)
        if flight is None:
            self._violate("the entry has forgotten the flight of a client that it serves")
            return
        for chunk in flight.log[self._chunks :]:
            self._take(chunk.position, chunk.ids, chunk.text)
        if flight.ended:
            self._finish(flight)

    def _take(self, position: int, ids: tuple[int, ...], text: str) -> None:
        start = len(self.text)
        self._chunks += 1
        if position != self._tokens:
            self._violate(f"a piece begins at token {position}, {self._tokens} have come")
        if text != self._expected[start : start + len(text)]:
            self._violate(
                f"character {start} on: {text!r:.60}, due {self._expected[start : start + 60]!r:.60}"
            )
        self.text += text
        self._tokens += len(ids)
        pause_s = self.world.time - self._heard_at
        if not self.request.read_s and pause_s > self.longest_pause_s:
            self.longest_pause_s, self.longest_ended_at = pause_s, self.world.time
        if self.first_at is None:
            self.first_at = self.world.time
        self._heard_at = self.world.time

    def _finish(self, flight: Flight) -> None:
        if flight.state is State.DONE and self.text != self._expected:
            self._violate(f"ended after {self._tokens} of {self.request.tokens} tokens as if complete")
        self.moves = flight.moves
        failure = flight.failure
        self._end(f"failed:{failure.code}" if failure else flight.state.value)
        self.host.readers.pop(self.flight, None)
        self.host.give(lambda core, now: core.release(now, self.flight))

    def _violate(self, message: str) -> None:
        self.world.fail("text_exact", f"{self.label} at {self.request.entry}: {message}")

    def _end(self, outcome: str) -> None:
        self.outcome, self.ended_at = outcome, self.world.time
        self.world.note(self.label, outcome, entry=self.request.entry, tokens=self._tokens, moves=self.moves)


@attrs.frozen
class Workload:
    """A random stream of requests. Times in seconds."""

    entries: tuple[str, ...]
    """Where clients enter; they are drawn evenly."""
    rate_per_s: float = 2.0
    """Mean arrivals a second (Poisson)."""
    begin_s: float = 2.0
    end_s: float = 10.0
    tokens_max: int = 300
    prompt_chars_max: int = 400
    cancel_share: float = 0.05
    deadline_share: float = 0.05
    slow_share: float = 0.1

    def requests(self, rng: random.Random) -> list[Request]:
        """Draw the requests."""
        drawn = []
        at = self.begin_s
        while (at := at + rng.expovariate(self.rate_per_s)) < self.end_s:
            drawn.append(self._request(rng, at, len(drawn)))
        return drawn

    def _request(self, rng: random.Random, at: float, number: int) -> Request:
        entry = rng.choice(self.entries)
        shared = "The same words begin many prompts, so that their blocks are shared. "
        prompt = f"{shared * rng.randrange(2)}Request {number}: " + "x" * rng.randrange(self.prompt_chars_max)
        tokens = rng.randint(1, self.tokens_max)
        cancel, deadline, slow = (rng.random() for _ in range(3))
        return Request(
            entry,
            at,
            prompt,
            rng.getrandbits(64),
            tokens,
            timeout_s=rng.uniform(0.5, 20.0) if deadline < self.deadline_share else None,
            cancel_after_s=rng.uniform(0.0, 3.0) if cancel < self.cancel_share else None,
            read_s=rng.uniform(0.2, 2.0) if slow < self.slow_share else 0.0,
        )


def begin(world: "World", requests: list[Request]) -> list[Client]:
    """Let one client make each request."""
    return [Client(world, request) for request in requests]
