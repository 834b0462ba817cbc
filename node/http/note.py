"""A request for tokens as it is noted down, so that any node can answer it again, event for event."""

import json
from typing import Self

import attrs

from mesh.attempt import Attempt
from mesh.wire import U64_MAX
from node.errors import RequestError
from node.http import document, schema
from node.http.schema import Ask
from node.http.seeds import choice_seed

_FIRST_LINE = ("chat", "created", "seed", "trace")


@attrs.frozen
class Note:
    """The body as the client sent it, and what the entry added to it."""

    chat: bool
    created: int
    """Seconds since the epoch."""
    seed: int
    """The client's, or the one that was drawn for it."""
    trace: str
    body: bytes

    def encode(self) -> bytes:
        """Write it: a line of JSON, then the body."""
        return json.dumps([getattr(self, name) for name in _FIRST_LINE]).encode() + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote, here or at a peer. Raises RequestError."""
        line, _, body = data.partition(b"\n")
        try:
            chat, created, seed, trace = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            raise RequestError("not_found", "the note of this request cannot be read") from None
        right = [type(one) for one in (chat, created, seed, trace)] == [bool, int, int, str]
        if not right or not (0 <= created <= U64_MAX and 0 <= seed <= U64_MAX):
            raise RequestError("not_found", "the note of this request means nothing")
        return cls(chat, created, seed, trace, body)

    def ask(self) -> Ask:
        """Check the body. Raises RequestError."""
        return (schema.chat if self.chat else schema.completion)(document.read(self.body))

    def attempts(self, ask: Ask) -> list[Attempt]:
        """Return one attempt per choice, prompt by prompt; `ask` is that of the body."""
        return [
            Attempt(
                ask.model,
                (prompt,),
                ask.parameters,
                choice_seed(self.seed, choice),
                choice=index * ask.n + choice,
                rendered_at=self.created,
                grammar=ask.grammar,
                trace=self.trace,
            )
            for index, prompt in enumerate(ask.prompts)
            for choice in range(ask.n)
        ]
