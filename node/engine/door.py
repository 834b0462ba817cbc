"""The engine's door: what an OPEN must be to become a sequence, and what it is told if it is not.

Everything that a runner trusts is checked here: ids within the vocabulary, lengths
within the context and the memory. A refusal names the value, the limit and the
field. `retryable` says whether another worker might take the attempt.
"""

from collections.abc import Iterable

import attrs

from mesh.attempt import Attempt, Parameters
from mesh.frames import Frame, Prepared, Ready, Reject
from node.engine.constraint import Constraint, Grammars, Strayed
from node.engine.detokenizer import Detokenizer
from node.engine.plan import Sampling
from node.engine.pool import KINDS
from node.engine.scheduler import Scheduler
from node.engine.sequence import Sequence
from node.engine.serving import Serving
from node.engine.text import Text, TextError, prepare, prompt_param

MESSAGE_CHARS_MAX = 1000
"""Longest message of a refusal: at four bytes each it fits the frame's 4,096."""

PROMPT_BYTES_PER_TOKEN = 32
"""A prompt with more bytes per token of context is refused unread: tokenising it would stop every stream.

Text has 3 to 5 bytes per token; 32 on average is beyond runs of spaces in code.
"""

BYTES_PER_TOKEN = 4
"""Bytes of text assumed per token until it has been tokenised."""

RETRY_MS_MIN, RETRY_MS_MAX = 100, 30_000
"""Bounds of the advice that goes with `busy`."""


class Refused(Exception):
    """An attempt that is not taken, and what its entry is told."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


def refused(code: str, message: str, param: str = "", retryable: bool = False, wait_ms: int = 0) -> Refused:
    """Return the refusal to raise. What in the message is no Unicode text is replaced."""
    message = message[:MESSAGE_CHARS_MAX].encode(errors="replace").decode()
    return Refused(Reject(code, message, retryable, param, retry_after_ms=wait_ms))


def busy(scheduler: Scheduler, queued_tokens: int, tokens_per_s: float) -> Refused:
    """Return the refusal of a full queue; it advises to come back when half of the work is done."""
    limit = scheduler.limits.waiting_max
    wait_ms = int(500 * queued_tokens / tokens_per_s) if tokens_per_s else RETRY_MS_MIN
    wait_ms = min(max(wait_ms, RETRY_MS_MIN), RETRY_MS_MAX)
    return refused("busy", f"`{limit}` requests wait already, which is the most", "", True, wait_ms)


def too_late(wait_s: float, left_s: float) -> Refused:
    """Return the refusal of what could not begin its answer in time."""
    message = (
        f"`{1000 * left_s:.0f}` ms are left, the first token would take {1000 * wait_s:.0f} ms at the least"
    )
    return refused("deadline_exceeded", message, retryable=True)


def sampling(parameters: Parameters, seed: int) -> Sampling:
    """Return what the runner needs of a request's parameters."""
    names = (field.name for field in attrs.fields(Sampling) if field.name not in ("seed", "banned"))
    return Sampling(seed=seed, **{name: getattr(parameters, name) for name in names})


