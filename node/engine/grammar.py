"""Grammars through llguidance: JSON schemas, regular expressions, choices, Lark and GBNF.

The library keeps an Earley parser over lazily built automata and computes, in some ten microseconds to a few
milliseconds, which of the vocabulary's ids keep the output completable (Koo et al., arXiv 2407.08103; its own
docs/optimizations.md). It counts its own work and gives up beyond the limits below, so no grammar stops a step
for long. A grammar is compiled twice: in the text worker, whose time the kernel limits, and then, known to be harmless,
in the engine, where the result is kept for the next request.

White space between the parts of JSON is nothing, one space, or a line break with up to 16 spaces: small models
left free to write white space may never stop.
"""

import collections
import functools
import json
from collections.abc import Collection, Sequence
from typing import Any

import attrs
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from mesh import grammar
from mesh.errors import DecodeError
from node.engine.constraint import Strayed
from node.engine.text import TextError

CACHED_MAX = 32
"""Most compiled grammars that are kept."""

ERROR_CHARS_MAX = 300

JSON_OPTIONS = {"whitespace_pattern": r"(\n {0,16}| )?"}

LIMITS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 1_000_000,  # some 20 ms
    "step_lexer_fuel": 200_000,  # some 14 ms
    "step_max_items": 50_000,  # some 3 ms
    "max_lexer_states": 25_000,  # some 50 MB
    "max_grammar_size": 500_000,
    "precompute_large_lexemes": True,
    "verbose_errors": False,
}
"""The library's own bounds, in its words; the times are its documentation's."""


@functools.cache
def _limits() -> LLParserLimits:
    return LLParserLimits(**LIMITS)


class Vocabulary:
    """A model's tokens as the library asks for them (its `TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special: Collection[int], eos_ids: Sequence[int]) -> None:
        """tokens: bytes by id. An id without bytes is made special: no output may hold it.

        Of ids with the same bytes the last is taken: byte-fallback tokens come before the words.
        """
        last = {token: id for id, token in enumerate(tokens)}
        unused = [id for id, token in enumerate(tokens) if not token or last[token] != id]
        names = {id: b"<unused %d>" % id for id in unused}
        self.tokens = [names.get(id, token) for id, token in enumerate(tokens)]
        self.special_token_ids = sorted({*special, *unused, *eos_ids})
        self.eos_token_id = eos_ids[0]
        self._bytes = {token[0]: id for id, token in enumerate(tokens) if len(token) == 1}

    def __call__(self, text: str | bytes) -> list[int]:
        """Return ids for some text; the library asks only for text that a grammar forces, which we do not use."""
        data = text.encode() if isinstance(text, str) else text
        return [self._bytes[byte] for byte in data if byte in self._bytes]


class Compiler:
    """Compiles grammars for one vocabulary. Building it takes about 10 us per token, with Python's lock held."""

    def __init__(self, vocabulary: Vocabulary, size: int, eos_ids: Sequence[int]) -> None:
        """size: of the model's logits, which may have more ids than the tokeniser."""
        self._tokenizer = LLTokenizer(vocabulary, eos_token=list(eos_ids))
        self._mask_bytes = (size + 7) // 8
        self._compiled: collections.OrderedDict[str, LLMatcher] = collections.OrderedDict()

    def begin(self, source: bytes, emitted: Sequence[int] = ()) -> "Following":
        """Return a grammar's state after the emitted ids. Raises TextError, or Strayed."""
        matcher = self._prototype(source).deep_copy()
        if emitted and not matcher.consume_tokens(list(emitted)):
            raise Strayed(f"the emitted ids do not follow the grammar: {_first_line(matcher.get_error())}")
        return Following(matcher, self._mask_bytes)

    def _prototype(self, source: bytes) -> LLMatcher:
        name = grammar.identity(source)
        if name not in self._compiled:
            self._compiled[name] = self._compile(source)
            while len(self._compiled) > CACHED_MAX:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(name)
        return self._compiled[name]

    def _compile(self, source: bytes) -> LLMatcher:
        try:
            text = translate(*grammar.read(source))
        except (DecodeError, GbnfToLarkError, ValueError, RecursionError) as error:
            raise _refused(str(error)) from None
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=_limits())
        if not matcher.is_error():
            matcher.deep_copy().compute_bitmask()
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return matcher


def translate(kind: str, value: Any) -> str:
    """Return a grammar in the library's own form. Raises ValueError."""
    match kind, value:
        case "json", dict():
            return LLMatcher.grammar_from_json_schema(json.dumps(value), overrides=JSON_OPTIONS)
        case "json", bool():
            return LLMatcher.grammar_from_json_schema(
                json.dumps({} if value else {"enum": []}), overrides=JSON_OPTIONS
            )
        case "regex", str():
            return LLMatcher.grammar_from_regex(value)
        case "choice", list() if value and all(isinstance(one, str) and one for one in value):
            return LLMatcher.grammar_from_regex("|".join(map(_literal, value)))
        case "lark", str():
            return LLMatcher.grammar_from_lark(value)
        case "gbnf", str():
            return LLMatcher.grammar_from_lark(gbnf_to_lark(value))
    raise ValueError(f"a `{kind}` is not written like that")


def _literal(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _refused(message: str) -> TextError:
    return TextError(f"the grammar cannot be compiled: {_first_line(message)}", "response_format")


def _first_line(message: str) -> str:
    return " ".join(message.split("\n<state>")[0].split())[:ERROR_CHARS_MAX]


@attrs.define
class Following:
    """One sequence's grammar, as far as it has been followed."""

    matcher: LLMatcher
    _mask_bytes: int
    failure: str = attrs.field(init=False, default="")
    allowed: bytes = attrs.field(init=False, default=b"")

    def __attrs_post_init__(self) -> None:
        self._look()

    @property
    def complete(self) -> bool:
        """Whether the output is whole and nothing but an end may follow."""
        return not self.failure and self.matcher.is_stopped()

    def push(self, id: int) -> None:
        """Take the next id."""
        self.matcher.consume_token(id)
        self._look()

    def ahead(self, ids: Sequence[int]) -> list[bytes]:
        """Return what would be allowed after each of `ids`, as far as they are allowed; nothing changes."""
        matcher, masks = self.matcher.deep_copy(), []
        for id in ids:
            if matcher.validate_tokens([id]) != 1 or not matcher.consume_token(id) or matcher.is_stopped():
                break
            masks.append(self._mask(matcher))
            if matcher.is_error():
                masks.pop()
                break
        return masks

    def _look(self) -> None:
        if not self.matcher.is_error() and not self.matcher.is_stopped():
            self.allowed = self._mask(self.matcher)
        if self.matcher.is_error():
            self.failure = f"the grammar cannot be followed: {_first_line(self.matcher.get_error())}"

    def _mask(self, matcher: LLMatcher) -> bytes:
        mask: bytes = matcher.compute_bitmask()
        return mask[: self._mask_bytes].ljust(self._mask_bytes, b"\0")
