"""Two ends of a link in memory: order, fairness, bounds, and any cut of the bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import DecodeError, LimitError
from mesh.frames import BODY_BYTES_MAX, Frame, Hello, Kind
from mesh.link import HEADER, OUTBOX_BYTES_MAX, PIECE_BYTES, Link

HELLO = Hello(1, "a" * 16, name="a")


def joined(ends: tuple[Link, Link] | None = None) -> tuple[Link, Link]:
    one, other = ends or (Link(HELLO), Link(Hello(1, "b" * 16, name="b")))
    other.input(one.output())
    one.input(other.output())
    return one, other


def drain(link: Link) -> bytes:
    data = b""
    while more := link.output():
        data += more
    return data


def test_the_ends_learn_who_the_other_is() -> None:
    one, other = joined()
    assert (one.peer.name, other.peer.name) == ("b", "a")


frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from([Kind.TOKENS, Kind.OPEN]),
        st.integers(1, 4),
        st.integers(0, 3),
        st.binary(max_size=90),
    ),
    max_size=20,
)


@given(frames, st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_any_cut_of_the_bytes_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    one, other = joined()
    for frame in sent:
        one.send(frame)
    data = drain(one)
    got = []
    for index in range(len(data)):
        cut = cuts[index % len(cuts)]
        got += other.input(data[:cut])
        data = data[cut:]
        if not data:
            break
    for flight in range(1, 5):
        assert [f for f in got if f.flight == flight] == [f for f in sent if f.flight == flight]


def test_a_large_body_is_cut_and_joined() -> None:
    one, other = joined()
    body = bytes(range(256)) * 1000
    one.send(Frame(Kind.OPEN, 1, 1, body))
    assert other.input(drain(one)) == [Frame(Kind.OPEN, 1, 1, body)]


def test_a_large_body_lets_another_flight_pass() -> None:
    one, other = joined()
    one.send(Frame(Kind.OPEN, 1, 1, b"x" * 10 * PIECE_BYTES))
    one.send(Frame(Kind.TOKENS, 2, 1, b"y"))
    first = other.input(one.output(2 * PIECE_BYTES))
    assert first == [Frame(Kind.TOKENS, 2, 1, b"y")]


def test_frames_of_no_flight_go_first() -> None:
    one, other = joined()
    one.send(Frame(Kind.TOKENS, 2, 1, b"y"))
    one.send(Frame(Kind.PING, body=b"\x91\x01"))
    assert [frame.kind for frame in other.input(drain(one))] == [Kind.PING, Kind.TOKENS]


def test_an_unknown_kind_is_skipped_and_counted() -> None:
    one, other = joined()
    one.send(Frame(200, 1, 1, b"from the future"))
    one.send(Frame(Kind.TOKENS, 1, 1, b"z"))
    assert other.input(drain(one)) == [Frame(Kind.TOKENS, 1, 1, b"z")]
    assert other.statistics.unknown == 1


def test_whoever_does_not_greet_is_refused() -> None:
    with pytest.raises(DecodeError, match="HELLO"):
        Link(HELLO).input(HEADER.pack(Kind.TOKENS, 0, 1, 0, 1))


def test_an_oversized_piece_is_refused_before_it_is_read() -> None:
    _, other = joined()
    with pytest.raises(DecodeError, match=str(PIECE_BYTES)):
        other.input(HEADER.pack(Kind.TOKENS, 0, 1, PIECE_BYTES + 1, 1))


def test_a_body_without_end_is_refused() -> None:
    _, other = joined()
    piece = HEADER.pack(Kind.OPEN, 1, 1, PIECE_BYTES, 1) + bytes(PIECE_BYTES)
    for _ in range(BODY_BYTES_MAX // PIECE_BYTES):
        assert other.input(piece) == []
    with pytest.raises(DecodeError, match=str(BODY_BYTES_MAX)):
        other.input(piece)


def test_a_peer_that_does_not_read_fills_its_outbox_and_no_more() -> None:
    one, _ = joined()
    large = Frame(Kind.OPEN, 1, 1, bytes(BODY_BYTES_MAX - BODY_BYTES_MAX // PIECE_BYTES * HEADER.size))
    for _ in range(OUTBOX_BYTES_MAX // BODY_BYTES_MAX):
        one.send(large)
    with pytest.raises(LimitError):
        one.send(large)
    assert one.outbox_bytes <= OUTBOX_BYTES_MAX


@given(st.binary(max_size=300))
def test_any_bytes_after_the_hello_give_frames_or_a_decode_error(data: bytes) -> None:
    _, other = joined()
    with contextlib.suppress(DecodeError):
        other.input(data)
