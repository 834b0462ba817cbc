"""The quick way and the tables agree: the same bytes out, the same values in, the same bytes refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh import codec, pulse
from mesh.errors import DecodeError
from mesh.messages import Ack, Gossip, Ping

NODES = st.one_of(st.integers(1, 2**64 - 1), st.integers(1, 2**33)).map("{:016x}".format)
NONCES = st.one_of(st.integers(0, 2**48 - 1), st.integers(0, 2**33))
MESSAGES = st.one_of(
    st.builds(Ping, NODES, NONCES, NODES),
    st.builds(Gossip, NODES),
    st.builds(Ack, NODES, NONCES, st.binary(min_size=8, max_size=8)),
)
LONG = f"{2**63:016x}"


def by_tables(data):
    try:
        return codec._decode(data, codec.HEADER_BYTES, [], lambda mark: False)
    except DecodeError:
        return None


def by_either(data):
    try:
        return codec.decode(data)
    except DecodeError:
        return None


@given(MESSAGES)
def test_both_ways_write_the_same_bytes(message):
    assert codec.item(message) == codec._item(message)


@given(MESSAGES)
def test_both_ways_read_the_same_value(message):
    data = codec.packet([codec.item(message)])
    assert by_either(data) == by_tables(data)
    assert codec.decode(data).message == message


@given(
    MESSAGES, st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=3), st.binary(max_size=40)
)
@example(Ping(LONG, 2**40, LONG), [(8, 0)], b"")
def test_both_ways_refuse_the_same_bytes(message, flips, tail):
    """Bytes changed anywhere behind the header, and anything behind the message."""
    data = bytearray(codec.packet([codec.item(message)]) + tail)
    for at, value in flips:
        if codec.HEADER_BYTES <= at < len(data):
            data[at] = value
    assert by_either(bytes(data)) == by_tables(bytes(data))


@given(MESSAGES, st.integers(0, 40))
def test_both_ways_refuse_what_is_cut_short(message, length):
    data = codec.packet([codec.item(message)])[: codec.HEADER_BYTES + length]
    assert by_either(data) == by_tables(data)


@pytest.mark.parametrize(
    ("message", "at", "value"),
    [
        (Ping(LONG, 2**40, LONG), slice(5, 13), bytes(8)),
        (Ping(LONG, 2**40, LONG), slice(23, 31), bytes(8)),
        (Ping(LONG, 2**40, LONG), slice(14, 16), b"\x00\x01"),
        (Ack(LONG, 2**40, bytes(8)), slice(5, 13), bytes(8)),
        (Gossip(LONG), slice(5, 13), bytes(8)),
        (Ack(LONG, 2**40, bytes(8)), slice(14, 16), b"\x00\x01"),
    ],
)
def test_ids_of_nobody_and_nonces_out_of_range_are_refused(message, at, value):
    item = bytearray(codec.item(message))
    item[at] = value
    data = codec.packet([bytes(item)])
    assert by_tables(data) is None
    assert by_either(data) is None


def test_nearly_every_ping_and_ack_goes_the_quick_way():
    assert pulse.item(Ping(LONG, 2**40, LONG)) is not None
    assert pulse.item(Ack(LONG, 2**40, bytes(8))) is not None
    assert pulse.item(Gossip(LONG)) is not None
    assert pulse.read(codec.packet([codec.item(Ping(LONG, 2**40, LONG))]), codec.HEADER_BYTES) is not None
    assert pulse.item(Ping(f"{5:016x}", 2**40, LONG)) is None, "a small id takes fewer bytes"
