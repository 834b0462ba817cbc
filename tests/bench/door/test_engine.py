"""The engine that computes nothing still keeps the protocol of engines."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.frames import Cancel, Finish, Frame, Hello, Kind, Tokens
from mesh.link import PROTOCOL, Link
from tests.bench.door.clients import END, EVENT, Reading
from tests.bench.door.engine import NullEngine

OPEN = Frame(Kind.OPEN, 7, 1, b"")


def frames_of(data: bytes) -> list[Frame]:
    """Read an engine's bytes as its node does."""
    writer, reader = (Link(Hello(PROTOCOL, name)) for name in ("engine", "node"))
    return reader.input(writer.output() + data)[1:]


def check_whole(frames: list[Frame], tokens: int) -> None:
    """Check that an attempt was accepted, and every token told once and in order, before its end."""
    assert [frame.kind for frame in frames] == [Kind.ACCEPT, *[Kind.TOKENS] * tokens, Kind.FINISH]
    assert [Tokens.read(frame).position for frame in frames[1:-1]] == [*range(tokens)]
    assert Finish.read(frames[-1]).position == tokens
    assert {(frame.flight, frame.attempt) for frame in frames} == {(7, 1)}


@given(st.integers(1, 20))
def test_without_a_pace_an_attempt_is_answered_whole(tokens: int):
    check_whole(frames_of(NullEngine(tokens, 0.0).receive(0.0, OPEN)), tokens)


@given(st.integers(1, 20), st.lists(st.floats(0, 3), max_size=30))
def test_with_a_pace_no_token_comes_early_and_all_come(tokens: int, looks: list[float]):
    engine, now, said = NullEngine(tokens, 1.0), 0.0, b""
    said += engine.receive(now, OPEN)
    for wait in looks:
        now += wait
        said += engine.advance(now)
        assert sum(frame.kind == Kind.TOKENS for frame in frames_of(said)) == min(tokens, int(now))
    check_whole(frames_of(said + engine.advance(now + tokens)), tokens)
    assert not engine.streams


def test_a_cancelled_attempt_says_nothing_more():
    engine = NullEngine(5, 1.0)
    engine.receive(0.0, OPEN)
    engine.receive(0.5, Cancel("gone").frame(7, 1))
    assert engine.advance(100.0) == b""


@given(st.integers(1, 50), st.data())
def test_events_are_counted_once_however_their_bytes_are_cut(count: int, data: st.DataObject):
    text = b"HTTP/1.1 200 OK\r\n\r\n" + b'9\r\ndata: {"a":1}\n\n\r\n' * count + END[2:]
    cuts = sorted(data.draw(st.lists(st.integers(1, len(text) - 1), max_size=40, unique=True)))
    reading = Reading()
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert sum(reading.take(piece) for piece in pieces) == count == text.count(EVENT)
    assert reading.complete
