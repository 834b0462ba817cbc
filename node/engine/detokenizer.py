"""From ids to text that may leave: E, a pure function of the ids that only grows.

E(ids) is the text of `ids`, less what cannot be told yet: the bytes of a character
that is not complete, and the longest tail that a stop string could begin with. A
frame with tokens n .. n+k carries E(ids[:n+k]) - E(ids[:n]); the finish carries the
rest. So whoever has replayed the first n ids goes on to the byte, and nobody sees
half a character, or half a stop string that is then taken back.

Stop strings are searched character by character (Knuth, Morris, Pratt), so the
result does not depend on how the text falls into tokens. The first to be complete
wins, the longest of several that end together; the text ends where it begins.
One that is complete within the first `min_tokens` tokens does not count.
"""

import codecs

import attrs


def failure_table(word: str) -> list[int]:
    """Return, for each prefix of `word`, the length of its longest proper prefix that also ends it."""
    table = [0] * len(word)
    length = 0
    for index in range(1, len(word)):
        while length and word[index] != word[length]:
            length = table[length - 1]
        length += word[index] == word[length]
        table[index] = length
    return table


@attrs.define
class Matcher:
    """Finds one stop string in a text that is fed by the character."""

    word: str
    matched: int = 0
    """How much of `word` the text ends with, short of all of it."""
    _table: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._table = failure_table(self.word)

    def feed(self, character: str) -> bool:
        """Take the next character; return whether `word` is complete. Amortised O(1)."""
        word = self.word
        while self.matched and word[self.matched] != character:
            self.matched = self._table[self.matched - 1]
        self.matched += word[self.matched] == character
        if self.matched < len(word):
            return False
        self.matched = self._table[-1]
        return True


@attrs.define
class Detokenizer:
    """One sequence's text. Feed it the pieces of all ids from the first on, those of earlier attempts too."""

    stops: tuple[str, ...] = ()
    min_tokens: int = 0
    tokens: int = attrs.field(init=False, default=0)
    stop: str = attrs.field(init=False, default="")
    """The stop string that has ended the text; empty while it goes on."""
    _held: str = attrs.field(init=False, default="")
    _decoder: codecs.IncrementalDecoder = attrs.field(init=False)
    _matchers: list[Matcher] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [Matcher(stop) for stop in self.stops if stop]

    def push(self, piece: bytes) -> str:
        """Take the bytes of the next token; return the text that may leave now: the growth of E."""
        assert not self.stop, "the text has ended"
        self.tokens += 1
        text = self._decoder.decode(piece)
        if not self._matchers:
            return text
        before, self._held = self._held, self._held + text
        for index, character in enumerate(text, start=len(before) + 1):
            self._match(character)
            if self.stop:
                return self._take(index - len(self.stop))
        return self._take(len(self._held) - max(matcher.matched for matcher in self._matchers))

    def rest(self) -> str:
        """Return what was held back, now that no more tokens come.

        After a stop string nothing is left. Bytes that begin a character and do not end it are dropped.
        """
        rest, self._held = self._held, ""
        return "" if self.stop else rest

    def _match(self, character: str) -> None:
        complete = [matcher.word for matcher in self._matchers if matcher.feed(character)]
        if complete and self.tokens > self.min_tokens:
            self.stop = max(complete, key=len)

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
