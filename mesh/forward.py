"""The forwarder: every flight whose entry is this node, and where each is served.

Theory of operation. `submit` makes a flight and routes it at once. Routing asks
`mesh.router` for the best candidate and opens an attempt there: an OPEN frame, the
same for this node's own engine and for a peer. ACCEPT, TOKENS, FINISH and REJECT
come back under the attempt's number. When a worker is lost (its link, node or
engine gone, or silent), each of its flights goes back to routing with its log
and is opened elsewhere in the same call: the move costs one round trip and a
prefill, and no timer. A flight for which nobody qualifies waits, retried when the
view changes and by a backed-off timer, until `route_wait_s`.

Invariant: a flight is in `_sent` at a node iff it has a target and that is the node.
"""

import random
from collections.abc import Callable

import attrs

from mesh.agenda import Agenda
from mesh.attempt import Attempt
from mesh.decisions import Decision, Decisions
from mesh.effects import Effect, Report, SendFrame, Wake
from mesh.errors import DecodeError
from mesh.facts import Fact
from mesh.flight import MOVES_MAX, Chunk, Flight, Started, State
from mesh.frames import Accept, Cancel, Finish, Frame, Kind, Prompt, Reject, Tokens
from mesh.now import Now
from mesh.prefix import Prefixes, head_of, salt_of
from mesh.route import Candidate, RouteOptions, Wanted
from mesh.router import Choice, Router, heeds_prefixes
from mesh.sent import Sent

Output = Effect | Fact
Candidates = Callable[[Now, str], tuple[Candidate, ...]]

Known = tuple[Started, tuple[Chunk, ...]]
"""What is known of a flight from before: what its first worker said, and its log."""

GUESSED_OUTPUT_TOKENS = 256
"""Output assumed of a request that bounds none."""

BYTES_PER_TOKEN = 4
"""Prompt bytes assumed per token: the entry has no tokeniser."""


@attrs.frozen
class ForwardOptions:
    """Times in seconds, and the routing constants."""

    route_wait_s: float = 30.0
    """How long a flight waits for somebody who qualifies, before it fails with `no_worker`."""
    retry_s: float = 0.1
    """First wait before an unroutable flight is tried again without news; doubles up to `retry_max_s`."""
    retry_max_s: float = 1.0
    answer_s: float = 10.0
    """A worker that has neither accepted nor refused by then has lost the attempt."""
    moves_max: int = MOVES_MAX
    route: RouteOptions = RouteOptions()


@attrs.define
class _Search:
    """A flight that nobody has accepted yet, and at least once nobody could."""

    since: float
    retry_s: float


@attrs.define
class ForwardStatistics:
    """Counters since the node started."""

    submitted: int = 0
    attempts: int = 0
    moves: int = 0
    stale_frames: int = 0
    """Frames of attempts that no longer count, or that do not begin where the log ends: dropped."""
    tokens: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


