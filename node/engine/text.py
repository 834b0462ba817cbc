"""What the engine core asks of a model's text: ids from a prompt, bytes from an id.

There are two implementations: `node.engine.toy.ToyText`, pure, and
`node.engine.tokenizer.ModelText`, which loads a model's own tokeniser and chat
template. What belongs to one sequence only, and so must be pure, stands apart in
`node.engine.detokenizer`.
"""

from collections.abc import Iterator
from typing import Protocol

import attrs

from mesh.attempt import Attempt
from mesh.frames import IDS_MAX, Prepared


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
    def digest(self) -> str:
        """Name of all that it reads: equal digests turn equal words into equal ids, and ids into equal words."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output."""

    def encode(self, attempt: Attempt) -> tuple[int, ...]:
        """Return the prompt's ids. Raises TextError."""

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return the ids of a word as they stand in the middle of an output: bare, and after a space."""

    def piece(self, id: int) -> bytes:
        """Return the bytes that an id adds to an output; none for special tokens."""

    def label(self, id: int) -> bytes:
        """Return the bytes by which people know an id; special tokens by their names."""


def prompt_param(attempt: Attempt) -> str:
    """Return the name of the request's field that the prompt came from."""
    return "messages" if any(segment.kind == "messages" for segment in attempt.prompt) else "prompt"


def prepare(text: Text, attempt: Attempt) -> Prepared:
    """Return what an attempt's words are in a model's ids. Raises TextError."""
    ids = text.encode(attempt)
    if len(ids) > IDS_MAX:
        message = f"a prompt of `{len(ids)}` tokens exceeds the {IDS_MAX} that a frame carries"
        raise TextError(message, prompt_param(attempt), "context_length_exceeded")
    return Prepared(ids, tuple(dict.fromkeys(_bad_words(text, attempt))))


def _bad_words(text: Text, attempt: Attempt) -> Iterator[tuple[int, ...]]:
    for word in attempt.parameters.bad_words:
        spellings = [ids for ids in text.spellings(word) if 0 < len(ids) <= BAD_WORD_IDS_MAX]
        if not spellings:
            message = f"`{word:.40}` of `bad_words` has no tokens, or more than {BAD_WORD_IDS_MAX}"
            raise TextError(message, "bad_words")
        yield from spellings


BAD_WORD_IDS_MAX = 256
"""Most tokens of a forbidden word."""
