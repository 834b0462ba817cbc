"""The text contract: E only grows, never shows half of anything, and is the same from any position."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.detokenizer import Detokenizer, failure_table

alphabet = st.sampled_from(["a", "b", "ab", "ba", "aab", "é", "€", "😀"])
texts = st.lists(alphabet, max_size=12).map("".join)
stops = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3).map(tuple)


@st.composite
def pieces(draw) -> list[bytes]:
    """A text's bytes, cut anywhere."""
    raw = draw(texts).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


def said(detokenizer: Detokenizer, tokens: list[bytes]) -> list[str]:
    """Feed tokens until a stop; return what each let out, and the rest."""
    out = []
    for token in tokens:
        if detokenizer.stop:
            break
        out.append(detokenizer.push(token))
    return [*out, detokenizer.rest()]


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The specification: the text up to the stop string that is complete first, the longest of equals."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return text


def tail(text: str, stops: tuple[str, ...]) -> int:
    """The specification: how long a tail of the text could begin a stop string."""
    lengths = (n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


@given(pieces(), stops)
def test_all_that_is_said_is_the_text_up_to_the_stop(tokens: list[bytes], stops: tuple[str, ...]):
    assert "".join(said(Detokenizer(stops), tokens)) == cut(b"".join(tokens).decode(), stops)


@given(pieces(), stops)
def test_no_more_is_held_back_than_could_begin_a_stop(tokens: list[bytes], stops: tuple[str, ...]):
    detokenizer = Detokenizer(stops)
    out = ""
    for count, token in enumerate(tokens, start=1):
        out += detokenizer.push(token)
        if detokenizer.stop:
            break
        known = b"".join(tokens[:count]).decode(errors="ignore")
        assert out == known[: len(known) - tail(known, stops)]


@given(pieces(), stops, st.integers(0, 10))
def test_whoever_replays_the_first_tokens_goes_on_to_the_byte(tokens: list[bytes], stops, position: int):
    whole = said(Detokenizer(stops), tokens)
    replayed = Detokenizer(stops)
    for token in tokens[:position]:
        if not replayed.stop:
            replayed.push(token)
    assert said(replayed, tokens[position:])[:-1] == whole[position:-1]


def test_half_a_character_waits_for_its_other_half():
    detokenizer = Detokenizer()
    assert [detokenizer.push(b) for b in (b"a\xf0\x9f", b"\x98", b"\x80b")] == ["a", "", "😀b"]


def test_half_a_character_at_the_end_is_dropped():
    assert said(Detokenizer(), [b"a\xc3"]) == ["a", ""]


def test_bytes_that_are_no_character_are_replaced_where_they_stand():
    assert said(Detokenizer(), [b"a\xff", b"b\xc3", b"c"]) == ["a\ufffd", "b", "\ufffdc", ""]


def test_a_stop_string_is_found_across_tokens_and_cut():
    detokenizer = Detokenizer(("\n\n",))
    assert said(detokenizer, [b"one\n", b"\ntwo"]) == ["one", "", ""]
    assert detokenizer.stop == "\n\n"


def test_what_only_looked_like_a_stop_is_said_after_all():
    assert said(Detokenizer(("END",)), [b"E", b"N", b"X", b"EN"]) == ["", "", "ENX", "", "EN"]


def test_the_longest_of_stops_that_end_together_wins():
    detokenizer = Detokenizer(("b", "ab"))
    assert "".join(said(detokenizer, [b"xab"])) == "x"
    assert detokenizer.stop == "ab"


def test_a_stop_within_the_least_tokens_does_not_count():
    assert "".join(said(Detokenizer(("ab",), min_tokens=2), [b"a", b"b", b"a", b"bc"])) == "ab"
    assert "".join(said(Detokenizer(("ab",), min_tokens=1), [b"a", b"bc"])) == ""


@pytest.mark.parametrize(
    ("stop", "text", "said_"), [("aab", "aaab", "a"), ("abab", "aababab", "a"), ("aa", "aaa", "")]
)
def test_a_stop_that_repeats_itself_is_found(stop: str, text: str, said_: str):
    assert "".join(said(Detokenizer((stop,)), [text.encode()])) == said_


def test_a_stop_may_begin_within_one_that_did_not_count():
    assert "".join(said(Detokenizer(("aa",), min_tokens=2), [b"a"] * 4)) == "a"


def test_an_empty_stop_is_no_stop():
    assert "".join(said(Detokenizer(("",)), [b"ab"])) == "ab"


@pytest.mark.parametrize(
    ("word", "table"), [("aaa", [0, 1, 2]), ("abab", [0, 0, 1, 2]), ("aabaaa", [0, 1, 0, 1, 2, 2])]
)
def test_failure_tables(word: str, table: list[int]):
    assert failure_table(word) == table
