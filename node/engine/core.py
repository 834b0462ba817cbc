"""The engine core: frames in, frames out, and between them steps for a runner.

Theory of operation. The shell (`node.engine.process`, or the simulator) hands in
each frame of the engine's link with the time, asks for a plan, has it computed,
and hands the sampled ids back:

    OPEN     -> ACCEPT, then PROGRESS*, TOKENS*, FINISH; or REJECT at any point
    errands  -> OPENs for the text worker, if there is one; `prepared` takes its answers
    CANCEL   -> nothing more of that attempt, its blocks free at once
    plan()   -> the next step, and STEP before it if others are in it than before
    commit() -> one TOKENS frame per sequence that was sampled

STATUS goes out when the numbers of waiting or running attempts change, and once a
second while there is work. Frames may come between plan and commit; the step goes
on without those that were cancelled.

What a client did wrong, or what will be wrong on every worker, is refused for good
(`retryable` False) with the numbers; what another worker may do better is not.
"""

from typing import Protocol

import attrs

from mesh.errors import DecodeError
from mesh.frames import Accept, Frame, Kind, Ping, Pong, Prepared, Progress, Ready, Reject, Status, Step
from node.engine.blocks import Blocks
from node.engine.constraint import Grammars
from node.engine.door import Door, Opening, Refused, busy, too_late
from node.engine.errands import Answer, Errand, Errands
from node.engine.plan import Plan, Sampled
from node.engine.scheduler import PREFILL_SHARE, Limits, Outcome, Scheduler
from node.engine.sequence import Sequence
from node.engine.serving import Serving
from node.engine.speed import Speed, decode_rows
from node.engine.text import Text, prompt_param

STATUS_INTERVAL_S = 1.0
"""Longest silence about load while there is work."""

STEP_TOKENS_MIN = 16
"""The budget of a step never sinks below this, however slow the device."""


@attrs.frozen
class Options:
    """How an engine core behaves."""

    block_tokens: int = 16
    """Positions per KV block; the runner's."""
    limits: Limits = attrs.Factory(Limits)
    step_s_max: float = 0.25
    """Aim for steps no longer than this: frames that come during one are seen after it."""
    worker: str = ""
    """Label of the node, as ACCEPT names it."""
    text_worker: bool = False
    """Whether prompts are prepared by a text worker, to which the shell carries the errands; else here at once."""
    scores: bool = True
    embeds: bool = True
    """Whether the runner yields embeddings."""
    """Whether the runner can score prompts (`Row.scored`)."""