@attrs.frozen
class Opening:
    """An OPEN that has been checked, while its prompt is being prepared."""

    frame: Frame
    attempt: Attempt
    opened_s: float

    @property
    def deadline_s(self) -> float | None:
        """When the time of the whole request is over; None if it is unbounded."""
        remaining_ms = self.attempt.remaining_ms
        return self.opened_s + remaining_ms / 1000 if remaining_ms else None

    @property
    def tokens(self) -> int:
        """A guess at its tokens, for the load."""
        prompt = sum(len(s.ids) + len(s.text) // BYTES_PER_TOKEN for s in self.attempt.prompt)
        return prompt + (self.attempt.parameters.max_tokens or 0)


@attrs.frozen
class Door:
    """Checks attempts against one model."""

    text: Text
    ready: Ready
    memory_tokens: int
    """Positions that fit in the engine's KV memory."""
    grammars: Grammars | None = None
    """None refuses grammars."""
    scores: bool = True
    """Whether prompts can be scored."""
    embeds: bool = True
    """Whether embeddings can be asked for."""

    @property
    def context(self) -> int:
        """Most tokens of prompt and output together: the model's context, if memory holds it."""
        return min(self.ready.context_max, self.memory_tokens)

    def check(self, frame: Frame) -> Attempt:
        """Read an OPEN and check what needs no text. Raises Refused, or DecodeError."""
        attempt = Attempt.read(frame)
        self._check_model(attempt)
        self._check_ids(attempt)
        self._check_bytes(attempt)
        return attempt

    def prepare(self, attempt: Attempt) -> Prepared:
        """Do a text worker's errand here and now: for texts that are pure. Raises Refused."""
        try:
            return prepare(self.text, attempt)
        except TextError as error:
            raise refused(error.code, error.message, error.param) from None

    def open(self, opening: Opening, prepared: Prepared, handle: int) -> Serving:
        """Turn an OPEN into a sequence and its text. Raises Refused."""
        frame, attempt = opening.frame, opening.attempt
        prompt = self._prompt(attempt, prepared)
        parameters = attempt.parameters
        eos = () if parameters.ignore_eos else self.text.eos_ids
        ends = tuple(dict.fromkeys((*eos, *parameters.stop_ids)))
        sequence = Sequence(
            handle=handle,
            ticket=frame.flight,
            attempt=frame.attempt,
            prompt=prompt,
            sampling=attrs.evolve(sampling(parameters, attempt.seed), banned=self._banned(attempt)),
            produced=list(attempt.emitted),
            produced_max=max(self._produced_max(attempt, len(prompt)), bool(attempt.pooling)),
            min_tokens=parameters.min_tokens,
            banned_early=ends,
            bad_words=prepared.bad_words,
            prompt_logprobs=None if attempt.emitted else parameters.prompt_logprobs,
            constraint=self._constraint(attempt),
            pooling=attempt.pooling,
            tenant=attempt.tenant,
            priority=attempt.priority,
            alone=attempt.alone,
        )
        return Serving(
            sequence,
            self.text,
            Detokenizer(parameters.stop, parameters.min_tokens),
            ends,
            logprobs=parameters.logprobs is not None,
            deadline_s=opening.deadline_s,
            bounded=parameters.max_tokens is not None,
        )

    def _check_model(self, attempt: Attempt) -> None:
        held = self.ready.model_digest
        if attempt.model_digest not in ("", held):
            message = f"model `{attempt.model_digest:.16}` is pinned, this engine holds `{held:.16}`"
            raise refused("model_digest_mismatch", message, retryable=True)
        read = self.ready.text_digest
        if attempt.text_digest not in ("", read):
            message = f"text `{attempt.text_digest:.16}` is pinned, this engine reads and writes `{read:.16}`"
            raise refused("text_digest_mismatch", message, retryable=True)
        unsupported = [name for name in ("adapter", "kv_dtype") if getattr(attempt, name)]
        unsupported += ["response_format"] * (bool(attempt.grammar) and self.grammars is None)
        unsupported += ["parallel"] * (attempt.parallel != 1) + ["echo"] * attempt.parameters.echo
        unsupported += ["prompt_logprobs"] * (
            attempt.parameters.prompt_logprobs is not None and not self.scores
        )
        if attempt.pooling and not (self.embeds and attempt.pooling in KINDS and not attempt.emitted):
            message = f"embeddings by `{attempt.pooling}` are not supported by this engine"
            raise refused("unsupported_parameter", message, "pooling", retryable=not self.embeds)
        for name in unsupported:
            raise refused("unsupported_parameter", f"`{name}` is not supported by this engine", name)

    def _check_ids(self, attempt: Attempt) -> None:
        parameters = attempt.parameters
        self._check_range("logit_bias", (id for id, _ in parameters.logit_bias))
        self._check_range("stop_token_ids", parameters.stop_ids)
        self._check_range("emitted", attempt.emitted)

    def _check_range(self, param: str, ids: Iterable[int]) -> None:
        highest = max(ids, default=0)
        if highest >= self.ready.vocabulary:
            message = f"token id `{highest}` of `{param}` is not below {self.ready.vocabulary}"
            raise refused("invalid_request", message, param)

    def _prompt(self, attempt: Attempt, prepared: Prepared) -> tuple[int, ...]:
        param = prompt_param(attempt)
        if not prepared.ids:
            raise refused("invalid_request", "the prompt has no tokens", param)
        self._check_range(param, prepared.ids)
        for word in prepared.bad_words:
            self._check_range("bad_words", word)
        return prepared.ids

    def _check_bytes(self, attempt: Attempt) -> None:
        size = sum(len(segment.text.encode()) for segment in attempt.prompt)
        limit = PROMPT_BYTES_PER_TOKEN * self.context
        if size > limit:
            message = (
                f"a prompt of `{size}` bytes cannot fit the {self.context} tokens that the context of "
                f"`{self.ready.model}` holds; {limit} bytes are tokenised at most\nhint: shorten the prompt"
            )
            raise refused("context_length_exceeded", message, prompt_param(attempt))

    def _banned(self, attempt: Attempt) -> tuple[int, ...]:
        """Return what is never chosen. An ignored end is still an end to a grammar: it is chosen only if it must."""
        return self.text.eos_ids if attempt.grammar and attempt.parameters.ignore_eos else ()

    def _constraint(self, attempt: Attempt) -> Constraint | None:
        if not attempt.grammar or self.grammars is None:
            return None
        try:
            return self.grammars.begin(attempt.grammar, attempt.emitted)
        except TextError as error:
            raise refused(error.code, error.message, error.param) from None
        except Strayed as error:
            raise refused("grammar_mismatch", str(error), retryable=True) from None

    def _produced_max(self, attempt: Attempt, prompt: int) -> int:
        """Return the most tokens that the attempt may produce. Raises Refused if they do not fit."""
        wanted = attempt.parameters.max_tokens
        output = 1 if wanted is None else wanted
        if prompt + output <= self.context:
            return self.context - prompt if wanted is None else wanted
        room = self.context - prompt
        hint = f"lower `max_tokens` to {room}, or shorten the prompt" if room > 0 else "shorten the prompt"
        message = (
            f"`{prompt + output}` tokens are wanted ({prompt} of prompt and {output} of output), "
            f"the context of `{self.ready.model}` holds {self.context}\nhint: {hint}"
        )
        raise refused("context_length_exceeded", message, prompt_param(attempt))
