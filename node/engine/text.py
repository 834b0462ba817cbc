"""What the engine core asks of a model's text: ids from a prompt, bytes from an id.

There are two implementations: `node.engine.toy.ToyText`, pure, and
`node.engine.tokenizer.ModelText`, which loads a model's own tokeniser and chat
template. What belongs to one sequence only, and so must be pure, stands apart in
`node.engine.detokenizer`.
"""

from typing import Protocol

import attrs

from mesh.attempt import Attempt


@attrs.frozen(slots=False)
class TextError(Exception):
    """A prompt that cannot be turned into ids: the client's fault, on every worker. No state changed."""

    message: str
    param: str = "prompt"
    """The request's field at fault."""
    code: str = "invalid_request"

    def __str__(self) -> str:
        return self.message


class Text(Protocol):
    """A model's text. Methods are pure functions of their arguments and of the model's files."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output."""

    def encode(self, attempt: Attempt) -> tuple[int, ...]:
        """Return the prompt's ids. Raises TextError."""

    def piece(self, id: int) -> bytes:
        """Return the bytes that an id adds to an output; none for special tokens."""

    def label(self, id: int) -> bytes:
        """Return the bytes by which people know an id; special tokens by their names."""


def prompt_param(attempt: Attempt) -> str:
    """Return the name of the request's field that the prompt came from."""
    return "messages" if any(segment.kind == "messages" for segment in attempt.prompt) else "prompt"