@attrs.define
class EngineCore:
    """One engine's attempts, from OPEN to FINISH."""

    options: Options
    text: Text
    ready: Ready
    """What the engine has said of itself: digests, context, memory."""
    grammars: Grammars | None = None
    """What compiles grammars for the model; None refuses them."""
    scheduler: Scheduler = attrs.field(init=False)
    speed: Speed = attrs.field(init=False, factory=Speed)
    errands: Errands = attrs.field(init=False, factory=Errands)
    """What the text worker has been asked; the shell carries it."""
    _door: Door = attrs.field(init=False)
    _opening: dict[int, Opening] = attrs.field(init=False, factory=dict)
    """By the number of the errand."""
    _served: dict[int, Serving] = attrs.field(init=False, factory=dict)
    """By ticket."""
    _handles: int = attrs.field(init=False, default=0)
    _step: tuple[int, ...] = attrs.field(init=False, default=())
    _planned_s: float = attrs.field(init=False, default=0.0)
    _told: tuple[int, int] = attrs.field(init=False, default=(0, 0))
    _told_s: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        size = self.options.block_tokens
        self.scheduler = Scheduler(Blocks(self.ready.kv_tokens // size, size), self.options.limits)
        self._door = Door(
            self.text,
            self.ready,
            self.scheduler.blocks.tokens,
            self.grammars,
            self.options.scores,
            self.options.embeds,
        )

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self.scheduler.idle

    @property
    def tickets(self) -> tuple[int, ...]:
        """The attempts at hand, in order of arrival."""
        return (*self._served, *(opening.frame.flight for opening in self._opening.values()))

    def receive(self, now_s: float, frame: Frame) -> list[Frame]:
        """Take a frame; return those that answer it. Never raises for what a peer sends."""
        try:
            answer = self._receive(now_s, frame)
        except Refused as refused:
            answer = [refused.reject.frame(frame.flight, frame.attempt)]
        except DecodeError as error:
            reject = Reject("malformed", str(error)[:1000], retryable=False)
            answer = [reject.frame(frame.flight, frame.attempt)]
        return answer + self._status(now_s)

    def prepared(self, now_s: float, answers: list[Answer]) -> list[Frame]:
        """Take the text worker's answers to errands; those that nobody waits for any more are dropped."""
        frames: list[Frame] = []
        for number, answer in answers:
            opening = self._opening.pop(number, None)
            if opening is not None:
                frames += self._answered(now_s, opening, answer)
        return frames + self._status(now_s)

    def _answered(self, now_s: float, opening: Opening, answer: Prepared | Reject) -> list[Frame]:
        frame = opening.frame
        if isinstance(answer, Reject):
            return [answer.frame(frame.flight, frame.attempt)]
        try:
            return self._begin(now_s, opening, answer)
        except Refused as refused:
            return [refused.reject.frame(frame.flight, frame.attempt)]

    def plan(self, now_s: float) -> tuple[Plan | None, list[Frame]]:
        """Choose the next step. The frames must have left before it begins."""
        frames = self._expire(now_s)
        plan = self.scheduler.plan()
        if plan is not None:
            self._planned_s = now_s
            frames += self._name_step(plan)
        return plan, frames + self._status(now_s)

    def commit(self, now_s: float, plan: Plan, sampled: tuple[Sampled, ...]) -> list[Frame]:
        """Take what the last planned step yielded."""
        held_before = self.scheduler.accepted
        outcomes = self.scheduler.commit(sampled)
        self.speed.observe(plan, now_s - self._planned_s, self.scheduler.accepted - held_before)
        self._pace(plan)
        frames: list[Frame] = []
        for outcome in outcomes:
            frames += self._tell(outcome)
        return frames + self._status(now_s)

    def fail(self, now_s: float, plan: Plan, handle: int, message: str) -> list[Frame]:
        """Give up the sequence that spoiled a step; the others' rows are planned again.

        Its entry is told as if the engine had died of it: it is tried elsewhere, alone, and not for ever.
        """
        serving = next(s for s in self._served.values() if s.sequence.handle == handle)
        self.scheduler.abandon(serving.sequence)
        self._forget(serving)
        reject = Reject("engine_fault", message[:1000], crashed=True, alone=len(plan.rows) == 1)
        return [reject.frame(serving.sequence.ticket, serving.sequence.attempt), *self._status(now_s)]

    def _receive(self, now_s: float, frame: Frame) -> list[Frame]:
        match frame.kind:
            case Kind.OPEN:
                return self._open(now_s, frame)
            case Kind.CANCEL:
                self._cancel(frame)
            case Kind.PING:
                return [Pong(Ping.read(frame).token).frame()]
        return []

    def _open(self, now_s: float, frame: Frame) -> list[Frame]:
        if self._newest(frame.flight) >= frame.attempt:
            return []
        self._withdraw(frame.flight)
        if self.scheduler.full or len(self._opening) >= self.options.limits.waiting_max:
            raise busy(self.scheduler, self.queued_tokens, self.speed.decode.per_s)
        opening = Opening(frame, self._door.check(frame), now_s)
        if not self.options.text_worker:
            return self._begin(now_s, opening, self._door.prepare(opening.attempt))
        self._handles += 1
        self._opening[self._handles] = opening
        errand = Frame(Kind.OPEN, self._handles, frame.attempt, frame.body)
        self.errands.add(Errand(errand, prompt_param(opening.attempt)))
        return []

    def _newest(self, ticket: int) -> int:
        """Return the number of the newest attempt of a ticket that is at hand; -1 if none is."""
        numbers = [o.frame.attempt for o in self._opening.values() if o.frame.flight == ticket]
        serving = self._served.get(ticket)
        return max([*numbers, -1 if serving is None else serving.sequence.attempt])

    def _withdraw(self, ticket: int) -> None:
        """Drop whatever is at hand of a ticket."""
        if ticket in self._served:
            self._forget(self._served[ticket])
        for number in [n for n, opening in self._opening.items() if opening.frame.flight == ticket]:
            self._drop(number)

    def _drop(self, number: int) -> Opening:
        self.errands.forget(number)
        return self._opening.pop(number)

    def _begin(self, now_s: float, opening: Opening, prepared: Prepared) -> list[Frame]:
        """Accept an attempt whose prompt is known. Raises Refused."""
        frame = opening.frame
        self._handles += 1
        serving = self._door.open(opening, prepared, self._handles)
        accept = self._accept(serving.sequence).frame(frame.flight, frame.attempt)
        if serving.reason:
            return [accept, *serving.finish()]
        self.scheduler.add(serving.sequence)
        self._served[frame.flight] = serving
        self._check_time(now_s, serving)
        return [accept]

    def _check_time(self, now_s: float, serving: Serving) -> None:
        """Refuse what would not have its first token in time at the measured speed; another may be quicker."""
        speed = self.speed.prefill_at_best_per_s
        if serving.deadline_s is None or not speed:
            return
        wait_s, left_s = self.scheduler.tokens_before(serving.sequence) / speed, serving.deadline_s - now_s
        if wait_s > left_s:
            self._forget(serving)
            raise too_late(wait_s, left_s)

    def _accept(self, sequence: Sequence) -> Accept:
        return Accept(
            prompt_tokens=len(sequence.prompt),
            cached_tokens=min(self.scheduler.cached_tokens(sequence), len(sequence.prompt)),
            model_digest=self.ready.model_digest,
            policy_digest=self.ready.policy_digest,
            worker=self.options.worker,
            text_digest=self.ready.text_digest,
        )

    def _cancel(self, frame: Frame) -> None:
        if self._newest(frame.flight) == frame.attempt:
            self._withdraw(frame.flight)

    def _forget(self, serving: Serving) -> None:
        self.scheduler.end(serving.sequence)
        del self._served[serving.sequence.ticket]

    def _tell(self, outcome: Outcome) -> list[Frame]:
        sequence = outcome.sequence
        serving = self._served[sequence.ticket]
        if outcome.pooled:
            self._forget(serving)
            return serving.embed(outcome.pooled)
        known = min(sequence.computed, len(sequence.prompt) - 1)
        first = sequence.prompt_logprobs is not None and len(sequence.produced) == len(outcome.sampled)
        scored = serving.score(known, outcome.scored) if first else []
        if not outcome.sampled:
            progress = Progress(sequence.computed, len(sequence.ids))
            return [*scored, progress.frame(sequence.ticket, sequence.attempt)]
        frames = scored + serving.take(outcome.sampled)
        if serving.reason:
            self._forget(serving)
        elif serving.failure:
            self._forget(serving)
            reject = Reject("invalid_request", serving.failure, False, "response_format")
            frames.append(reject.frame(sequence.ticket, sequence.attempt))
        return frames

    def _expire(self, now_s: float) -> list[Frame]:
        """Give up the attempts whose time is over."""
        late = [s for s in self._served.values() if s.deadline_s is not None and s.deadline_s <= now_s]
        for serving in late:
            self._forget(serving)
        names = [(serving.sequence.ticket, serving.sequence.attempt) for serving in late]
        for number in [
            n for n, o in self._opening.items() if o.deadline_s is not None and o.deadline_s <= now_s
        ]:
            frame = self._drop(number).frame
            names.append((frame.flight, frame.attempt))
        reject = Reject("deadline_exceeded", "the request's time was over before its answer", retryable=False)
        return [reject.frame(*name) for name in names]

    def _name_step(self, plan: Plan) -> list[Frame]:
        step = tuple(sorted(row.sequence for row in plan.rows))
        if step == self._step:
            return []
        self._step = step
        tickets = {serving.sequence.handle: ticket for ticket, serving in self._served.items()}
        return [Step(tuple(tickets[handle] for handle in step)).frame()]

    def _pace(self, plan: Plan) -> None:
        """Let the budget be what the device prefills in the time that a step may last, beside those that decode."""
        speed, step_s = self.speed.prefill.per_s, self.options.step_s_max
        if speed:
            left_s = max(step_s - self.speed.decode_step_s, step_s / PREFILL_SHARE)
            budget = max(STEP_TOKENS_MIN, int(speed * left_s) + decode_rows(plan))
            self.scheduler.step_tokens = min(budget, self.options.limits.step_tokens)

    def _status(self, now_s: float) -> list[Frame]:
        """Return a STATUS if the load has changed, or if none has gone out for a while."""
        load = self._load()
        stale = not self.idle and now_s - self._told_s >= STATUS_INTERVAL_S
        if load == self._told and not stale:
            return []
        self._told, self._told_s = load, now_s
        return [self.status().frame()]

    def status(self) -> Status:
        """Return the load as it is now."""
        blocks = self.scheduler.blocks
        waiting, running = self._load()
        return Status(
            waiting=waiting,
            running=running,
            queued_tokens=self.queued_tokens,
            kv_free_ratio=blocks.available / blocks.count,
            prefill_tokens_per_s=self.speed.prefill.per_s,
            decode_tokens_per_s=self.speed.decode.per_s,
            guessed=self.scheduler.drafted,
            guesses_held=self.scheduler.accepted,
            text_worker_deaths=self.errands.deaths,
        )

    def _load(self) -> tuple[int, int]:
        """Return the numbers of waiting and running attempts."""
        waiting, running = self.scheduler.load
        return waiting + len(self._opening), running

    @property
    def queued_tokens(self) -> int:
        """Tokens still to be computed: known ids, and outputs where the client has bounded them."""
        opening = sum(opening.tokens for opening in self._opening.values())
        return opening + sum(
            serving.sequence.pending + (serving.sequence.remaining if serving.bounded else 0)
            for serving in self._served.values()
        )


DIGEST_DIGITS = 32
"""Hex digits of a digest that travel: 128 bits tell models apart, and load records stay small."""


class Described(Protocol):
    """What every runner, real or toy, knows of its model and its memory."""

    digest: str
    policy: str
    exact: bool
    context_max: int
    vocabulary: int
    blocks: int
    block_tokens: int
    dtype: str


def describe(
    model: str, runner: Described, stages_ms: tuple[tuple[str, int], ...] = (), text_digest: str = ""
) -> Ready:
    """Return what an engine says of itself once it has loaded."""
    return Ready(
        model=model,
        model_digest=runner.digest[:DIGEST_DIGITS],
        policy_digest=runner.policy[:DIGEST_DIGITS],
        exact=runner.exact,
        context_max=runner.context_max,
        vocabulary=runner.vocabulary,
        kv_tokens=runner.blocks * runner.block_tokens,
        device=getattr(runner, "device", "cpu"),
        dtype=runner.dtype,
        stages_ms=stages_ms,
        text_digest=text_digest[:DIGEST_DIGITS],
    )
