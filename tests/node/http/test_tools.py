"""Tool calls are read from a model's words, however the words are cut."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.http.tools import CALL_CHARACTERS_MAX, Argued, Called, Reader, Said

NAMES = frozenset(("find", "open"))


def read(*pieces: str, named: str = "") -> tuple[str, list[tuple[str, str]]]:
    """Return the words and the calls with their arguments."""
    reader, said, calls = Reader(NAMES, named), "", []
    for event in [event for piece in pieces for event in reader.feed(piece)] + reader.finish():
        match event:
            case Said(text):
                said += text
            case Called(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case Argued(index, text):
                calls[index] = (calls[index][0], calls[index][1] + text)
    assert reader.calls == len(calls)
    return said, calls


FIND = '{"name": "find", "arguments": {"q": "a \\"b\\" {", "n": [1, {}]}}'
ARGUMENTS = '{"q": "a \\"b\\" {", "n": [1, {}]}'


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("hello", "hello", []),
        (FIND, "", [("find", ARGUMENTS)]),
        ("\n " + FIND + "\n", "", [("find", ARGUMENTS)]),
        (FIND.replace("arguments", "parameters"), "", [("find", ARGUMENTS)]),
        ('{"arguments": {"x": 1}, "name": "open"}', "", [("open", '{"x": 1}')]),
        (f"[{FIND}, {FIND}]", "", [("find", ARGUMENTS)] * 2),
        (f"<tool_call>\n{FIND}\n</tool_call>", "", [("find", ARGUMENTS)]),
        (
            f"I look.\n<tool_call>{FIND}</tool_call>\n<tool_call>{FIND}</tool_call>",
            "I look.\n",
            [("find", ARGUMENTS)] * 2,
        ),
        (f"<tool_call>{FIND}</tool_call> done", " done", [("find", ARGUMENTS)]),
        ('<tool_call>{"name": "unknown", "arguments": {}}</tool_call>', "", [("unknown", "{}")]),
        ('{"name": "open", "arguments": "{\\"x\\": 1}"}', "", [("open", '{"x": 1}')]),
        ('{"name": "open", "arguments": null}', "", [("open", "null")]),
        ('{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', []),
        ('{"answer": 42}', '{"answer": 42}', []),
        ("[1, 2]", "[1, 2]", []),
        ('{"name": "find"', '{"name": "find"', []),
        ('{"name": "find", "arguments": {"q', "", [("find", '{"q')]),
        ("a < b <tool", "a < b <tool", []),
        ("<tool_call>no json</tool_call>", "<tool_call>no json</tool_call>", []),
        ("<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
        ("{" + "x" * 50, "{" + "x" * 50, []),
        ("", "", []),
    ],
)
def test_calls_are_told_from_words(text: str, said: str, calls: list):
    assert read(text) == (said, calls)
    assert read(*text) == (said, calls), "by the character"


def test_a_named_function_takes_the_whole_answer():
    assert read('{"x"', ": 1}", named="find") == ("", [("find", '{"x": 1}')])
    assert read("", named="find") == ("", [])


def test_arguments_are_told_as_they_come():
    reader = Reader(NAMES)
    assert reader.feed('{"name": "find", "argu') == []
    assert reader.feed('ments": {"q": "a') == [Called(0, "find"), Argued(0, '{"q": "a')]
    assert reader.feed('b"') == [Argued(0, 'b"')]


def test_what_is_held_back_is_bounded():
    said, calls = read('{"name": "' + "x" * (2 * CALL_CHARACTERS_MAX))
    assert len(said) == 2 * CALL_CHARACTERS_MAX + 10
    assert calls == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
calls = st.lists(
    st.tuples(st.sampled_from(sorted(NAMES)), st.dictionaries(st.text(max_size=5), values, max_size=3)),
    min_size=1, max_size=3,
)  # fmt: skip


@given(calls, st.sampled_from(["hermes", "list"]), st.booleans(), st.lists(st.integers(0, 300), max_size=6))
def test_every_call_is_read_however_it_is_written_and_cut(said, form: str, ascii: bool, cuts: list[int]):
    objects = [json.dumps({"name": name, "arguments": value}, ensure_ascii=ascii) for name, value in said]
    text = f"[{', '.join(objects)}]"
    if form == "hermes":
        text = "".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    words, found = read(*(text[a:b] for a, b in itertools.pairwise(places)))
    assert words == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == said


@given(st.text('{}[]":,\\ an<tool_call>/me', max_size=60))
def test_words_that_are_no_call_are_said_as_they_are(text: str):
    words, found = read(text)
    if not found:
        assert words == text or not text.replace(words, "", 1).strip()
    assert (words, found) == read(*text)
