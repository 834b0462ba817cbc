"""Where the client of a resumable stream stands: the `id` of each event, pure.

An id says, for each choice of the request, how far its log has been told: tokens and characters of
text, for the pieces in which a log comes differ from run to run while both counts do not.

    -         nothing yet
    12.57     12 tokens, whose text has 57 characters
    12.57.e   that, and its last event
    ...,u     all choices, and the usage;  ...,d  the end

Choices are parted by commas. What comes after an id is a function of the request and of the id alone.
"""

import re
from typing import Self

import attrs

from mesh.flight import Chunk
from mesh.wire import U32_MAX
from node.errors import RequestError
from node.http.limits import CHOICES_MAX

CHARACTERS_MAX = CHOICES_MAX * 24
"""Longest id."""

MARK = re.compile(r"(\d{1,10})\.(\d{1,10})(\.e)?", re.ASCII)


@attrs.frozen
class Mark:
    """How far one choice has been told."""

    tokens: int = 0
    characters: int = 0
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.tokens}.{self.characters}{'.e' if self.ended else ''}"

    def after(self, chunk: Chunk) -> "Mark":
        """Return where this chunk leads, if it is the next."""
        return Mark(self.tokens + len(chunk.ids), self.characters + len(chunk.text))


@attrs.define
class Cursor:
    """How far an answer has been told; None is a choice of which nothing has been."""

    marks: list[Mark | None]
    last: str = ""
    """`u` once the usage has been told, `d` once all has."""

    @classmethod
    def start(cls, choices: int) -> Self:
        """Return that of an answer that has not begun."""
        return cls([None] * choices)

    @classmethod
    def read(cls, text: str, choices: int) -> Self:
        """Read the id of an event of this many choices; an empty one is the beginning. Raises RequestError."""
        if not text:
            return cls.start(choices)
        words = text.split(",") if len(text) <= CHARACTERS_MAX else []
        last = words.pop() if words and words[-1] in ("u", "d") else ""
        marks = [_mark(word) for word in words]
        if len(marks) != choices or (last and not all(mark and mark.ended for mark in marks)):
            raise _refused(text)
        return cls(marks, last)

    def line(self) -> bytes:
        """Return the line that gives an event this id."""
        words = [str(mark) if mark else "-" for mark in self.marks]
        return f"id: {','.join([*words, self.last] if self.last else words)}\n".encode()


def _mark(word: str) -> Mark | None:
    if word == "-":
        return None
    found = MARK.fullmatch(word)
    if found is None or int(found[1]) > U32_MAX or int(found[2]) > U32_MAX:
        raise _refused(word)
    return Mark(int(found[1]), int(found[2]), bool(found[3]))


def _refused(text: str) -> RequestError:
    return RequestError("invalid_request", f"`{text:.80}` is no id of an event of this answer", "after")


def split(chunk: Chunk, at: Mark, told: Mark) -> tuple[Chunk | None, Chunk | None]:
    """Cut a chunk that begins at `at` into what has been told and what has not; None for an empty part."""
    tokens = min(max(told.tokens - at.tokens, 0), len(chunk.ids))
    characters = min(max(told.characters - at.characters, 0), len(chunk.text))
    if tokens == 0 and characters == 0:
        return None, chunk
    before = Chunk(chunk.position, chunk.ids[:tokens], chunk.text[:characters], chunk.logprobs[:tokens])
    rest = Chunk(
        chunk.position + tokens, chunk.ids[tokens:], chunk.text[characters:], chunk.logprobs[tokens:]
    )
    return before, rest if rest.ids or rest.text else None
