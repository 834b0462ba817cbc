"""The outward side of one attempt: from each new id to the frames that its entry reads.

An attempt that carries emitted ids replays them here without a word; what it says
from then on is what the undisturbed attempt would have said. An attempt whose
emitted ids already reach an end finishes at once, and the same way.
"""

import attrs

from mesh.frames import Finish, Frame, Logprob, Prompt, PromptToken, Ranked, Tokens
from node.engine.detokenizer import Detokenizer
from node.engine.plan import Sampled
from node.engine.pool import embedding_of
from node.engine.sequence import Sequence
from node.engine.text import Text


@attrs.define(eq=False)
class Serving:
    """An attempt's sequence, its text and its ends."""

    sequence: Sequence
    text: Text
    detokenizer: Detokenizer
    end_ids: tuple[int, ...]
    """Ids that end the output; they are produced, but are no part of its text."""
    logprobs: bool = False
    deadline_s: float | None = None
    bounded: bool = True
    """Whether the client named a limit of tokens."""
    reason: str = attrs.field(init=False, default="")
    """Why the output has ended; empty while it goes on."""
    _stop: str = attrs.field(init=False, default="")
    _said: int = attrs.field(init=False, default=0)
    """Produced ids that have been taken into the text."""

    def __attrs_post_init__(self) -> None:
        for id in self.sequence.produced:
            if not self.reason:
                self._push(id)
        self._look()

    @property
    def failure(self) -> str:
        """Why its grammar cannot be followed any further; empty while it can."""
        constraint = self.sequence.constraint
        return "" if constraint is None else constraint.failure

    def take(self, sampled: tuple[Sampled, ...]) -> list[Frame]:
        """Return the frames for the ids that the sequence has just been given; those after an end do not count."""
        position, text, taken = self._said, "", []
        for item in sampled:
            if not self.reason:
                text += self._push(item.id)
                taken.append(item)
        self._look()
        logprobs = tuple(map(self._logprob, taken)) if self.logprobs else ()
        tokens = self._frame(Tokens(position, tuple(item.id for item in taken), text, logprobs))
        return [tokens, *self.finish()]

    def score(self, computed: int, scored: tuple[Sampled, ...]) -> list[Frame]:
        """Return the frame that tells the prompt's tokens up to the one after `computed`; none if none are wanted."""
        first = computed + 1 - len(scored)
        tokens = tuple(map(self._prompt_token, scored))
        if first == 1 and self.sequence.prompt_logprobs is not None:
            id = self.sequence.prompt[0]
            first, tokens = 0, (PromptToken(id, self.text.label(id)), *tokens)
        if not tokens:
            return []
        return [Prompt(first, tokens).frame(self.sequence.ticket, self.sequence.attempt)]

    def _prompt_token(self, item: Sampled) -> PromptToken:
        label = self.text.label
        top = tuple(Ranked(id, label(id), logprob) for id, logprob in item.top)
        return PromptToken(item.id, label(item.id), item.logprob, item.rank, top)

    def embed(self, state: bytes) -> list[Frame]:
        """Return the frame that ends a request for an embedding."""
        self.reason = "stop"
        vector = embedding_of(self.sequence.pooling, state, len(self.sequence.prompt))
        return [self._frame(Finish(0, self.reason, vector=vector))]

    def finish(self) -> list[Frame]:
        """Return the last frame if the output has ended."""
        if not self.reason:
            return []
        position = self._said
        return [self._frame(Finish(position, self.reason, self.detokenizer.rest(), self._stop))]

    def _look(self) -> None:
        """Note an end that no id stands for: the grammar is complete, or no more tokens may be produced."""
        constraint = self.sequence.constraint
        if not self.reason and constraint is not None and constraint.complete:
            self.reason = "stop"
        if not self.reason and self.sequence.remaining == 0:
            self.reason = "length"

    def _push(self, id: int) -> str:
        """Take the next id into the text; note whether it ends the output. Too early an end is never chosen."""
        self._said += 1
        if id in self.end_ids:
            self.reason, self._stop = "stop", self.text.label(id).decode(errors="replace")
            return ""
        text = self.detokenizer.push(self.text.piece(id))
        if self.detokenizer.stop:
            self.reason, self._stop = "stop", self.detokenizer.stop
        return text

    def _logprob(self, sampled: Sampled) -> Logprob:
        label = self.text.label
        top = tuple((label(id), logprob) for id, logprob in sampled.top)
        return Logprob(label(sampled.id), sampled.logprob, top)

    def _frame(self, verb: Tokens | Finish) -> Frame:
        return verb.frame(self.sequence.ticket, self.sequence.attempt)
