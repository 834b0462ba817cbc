"""Grammars: what may come next is a function of the ids, an end only when the output is whole, and no dead end."""

import json
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import grammar
from node.engine.constraint import Strayed, ids_of, leaves_any
from node.engine.grammar import CACHED_MAX, Compiler, Vocabulary
from node.engine.text import TextError
from tests.node.engine.schemas import schema_of

jsonschema = pytest.importorskip("jsonschema")

TOKENS = [*(bytes((byte,)) for byte in range(256)), b"", b'{"', b'": "', b"true", b"\xc3\xa9", b"", b"a"]
END, UNUSED, TWIN = 256, 261, 262
SIZE = 300
"""The model has more logits than the tokeniser has ids, as many have."""


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Vocabulary(TOKENS, (END,), (END,)), SIZE, (END,))


def bytes_of(ids: list[int]) -> bytes:
    return b"".join(TOKENS[id] for id in ids)


def walk(compiler: Compiler, source: bytes, seed: int, most: int = 3000) -> list[int]:
    """Say something at random until the grammar is complete or lets it end."""
    rng, following, ids = random.Random(seed), compiler.begin(source), []
    while not following.complete and len(ids) < most:
        allowed = ids_of(following.allowed)
        assert allowed, "a dead end"
        id = rng.choice(allowed)
        if id == END:
            return ids
        ids.append(id)
        following.push(id)
        assert not following.failure
    return ids


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10))
def test_whatever_is_said_under_a_schema_is_valid(seed: int, path: int):
    compiler = COMPILER
    schema = schema_of(seed)
    said = bytes_of(walk(compiler, grammar.write("json", schema), path)).decode()
    jsonschema.validate(json.loads(said), schema, jsonschema.Draft202012Validator)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10), st.data())
def test_the_state_is_a_function_of_the_ids(seed: int, path: int, data):
    source = grammar.write("json", schema_of(seed))
    ids = walk(COMPILER, source, path)
    cut = data.draw(st.integers(0, len(ids)))
    stepped = COMPILER.begin(source)
    for id in ids[:cut]:
        stepped.push(id)
    resumed = COMPILER.begin(source, ids[:cut])
    assert (resumed.complete, resumed.failure) == (stepped.complete, "")
    if not resumed.complete:
        assert resumed.allowed == stepped.allowed
        assert len(resumed.allowed) == (SIZE + 7) // 8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10), st.data())
def test_looking_ahead_sees_what_will_be_and_changes_nothing(seed: int, path: int, data):
    source = grammar.write("json", schema_of(seed))
    ids = walk(COMPILER, source, path)
    cut = data.draw(st.integers(0, len(ids)))
    here = COMPILER.begin(source, ids[:cut])
    if here.complete:
        return
    before = here.allowed
    masks = here.ahead(ids[cut : cut + 5])
    for id, mask in zip(ids[cut:], masks, strict=False):
        here.push(id)
        assert here.allowed == mask
    fresh = COMPILER.begin(source, ids[:cut])
    assert fresh.ahead([UNUSED]) == []
    assert fresh.allowed == before


COMPILER = Compiler(Vocabulary(TOKENS, (END,), (END,)), SIZE, (END,))


@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("regex", "[a-f]{3}(x|yy)?", r"[a-f]{3}(x|yy)?"),
        ("choice", ["yes", "no", "a|b", "é.*", 'q"\\'], r"yes|no|a\|b|é\.\*|q\"\\"),
        ("lark", 'start: "<" /[0-9]{1,3}/ ">" | "none"', r"<[0-9]{1,3}>|none"),
        ("gbnf", 'root ::= item (", " item)?\nitem ::= [a-z] [0-9]', r"[a-z][0-9](, [a-z][0-9])?"),
    ],
)
def test_every_kind_of_grammar_is_followed(compiler: Compiler, kind: str, value, pattern: str):
    said = {bytes_of(walk(compiler, grammar.write(kind, value), seed)).decode() for seed in range(40)}
    assert len(said) > 1
    assert all(re.fullmatch(pattern, one) for one in said)


def test_any_json_is_json(compiler: Compiler):
    for seed in range(30):
        said = bytes_of(
            walk(compiler, grammar.write("json", {"type": "object", "maxProperties": 3}), seed, 400)
        )
        if len(said) < 400:
            assert type(json.loads(said)) is dict


def test_an_end_is_allowed_only_when_the_output_is_whole(compiler: Compiler):
    following = compiler.begin(grammar.write("regex", "ab*"))
    assert END not in ids_of(following.allowed)
    following.push(TWIN)
    assert {END, ord("b")} == set(ids_of(following.allowed))
    assert not following.complete


def test_of_ids_with_the_same_bytes_the_last_is_allowed_and_those_without_bytes_never(compiler: Compiler):
    allowed = ids_of(compiler.begin(grammar.write("regex", "a+")).allowed)
    assert allowed == [TWIN]
    assert UNUSED not in ids_of(compiler.begin(grammar.write("regex", "(?s).*")).allowed)


def test_white_space_is_bounded(compiler: Compiler):
    following = compiler.begin(grammar.write("json", {"type": "array", "items": {"type": "integer"}}))
    for id in b"[\n" + 16 * b" ":
        following.push(id)
    assert not set(ids_of(following.allowed)) & set(b" \n\t\r")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("regex", "(", "unclosed"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", r"(a)\1", "backreferences"),
        ("json", {"type": "nonsense"}, "type"),
        ("json", {"type": "string", "pattern": "("}, ""),
        ("json", {"not": {"type": "string"}}, ""),
        ("json", [1], "written"),
        ("lark", "start: nobody", ""),
        ("gbnf", "root ::= (", ""),
        ("choice", [], "written"),
        ("choice", ["a", 1], "written"),
        ("json", {"type": "integer", "multipleOf": 99991, "minimum": 1}, "fuel"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused_in_words(compiler: Compiler, kind, value, words: str):
    before = time.process_time()
    with pytest.raises(TextError, match="grammar cannot be compiled") as refused:
        compiler.begin(grammar.write(kind, value))
    assert time.process_time() - before < 2
    assert words in refused.value.message
    assert len(refused.value.message) < 400
    assert refused.value.param == "response_format"


@pytest.mark.parametrize("source", [b"", b"{", b"[]", b"{}", b'{"prolog": 1}', b"\xff", b"[" * 100_000])
def test_bytes_that_name_no_grammar_are_refused(compiler: Compiler, source: bytes):
    with pytest.raises(TextError, match="grammar cannot be compiled"):
        compiler.begin(source)


def test_emitted_ids_that_stray_are_no_state(compiler: Compiler):
    with pytest.raises(Strayed, match="do not follow"):
        compiler.begin(grammar.write("regex", "abc"), [TWIN, *b"bx"])


def test_few_compiled_grammars_are_kept(compiler: Compiler):
    for number in range(CACHED_MAX + 10):
        compiler.begin(grammar.write("regex", f"a{{{number + 1}}}"))
    assert len(compiler._compiled) == CACHED_MAX


@given(st.sets(st.integers(0, 299)), st.sets(st.integers(0, 299)))
def test_a_mask_is_the_set_of_its_ids(allowed: set[int], banned: set[int]):
    mask = sum(1 << id for id in allowed).to_bytes(38, "little")
    assert ids_of(mask) == sorted(allowed)
    assert leaves_any(mask, banned) == bool(allowed - banned)
