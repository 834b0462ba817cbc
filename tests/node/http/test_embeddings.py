"""What a request for embeddings may say, and how its answer is written."""

import json
import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import RequestError
from node.http import embeddings

VECTOR = array("f", [0.6, 0.8, 0.0, 0.0]).tobytes()


def read(**fields: object) -> embeddings.Ask:
    return embeddings.read(json.dumps({"model": "m", "input": "a"} | fields).encode())


def test_every_form_of_input_is_read():
    assert [text.text for text in read(input=["a", "b"]).inputs] == ["a", "b"]
    assert read(input=[1, 2]).inputs[0].ids == (1, 2)
    assert [ids.ids for ids in read(input=[[1], [2, 3]]).inputs] == [(1,), (2, 3)]
    assert read(dimensions=None, user="me") == read()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ["a"] * 257}, "input"),
        ({"input": ""}, "input"),
        ({"input": None}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"model": None}, "model"),
        ({"pooling": "max"}, "pooling"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, object], param: str):
    with pytest.raises(RequestError) as error:
        read(**fields)
    assert error.value.param == param


def test_more_dimensions_than_the_model_has_are_refused_with_the_number():
    with pytest.raises(RequestError, match="have 4"):
        embeddings.answer(read(dimensions=5), [VECTOR], 1)


def test_each_input_is_an_attempt_that_draws_nothing():
    (one, two) = embeddings.attempts(read(input=["a", "b"], pooling="mean"), 7, "t")
    assert (one.pooling, one.parameters.max_tokens, one.trace, two.prompt[0].text) == ("mean", 0, "t", "b")


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.data())
def test_a_shortened_vector_has_length_one_and_points_the_same_way(values: list[float], data: st.DataObject):
    kept = data.draw(st.integers(1, len(values)))
    short = embeddings.shortened(array("f", values).tobytes(), kept)
    assert len(short) == kept
    length = math.sqrt(sum(value**2 for value in values[:kept]))
    if kept < len(values) and length > 1e-6:
        assert list(short) == pytest.approx([value / length for value in values[:kept]], abs=1e-5)
