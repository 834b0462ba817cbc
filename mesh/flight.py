"""A flight: one choice of one client's request, at the node where it came in.

Theory of operation. A flight outlives the workers that serve it. It holds what
the client asked for and a log of what has been produced; each try on a worker is
an attempt with a number of its own. The entry takes tokens only if the attempt
is the current one and they begin where the log ends, so a worker that wakes from
a freeze cannot splice its text in. A lost attempt sends the flight back to
ROUTING with its log; the next attempt goes on from there.

    WAITING  admitted, not yet routed
    ROUTING  a worker is being chosen, or has been asked and has not answered
    RUNNING  a worker has accepted
    DONE, FAILED, CANCELLED  ended; the log stays until the client has been served

RUNNING -> ROUTING is the only way back. An attempt that was lost with its link
counts as a move, up to `moves_max`. One whose engine died with it in the step is
tried again alone; a second death alone, before it has got `PROBATION_TOKENS` further,
is the request's own doing and ends it (`engine_crash`), so that a poisonous request
does not walk through the mesh and two accidents under a lone stream do not end it.
"""

import enum

import attrs

from mesh.attempt import PROBATION_TOKENS, Attempt
from mesh.frames import Accept, Finish, Logprob, Prompt, PromptToken, Reject, Tokens

MOVES_MAX = 16
"""Most attempts of one flight that may be lost to links and nodes."""

CRASHES_MAX = 4
"""Most engine deaths that one flight may see in its step before it is held to blame in any case."""

CHUNK_BYTES, ID_BYTES, LOGPROB_BYTES = 256, 64, 128
"""What a piece of the log, an id in it and a token's log-probability hold in memory, roughly."""


class State(enum.Enum):
    """Where a flight stands."""

    WAITING = "waiting"
    ROUTING = "routing"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.WAITING: (State.ROUTING, State.FAILED, State.CANCELLED),
    State.ROUTING: (State.RUNNING, State.FAILED, State.CANCELLED),
    State.RUNNING: (State.ROUTING, State.DONE, State.FAILED, State.CANCELLED),
    State.DONE: (),
    State.FAILED: (),
    State.CANCELLED: (),
}

ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@attrs.frozen
class Chunk:
    """Tokens as they were taken into the log, with the text that they complete."""

    position: int
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[Logprob, ...] = ()


@attrs.frozen
class Failure:
    """Why a flight failed, in the words its client will read."""

    code: str
    message: str
    param: str = ""
    retry_after_ms: int = 0


@attrs.frozen
class Started:
    """What the first accepted attempt said of the request."""

    prompt_tokens: int
    cached_tokens: int
    model_digest: str
    policy_digest: str
    worker: str
    text_digest: str = ""


