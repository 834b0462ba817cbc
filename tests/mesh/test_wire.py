"""Laws of records on the wire: round trip, growth at the end, totality."""

import contextlib

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import wire
from mesh.errors import DecodeError
from mesh.wire import field, flag, integer, many, optional, pair, raw, real, record, string


@attrs.frozen
class Leaf:
    name: str = field(string(8))
    weight: float = field(real, 0.5)


@attrs.frozen
class Tree:
    count: int = field(integer(0, 9))
    leaves: tuple[Leaf, ...] = field(many(record(Leaf), 3), ())
    sure: bool = field(flag, False)
    bias: tuple[tuple[int, float], ...] = field(many(pair(integer(), real)), ())
    blob: bytes = field(raw(4), b"")
    top: int | None = field(optional(integer()), None)


LEAVES = st.builds(Leaf, st.text(max_size=2), st.floats(-1e300, 1e300))
TREES = st.builds(
    Tree,
    st.integers(0, 9),
    st.lists(LEAVES, max_size=3).map(tuple),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 99), st.floats(-9, 9)), max_size=3).map(tuple),
    st.binary(max_size=4),
    st.none() | st.integers(0, 2**32 - 1),
)


@given(TREES)
def test_what_is_packed_is_unpacked(tree: Tree) -> None:
    assert wire.unpack(Tree, wire.pack(tree)) == tree


@given(TREES, st.lists(st.integers() | st.text() | st.none(), max_size=3))
def test_elements_beyond_the_known_fields_are_ignored(tree: Tree, more: list[object]) -> None:
    array = [*wire.to_array(tree), *more]
    assert wire.from_array(Tree, array) == tree


@given(TREES, st.integers(1, 6))
def test_missing_elements_take_their_default(tree: Tree, kept: int) -> None:
    old = wire.from_array(Tree, wire.to_array(tree)[:kept])
    for index, attribute in enumerate(attrs.fields(Tree)):
        expected = getattr(tree, attribute.name) if index < kept else attribute.default
        assert getattr(old, attribute.name) == expected


def test_a_missing_field_without_default_is_an_error() -> None:
    with pytest.raises(DecodeError, match="`count`"):
        wire.from_array(Tree, [])


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        wire.unpack(Tree, data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@given(st.lists(anything, max_size=8))
def test_any_array_gives_a_record_or_a_decode_error(array: list[object]) -> None:
    with contextlib.suppress(DecodeError):
        wire.unpack(Tree, msgpack.packb(array))


@pytest.mark.parametrize(
    "array",
    [
        [10],
        [-1],
        [True],
        [1.0],
        [1, [["name"]] * 4],
        [1, [["far too long"]]],
        [1, [["x", float("nan")]]],
        [1, [["x", float("inf")]]],
        [1, [], 1],
        [1, [], True, [[1]]],
        [1, [], True, [], b"12345"],
        [1, [], True, [], b"", "4"],
        {"count": 1},
        "tree",
        None,
    ],
)
def test_what_breaks_a_bound_is_refused(array: object) -> None:
    with pytest.raises(DecodeError):
        wire.unpack(Tree, msgpack.packb(array))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DecodeError):
        wire.unpack(Tree, b"\x91" * 100_000 + b"\x01")


def test_a_value_of_a_thousand_levels_is_an_error_like_any_other():
    with pytest.raises(DecodeError):
        wire.unpack(Leaf, b"\x91" * 1000 + b"\x90")


@given(TREES)
def test_the_first_field_can_be_read_alone(tree: Tree) -> None:
    assert wire.first(wire.pack(tree)) == tree.count
