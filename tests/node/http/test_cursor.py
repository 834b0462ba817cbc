"""Laws of the ids of events: wherever a client stands, the rest is all that follows, however a log is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.flight import Chunk
from mesh.frames import Logprob
from node.errors import RequestError
from node.http.cursor import Cursor, Mark, split

TEXT = "how \u00e9 many words are there in a text of some length, and what is its end?"
WORDS = st.lists(st.sampled_from(["", "a", "\u00e9", " two", "words of many characters "]), max_size=12)
MARKS = st.builds(Mark, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.booleans())


def log(words: list[str], cuts: set[int], rest: str) -> list[Chunk]:
    """Lay out tokens as a log that is cut after the tokens of these numbers, and ends with text held back."""
    chunks, first = [], 0
    for end in [cut for cut in range(1, len(words) + 1) if cut in cuts or cut == len(words)]:
        said = words[first:end]
        logprobs = tuple(Logprob(word.encode(), float(-end)) for word in said)
        chunks.append(Chunk(first, tuple(range(first, end)), "".join(said), logprobs))
        first = end
    return [*chunks, Chunk(first, (), rest)] if rest else chunks


def marks(chunks: list[Chunk]) -> list[Mark]:
    """Where a client may stand: before the first chunk and after each."""
    found = [Mark()]
    for chunk in chunks:
        found.append(found[-1].after(chunk))
    return found


@given(
    WORDS, st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)), st.sampled_from(["", "end"]), st.data()
)
def test_the_rest_of_a_log_that_is_cut_otherwise_is_all_that_follows_and_no_more(
    words, cuts, other, rest, data
):
    told = data.draw(st.sampled_from(marks(log(words, cuts, rest))))
    again = log(words, other, rest)
    parts = [split(chunk, at, told) for chunk, at in zip(again, marks(again), strict=False)]
    before = [one for one, _ in parts if one is not None]
    after = [one for _, one in parts if one is not None]
    assert [id for one in after for id in one.ids] == [*range(told.tokens, len(words))]
    assert "".join(one.text for one in before) == ("".join(words) + rest)[: told.characters]
    assert "".join(one.text for one in after) == ("".join(words) + rest)[told.characters :]
    assert all(len(one.logprobs) == len(one.ids) for one in before + after)
    assert [one.position for one in after if one.ids] == [one.ids[0] for one in after if one.ids]


@given(st.lists(st.none() | MARKS, min_size=1, max_size=64))
def test_an_id_is_read_as_it_was_written(stood: list[Mark | None]):
    line = Cursor(stood).line().decode()
    assert (line[:4], line[-1]) == ("id: ", "\n")
    assert Cursor.read(line[4:-1], len(stood)) == Cursor(stood)


@given(st.text(max_size=40) | st.from_regex(r"[0-9.,eud-]{1,30}", fullmatch=True), st.integers(1, 4))
def test_any_text_is_an_id_or_refused(text: str, choices: int):
    try:
        cursor = Cursor.read(text, choices)
    except RequestError as error:
        assert (error.code, error.param) == ("invalid_request", "after")
    else:
        assert len(cursor.marks) == choices


@pytest.mark.parametrize(
    "text", ["1", "1.2,", "1.2.e,d,u", "1.2,d", "4294967296.1", "1.2.f", "1.2,1.2", "u", "\u0661.1"]
)
def test_what_is_no_id_of_a_single_choice(text: str):
    with pytest.raises(RequestError):
        Cursor.read(text, 1)