@attrs.define
class Flight:
    """One flight's state and log. Methods return whether they changed anything; they never raise for peers."""

    id: int
    """64 random bits, drawn by the entry."""
    request: Attempt
    """What the client asked for; `emitted` is empty here."""
    deadline: float | None = None
    """Monotonic seconds at the entry by which the flight must have ended; None is unbounded."""
    moves_max: int = MOVES_MAX
    state: State = State.WAITING
    attempt: int = 0
    """Number of the current attempt; 0 before the first. Only this one's words count."""
    target: str | None = None
    """Node id of the worker that has been asked or that serves; None while one is being chosen."""
    worker: str = ""
    """Label of the node that serves or served last."""
    started: Started | None = None
    log: list[Chunk] = attrs.Factory(list)
    ids: list[int] = attrs.Factory(list)
    prompt: list[PromptToken] = attrs.Factory(list)
    """The prompt's tokens and their log-probabilities, if they were asked for."""
    finish: Finish | None = None
    failure: Failure | None = None
    moves: int = 0
    crashes: int = 0
    crashed_at: int = 0
    """Tokens that had been delivered at the last crash."""
    submitted_at: float = 0.0
    """Monotonic seconds at the entry."""
    prefix: bytes = b""
    """Key of the prompt's home among the workers; empty if it has none."""
    opened_at: float | None = None
    """When the current attempt was opened, until its first token is here."""
    first_token_at: float | None = None
    log_bytes: int = 0
    """What the log holds, roughly."""
    tried: dict[str, str] = attrs.Factory(dict)
    """Workers that turned this flight down since it was last accepted, and why."""

    @property
    def delivered(self) -> int:
        """Tokens in the log: the position from which the next must go on."""
        return len(self.ids)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    @property
    def policy_changed(self) -> bool:
        """Whether a later attempt ran under another numerical policy than the first."""
        return self._policies_seen > 1

    _policies_seen: int = attrs.field(init=False, default=0)
    _policy: str = attrs.field(init=False, default="")

    def _become(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} -> {state}"
        self.state = state

    def route(self) -> None:
        """Leave WAITING: a worker may now be chosen."""
        self._become(State.ROUTING)

    def open(self, target: str, remaining_ms: int) -> Attempt:
        """Begin the next attempt, on `target`; return what to send it."""
        assert self.state is State.ROUTING and self.target is None
        self.attempt += 1
        self.target = target
        if not self.ids:
            self.prompt.clear()
        started = self.started
        return attrs.evolve(
            self.request,
            emitted=tuple(self.ids),
            model_digest=started.model_digest if started else self.request.model_digest,
            policy_digest=self._policy or self.request.policy_digest,
            text_digest=started.text_digest if started else self.request.text_digest,
            remaining_ms=remaining_ms,
            alone=self.crashes > 0,
        )

    def is_current(self, attempt: int) -> bool:
        """Whether words of this attempt still count."""
        return attempt == self.attempt and self.target is not None and not self.ended

    def accept(self, attempt: int, accept: Accept) -> bool:
        """The worker takes the attempt."""
        if not self.is_current(attempt) or self.state is not State.ROUTING:
            return False
        self._become(State.RUNNING)
        self.worker = accept.worker
        self.tried.clear()
        self._note_policy(accept.policy_digest)
        if self.started is None:
            self.started = Started(
                accept.prompt_tokens,
                accept.cached_tokens,
                accept.model_digest,
                accept.policy_digest,
                accept.worker,
                accept.text_digest,
            )
        return True

    def restore(self, started: Started, chunks: tuple[Chunk, ...]) -> None:
        """Go on where another entry had come to: the same model and policy, and what it had produced."""
        assert self.state is State.WAITING and not self.log
        self.started, self.worker = started, started.worker
        self._note_policy(started.policy_digest)
        for chunk in chunks:
            self._append(chunk)

    def _append(self, chunk: Chunk) -> None:
        self.ids.extend(chunk.ids)
        self.log.append(chunk)
        self.log_bytes += CHUNK_BYTES + len(chunk.text) + ID_BYTES * len(chunk.ids)
        self.log_bytes += LOGPROB_BYTES * sum(1 + len(one.top) for one in chunk.logprobs)

    def _note_policy(self, policy: str) -> None:
        if policy != self._policy:
            self._policies_seen += 1
            self._policy = policy

    def tokens(self, attempt: int, tokens: Tokens) -> bool:
        """Take produced tokens into the log, iff they are the current attempt's and begin where it ends."""
        if not self.is_current(attempt) or self.state is not State.RUNNING:
            return False
        if tokens.position != self.delivered or not tokens.ids:
            return False
        self._append(Chunk(tokens.position, tokens.ids, tokens.text, tokens.logprobs))
        return True

    def prompted(self, attempt: int, prompt: Prompt) -> bool:
        """Take scored tokens of the prompt, iff they are the current attempt's; known ones are passed over."""
        if not self.is_current(attempt) or self.state is not State.RUNNING or self.ids:
            return False
        known = len(self.prompt) - prompt.position
        if known < 0:
            return False
        self.prompt.extend(prompt.tokens[known:])
        return True

    def finished(self, attempt: int, finish: Finish) -> bool:
        """End well, iff every token up to the end has been taken."""
        if not self.is_current(attempt) or self.state is not State.RUNNING:
            return False
        if finish.position != self.delivered:
            return False
        if finish.text:
            self.log.append(Chunk(finish.position, (), finish.text))
        self.finish = finish
        self._become(State.DONE)
        return True

    def rejected(self, attempt: int, reject: Reject) -> bool:
        """The worker turned the attempt down, or gave it up after accepting it."""
        if not self.is_current(attempt):
            return False
        if not reject.retryable:
            self._fail(Failure(reject.code, reject.message, reject.param, reject.retry_after_ms))
        elif reject.crashed:
            self._crashed(reject)
        elif self.state is State.RUNNING:
            self._moved(reject.code)
        else:
            self._declined(reject.code)
        return True

    def lost(self, attempt: int, reason: str) -> bool:
        """The worker can no longer be trusted to answer: its link, node or engine is gone or silent."""
        if not self.is_current(attempt):
            return False
        self._moved(reason)
        return True

    def cancel(self) -> bool:
        """The client has gone, or the operator wants it ended."""
        if self.ended:
            return False
        self._become(State.CANCELLED)
        self.target = None
        return True

    def fail(self, code: str, message: str) -> bool:
        """End badly, for a reason of the entry's own: no worker, no time."""
        if self.ended:
            return False
        self._fail(Failure(code, message))
        return True

    def _declined(self, why: str) -> None:
        assert self.target is not None
        self.tried[self.target] = why
        self.target = None

    def _moved(self, why: str) -> None:
        self.moves += 1
        if self.moves > self.moves_max:
            self._fail(
                Failure("too_many_moves", f"the request was moved {self.moves_max} times; last: {why}")
            )
            return
        self._back_to_routing(why)

    def _crashed(self, reject: Reject) -> None:
        again = self.crashes > 0 and self.delivered - self.crashed_at < PROBATION_TOKENS
        self.crashes += 1
        self.crashed_at = self.delivered
        if (reject.alone and again) or self.crashes > CRASHES_MAX:
            message = "the engine died twice while it computed this request; it will not be tried again"
            self._fail(Failure("engine_crash", message))
            return
        self._back_to_routing(reject.code)

    def _back_to_routing(self, why: str) -> None:
        if self.state is State.RUNNING:
            self._become(State.ROUTING)
        self._declined(why)

    def _fail(self, failure: Failure) -> None:
        self._become(State.FAILED)
        self.failure = failure
        self.target = None
