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

from mesh import wire
from mesh.attempt import Attempt, Parameters, Segment
from mesh.claims import Claim
from mesh.effects import Effect
from mesh.flight import Chunk, Flight, State
from mesh.now import Now
from node.core import NodeCore
from node.engine.toy import expected_text
from node.errors import RequestError
from sim.engine import POISON_ID

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World


RETURN_S = 0.3
"""How soon a client looks elsewhere."""

PATIENCE_S = 3.0
"""How long it waits there before it asks the next."""


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
    resumable: bool = False
    """Whether it comes back, anywhere, when its entry has died."""
    leave_after_s: float | None = None
    """When its connection breaks, if it is resumable, so that it goes elsewhere although its entry lives."""

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
    entry: str = attrs.field(init=False)
    """Host that serves it now."""
    returns: int = 0
    """How many times it has looked for its request elsewhere."""
    _claim: Claim | None = attrs.field(init=False, default=None)
    """Its claim where it is served now; None while it is not."""
    _lost: Claim | None = attrs.field(init=False, default=None)
    """Its claim where it was served before."""
    _stood: tuple[int, int] = attrs.field(init=False, default=(0, 0))
    """Tokens and characters that it had when it last came back."""
    _expected: str = attrs.field(init=False)
    _chunks: int = attrs.field(init=False, default=0)
    _tokens: int = attrs.field(init=False, default=0)
    _heard_at: float = attrs.field(init=False, default=0.0)
    _passed: int = attrs.field(init=False, default=0)
    """Characters of the present log that have been gone through."""
    _reading: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        request = self.request
        self.entry = request.entry
        self._expected = expected_text(request.prompt, request.seed, request.tokens)
        self.world.clients.append(self)
        self.flight = -len(self.world.clients)
        self.world.at(request.at, self._begin)

    @property
    def host(self) -> "Host":
        """The entry."""
        return self.world.hosts[self.entry]

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
        if self.request.leave_after_s is not None:
            self.world.at(self.world.time + self.request.leave_after_s, self._break_off)

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
            self._entry_lost()
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
        if self.request.resumable and not self._is_claimed(flight):
            return
        for chunk in flight.log[self._chunks :]:
            self._chunks += 1
            self._take_rest(chunk)
        if flight.ended:
            self._finish(flight)

    def _take_rest(self, chunk: Chunk) -> None:
        """Take what of a chunk had not come when the client last came back."""
        tokens = max(0, self._stood[0] - chunk.position)
        characters = max(0, min(len(chunk.text), self._stood[1] - self._passed))
        self._passed += len(chunk.text)
        if tokens < len(chunk.ids) or characters < len(chunk.text):
            self._take(chunk.position + tokens, chunk.ids[tokens:], chunk.text[characters:])

    def _take(self, position: int, ids: tuple[int, ...], text: str) -> None:
        start = len(self.text)
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
        self.host.give(self._let_go)

    def _let_go(self, core: NodeCore, now: Now) -> list[Effect]:
        return core.release(now, self.flight) if self._claim is None else core.detach(now, self._claim)

    # -- coming back ------------------------------------------------------------------------------

    def _is_claimed(self, flight: Flight) -> bool:
        """Whether the request is kept elsewhere, or nobody can, so that its tokens may be read."""
        if self._claim is None and flight.started is not None:
            self.host.give(self._make_claim)
        if self._claim is None:
            return flight.ended
        assert self.host.core is not None
        return self.host.core.custody.is_settled(self.flight)

    def _make_claim(self, core: NodeCore, now: Now) -> list[Effect]:
        flight = core.flights.get(self.flight)
        if self._claim is not None or flight is None:
            return []
        self._claim = Claim(self.flight, (self.flight,), wire.pack(flight.request))
        return core.claim(now, self._claim)

    def _break_off(self) -> None:
        """The connection breaks although the entry lives."""
        claim, host = self._claim, self.host
        if self.outcome or claim is None or host.core is None or host.readers.pop(self.flight, None) is None:
            return
        host.give(lambda core, now: core.detach(now, claim))
        self._entry_lost()

    def _entry_lost(self) -> None:
        """Go elsewhere, if the request is kept by anybody who runs."""
        if self._claim is None or not any(map(self._keeps, self.world.hosts.values())):
            self._end("entry_lost")
        else:
            self.world.at(self.world.time + RETURN_S, self._return)

    def _keeps(self, host: "Host") -> bool:
        core = host.core
        return core is not None and (
            self.flight in core.claims.held or self.flight in core.custody.trustee.trusts
        )

    def _return(self) -> None:
        """Ask the next of the hosts that run."""
        running = [name for name, host in self.world.hosts.items() if host.core is not None]
        self.returns += 1
        turn = self.returns
        self._lost, self._claim = self._claim, None
        self.entry = running[(self.request.seed + turn) % len(running)] if running else self.entry
        self.world.at(self.world.time + PATIENCE_S, lambda: self._give_up(turn))
        if self.host.core is not None:
            self.host.readers[self.flight] = lambda: self._found(turn)
            self.host.give(lambda core, now: self._seek(turn, core, now))

    def _give_up(self, turn: int) -> None:
        """Nobody has answered in time: try the next."""
        if not self.outcome and turn == self.returns and self._claim is None:
            self.host.readers.pop(self.flight, None)
            self._claim = self._lost
            self._entry_lost()

    def _seek(self, turn: int, core: NodeCore, now: Now) -> list[Effect]:
        if turn != self.returns:
            return []
        claim, effects = core.attach(now, self.flight)
        if claim is None:
            return [*effects, *core.seek(now, self.flight)]
        self._adopt(claim)
        return effects

    def _found(self, turn: int) -> None:
        core = self.host.core
        if core is not None and turn == self.returns and not core.custody.is_sought(self.flight):
            self.host.give(lambda core, now: self._reopen(turn, core, now))

    def _reopen(self, turn: int, core: NodeCore, now: Now) -> list[Effect]:
        finding = core.custody.finding(self.flight)
        if finding is None or turn != self.returns or self._claim is not None:
            return []
        attempt = wire.unpack(Attempt, finding.charter.note)
        try:
            claim, effects = core.reopen(now, self.flight, finding, [attempt])
        except RequestError:
            return []
        self._adopt(claim)
        return effects

    def _adopt(self, claim: Claim) -> None:
        self._claim, self._chunks, self._passed = claim, 0, 0
        self._stood = (self._tokens, len(self.text))
        self.host.readers[self.flight] = self._woken
        self.world.reach("returned")
        self.world.at(self.world.time, self._woken)

    def _violate(self, message: str) -> None:
        self.world.fail("text_exact", f"{self.label} at {self.entry}: {message}")

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
