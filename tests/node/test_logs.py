"""One event is one line, whoever chose the words in it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.logs import FIELD_CHARACTERS_MAX, Level, Log, open_log

MOMENT = 1_700_000_000.25


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def logged(level: str = "info", **fields: object) -> str:
    stream = io.StringIO()
    Log(stream, Level[level.upper()], clock=lambda: MOMENT).info("flight moved", **fields)
    return stream.getvalue()


def test_an_event_is_time_level_event_and_fields():
    assert logged(flight=7, worker="b", pause_s=0.123456789) == (
        '2023-11-14T22:13:20.250Z info "flight moved" flight=7 worker=b pause_s=0.123457\n'
    )


@given(st.text())
def test_a_value_never_breaks_its_line(text: str):
    line = logged(value=text)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_a_long_value_is_cut():
    assert len(logged(value="x" * 10_000)) < FIELD_CHARACTERS_MAX + 100


def test_less_important_events_are_left_out():
    assert logged("warning") == ""


def test_nobody_stops_because_the_log_cannot_be_written():
    Log(Gone()).info("unheard")


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)]
)
def test_colour_is_for_terminals_that_want_it(environment: dict[str, str], coloured: bool):
    stream = Terminal()
    open_log("debug", environment, stream).error("lost")
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert " error" in stream.getvalue() or coloured


def test_a_pipe_gets_no_colour():
    stream = io.StringIO()
    open_log("debug", {}, stream).debug("seen")
    assert "\x1b[" not in stream.getvalue()