@attrs.define
class Forwarder:
    """All flights of this entry. `candidates(now, model)` is what `node.core` knows of the mesh."""

    candidates: Candidates
    rng: random.Random
    options: ForwardOptions = ForwardOptions()
    flights: dict[int, Flight] = attrs.Factory(dict)
    statistics: ForwardStatistics = attrs.Factory(ForwardStatistics)
    decisions: Decisions = attrs.Factory(Decisions)
    _agenda: Agenda = attrs.field(init=False, factory=Agenda)
    _searching: dict[int, _Search] = attrs.field(init=False, factory=dict)
    _sent: Sent = attrs.field(init=False, factory=Sent)
    _prefixes: Prefixes = attrs.field(init=False, factory=Prefixes)
    _router: Router = attrs.field(
        init=False, default=attrs.Factory(lambda self: Router(self.options.route, self.rng), takes_self=True)
    )

    # -- what clients do --------------------------------------------------------------------------

    def submit(
        self, now: Now, request: Attempt, timeout_s: float | None, id: int = 0, known: Known | None = None
    ) -> tuple[int, list[Output]]:
        """Begin a flight, under an id that is free here or, if it is 0, under one that is drawn; return its id.

        With `known`, go on from there: what another entry's flight of this id had come to.
        """
        assert id not in self.flights
        deadline = None if timeout_s is None else now.mono + timeout_s
        flight = Flight(
            id or self._new_id(), request, deadline, self.options.moves_max, submitted_at=now.mono
        )
        if heeds_prefixes(self.options.route):
            flight.prefix = self._prefixes.key_of(salt_of(request), head_of(request))
        self.flights[flight.id] = flight
        self.statistics.submitted += 1
        if deadline is not None:
            self._agenda.set(("deadline", flight.id), deadline)
        if known is not None:
            flight.restore(*known)
        flight.route()
        return flight.id, self._route(now, flight)

    def cancel(self, now: Now, id: int) -> list[Output]:
        """End a flight because its client has gone; nothing if it has ended."""
        flight = self.flights.get(id)
        if flight is None or flight.ended:
            return []
        outputs = self._tell_cancel(flight, "the client has gone")
        flight.cancel()
        return outputs + self._ended(now, flight)

    def release(self, now: Now, id: int) -> list[Output]:
        """Forget a flight whose client has been served; cancel it if it still runs."""
        outputs = self.cancel(now, id)
        self.flights.pop(id, None)
        return outputs

    @property
    def active(self) -> int:
        """Flights that have not ended. O(1)."""
        told = self.statistics
        return told.submitted - told.done - told.failed - told.cancelled

    def _new_id(self) -> int:
        while (id := self.rng.getrandbits(64)) in self.flights or id == 0:
            pass
        return id

    # -- routing ----------------------------------------------------------------------------------

    def _route(self, now: Now, flight: Flight) -> list[Output]:
        started = flight.started
        wanted = Wanted(
            started.model_digest if started else flight.request.model_digest,
            started.policy_digest if started else "",
            tuple(flight.tried),
            flight.prefix,
            _cost_tokens(flight.request),
        )
        candidates = tuple(map(self._with_sent, self.candidates(now, flight.request.model)))
        choice = self._router.choose(now.mono, candidates, wanted)
        self._note(now, flight, choice)
        chosen = choice.chosen
        return self._search(now, flight) if chosen is None else self._open(now, flight, chosen.candidate.node)

    def _note(self, now: Now, flight: Flight, choice: Choice) -> None:
        if choice.chosen is None and flight.id in self._searching:
            return
        policy, declined = self.options.route.policy, tuple(flight.tried.items())
        decision = Decision(
            now.mono, flight.id, flight.attempt + 1, flight.request.model, policy, choice, declined
        )
        self.decisions.note(decision)

    def _with_sent(self, candidate: Candidate) -> Candidate:
        count = self._sent.count(candidate.node)
        if not count:
            return candidate
        return attrs.evolve(candidate, sent_tokens=self._sent.tokens(candidate.node), sent_flights=count)

    def _open(self, now: Now, flight: Flight, node: str) -> list[Output]:
        self._agenda.set(("answer", flight.id), now.mono + self.options.answer_s)
        attempt = flight.open(node, self._remaining_ms(now, flight))
        flight.opened_at = now.mono
        self._sent.add(node, flight.id, _cost_tokens(attempt))
        self.statistics.attempts += 1
        return [SendFrame(node, attempt.frame(flight.id, flight.attempt))]

    def _remaining_ms(self, now: Now, flight: Flight) -> int:
        if flight.deadline is None:
            return 0
        return max(1, round((flight.deadline - now.mono) * 1000))

    def _search(self, now: Now, flight: Flight) -> list[Output]:
        options = self.options
        if flight.tried and set(flight.tried.values()) == {"deadline_exceeded"}:
            flight.fail("deadline_exceeded", "no node could begin the answer within the request's time")
            return self._ended(now, flight)
        search = self._searching.setdefault(flight.id, _Search(now.mono, options.retry_s))
        flight.tried.clear()
        if now.mono - search.since >= options.route_wait_s:
            flight.fail(
                "no_worker", f"no node could serve `{flight.request.model}` for {options.route_wait_s:g} s"
            )
            return self._ended(now, flight)
        self._agenda.set(("route", flight.id), now.mono + search.retry_s * (0.5 + self.rng.random()))
        search.retry_s = min(2 * search.retry_s, options.retry_max_s)
        return []

    def view_changed(self, now: Now) -> list[Output]:
        """Somebody joined, recovered or became ready: try the flights that found nobody."""
        outputs: list[Output] = []
        for id in list(self._searching):
            if self.flights[id].target is None:
                outputs += self._route(now, self.flights[id])
        return outputs

    # -- what workers say -------------------------------------------------------------------------

    def receive(self, now: Now, node: str, frame: Frame) -> list[Output]:
        """Take a worker's frame. One whose body means nothing loses the worker the attempt."""
        flight = self.flights.get(frame.flight)
        if flight is None or flight.target != node or not flight.is_current(frame.attempt):
            self.statistics.stale_frames += 1
            return []
        try:
            return self._heed(now, flight, frame)
        except DecodeError as error:
            return self._lose(now, flight, f"its answer means nothing: {error}")

    def _heed(self, now: Now, flight: Flight, frame: Frame) -> list[Output]:
        match frame.kind:
            case Kind.ACCEPT:
                return self._accepted(flight, frame)
            case Kind.TOKENS:
                return self._produced(now, flight, frame)
            case Kind.FINISH:
                return self._finished(now, flight, frame)
            case Kind.REJECT:
                return self._rejected(now, flight, frame)
            case Kind.PROGRESS:
                return []
            case Kind.PROMPT:
                self.statistics.stale_frames += not flight.prompted(frame.attempt, Prompt.read(frame))
                return []
        raise DecodeError(f"a frame of type {frame.kind} is not a worker's to send")

    def _accepted(self, flight: Flight, frame: Frame) -> list[Output]:
        if not flight.accept(frame.attempt, Accept.read(frame)):
            self.statistics.stale_frames += 1
            return []
        self._agenda.cancel(("answer", flight.id))
        self._searching.pop(flight.id, None)
        return [Wake(flight.id)]

    def _produced(self, now: Now, flight: Flight, frame: Frame) -> list[Output]:
        tokens = Tokens.read(frame)
        if not flight.tokens(frame.attempt, tokens):
            self.statistics.stale_frames += 1
            return []
        self.statistics.tokens += len(tokens.ids)
        if flight.first_token_at is None:
            flight.first_token_at = now.mono
        if flight.opened_at is not None and flight.target is not None:
            self._router.first_token(now.mono, flight.target, now.mono - flight.opened_at)
            flight.opened_at = None
        return [Wake(flight.id)]

    def _finished(self, now: Now, flight: Flight, frame: Frame) -> list[Output]:
        if flight.finished(frame.attempt, Finish.read(frame)):
            return self._ended(now, flight)
        return self._lose(now, flight, "its end came before its tokens")

    def _rejected(self, now: Now, flight: Flight, frame: Frame) -> list[Output]:
        reject = Reject.read(frame)
        was_running = flight.state is State.RUNNING
        self._leave(flight)
        flight.rejected(frame.attempt, reject)
        if flight.ended:
            return self._ended(now, flight)
        self.statistics.moves += was_running
        return self._route(now, flight)

    def is_served_by(self, node: str) -> bool:
        """Whether flights of this entry are under way at a node."""
        return self._sent.count(node) > 0

    # -- what befalls workers ---------------------------------------------------------------------

    def node_lost(self, now: Now, node: str, reason: str) -> list[Output]:
        """A worker's node is gone or silent: move all its flights at once."""
        outputs: list[Output] = []
        for id in list(self._sent.flights(node)):
            outputs += self._lose(now, self.flights[id], reason)
        return outputs

    def _lose(self, now: Now, flight: Flight, reason: str) -> list[Output]:
        outputs = self._tell_cancel(flight, reason)
        self._leave(flight)
        flight.lost(flight.attempt, reason)
        if flight.ended:
            return outputs + self._ended(now, flight)
        self.statistics.moves += 1
        return outputs + self._route(now, flight)

    def _tell_cancel(self, flight: Flight, reason: str) -> list[Output]:
        if flight.target is None:
            return []
        return [SendFrame(flight.target, Cancel(reason).frame(flight.id, flight.attempt))]

    def _leave(self, flight: Flight) -> None:
        self._agenda.cancel(("answer", flight.id))
        self._sent.remove(flight.id)

    def _ended(self, now: Now, flight: Flight) -> list[Output]:
        for name in ("answer", "route", "deadline"):
            self._agenda.cancel((name, flight.id))
        self._searching.pop(flight.id, None)
        self._sent.remove(flight.id)
        self._count_end(flight)
        return [Wake(flight.id), _told(now, flight)]

    def _count_end(self, flight: Flight) -> None:
        name = flight.state.value
        setattr(self.statistics, name, getattr(self.statistics, name) + 1)

    # -- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` must be called."""
        return self._agenda.next_deadline()

    def tick(self, now: Now) -> list[Output]:
        """Carry out what is due: retries, answers that never came, deadlines."""
        outputs: list[Output] = []
        for name, id in self._agenda.due(now.mono):
            flight = self.flights.get(id)
            if flight is not None and not flight.ended:
                outputs += self._due(now, name, flight)
        return outputs

    def _due(self, now: Now, name: str, flight: Flight) -> list[Output]:
        match name:
            case "route":
                return self._route(now, flight) if flight.target is None else []
            case "answer":
                return self._lose(now, flight, "no answer")
            case _:
                return self._out_of_time(now, flight)

    def _out_of_time(self, now: Now, flight: Flight) -> list[Output]:
        outputs = self._tell_cancel(flight, "out of time")
        flight.fail("deadline_exceeded", "the request's time is up")
        return outputs + self._ended(now, flight)


def _told(now: Now, flight: Flight) -> Report:
    """The one line that a flight leaves in the log."""
    first_at, failure = flight.first_token_at, flight.failure
    fields = {
        "id": f"{flight.id:016x}",
        "model": flight.request.model,
        "end": failure.code if failure else flight.finish.reason if flight.finish else flight.state.value,
        "worker": flight.worker,
        "tokens": flight.delivered,
        "attempts": flight.attempt,
        "moves": flight.moves + flight.crashes,
        "ttft_ms": None if first_at is None else round((first_at - flight.submitted_at) * 1000),
        "ms": round((now.mono - flight.submitted_at) * 1000),
    }
    return Report("flight", tuple(item for item in fields.items() if item[1] not in (None, "")))


def _cost_tokens(attempt: Attempt) -> int:
    prompt = sum(len(s.ids) + len(s.text) // BYTES_PER_TOKEN for s in attempt.prompt)
    output = attempt.parameters.max_tokens
    left = (GUESSED_OUTPUT_TOKENS if output is None else output) - len(attempt.emitted)
    return prompt + len(attempt.emitted) + max(0, left)
