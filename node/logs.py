"""Logs: one line per event, `time level event key=value ...`, on standard error.

On a terminal the time is short and the level coloured (unless NO_COLOR is set); elsewhere the time is UTC
with its date. A value never breaks its line: what is not plain is quoted and escaped, as a peer or a client
may have chosen it.
"""

import enum
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import attrs

FIELD_CHARACTERS_MAX = 2048
"""Longest value of one field; the rest is cut and marked."""


class Level(enum.IntEnum):
    """How much an event matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


COLOURS = {Level.DEBUG: "\x1b[2m", Level.INFO: "\x1b[32m", Level.WARNING: "\x1b[33m", Level.ERROR: "\x1b[31m"}
PLAIN = "\x1b[0m"


@attrs.frozen
class Log:
    """Writes events to a stream; passed to whoever reports something, never global."""

    stream: TextIO
    level: Level = Level.INFO
    terminal: bool = False
    colour: bool = False
    name: str = ""
    """Whose log it is; put before each event, so that the lines of several nodes can be told apart."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    def debug(self, event: str, **fields: Any) -> None:
        self.write(Level.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self.write(Level.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self.write(Level.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self.write(Level.ERROR, event, fields)

    def write(self, level: Level, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line if the level is logged. A log that cannot be written stops nobody."""
        if level < self.level:
            return
        line = self.line(level, event, fields)
        try:
            self.stream.write(line)
            self.stream.flush()
        except (OSError, ValueError):  # the reader of the pipe has gone, or the stream is closed
            return

    def line(self, level: Level, event: str, fields: Mapping[str, Any]) -> str:
        """Return the line of an event, with its newline."""
        word = level.name.lower()
        word = f"{COLOURS[level]}{word:7}{PLAIN}" if self.colour else f"{word:7}" if self.terminal else word
        pairs = "".join(f" {plain(key)}={plain(value)}" for key, value in fields.items())
        name = f"{plain(self.name)} " if self.name else ""
        return f"{self.time()} {word} {name}{plain(event)}{pairs}\n"

    def time(self) -> str:
        """Return the time, as short as its reader can bear."""
        now = self.clock()
        milliseconds = int(now * 1000) % 1000
        if self.terminal:
            return time.strftime("%H:%M:%S", time.localtime(now)) + f".{milliseconds:03}"
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{milliseconds:03}Z"


def open_log(level: str, environment: Mapping[str, str], stream: TextIO | None = None, name: str = "") -> Log:
    """Return the log of this process: on standard error unless given, coloured where that can be seen."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    return Log(stream, Level[level.upper()], terminal, terminal and not environment.get("NO_COLOR"), name)


WORD = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII that needs neither quotes nor escapes: the usual case."""


def plain(value: Any) -> str:
    """Write a value as one word, quoted and escaped if it is not one."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(text) <= FIELD_CHARACTERS_MAX and WORD.fullmatch(text):
        return text
    if len(text) > FIELD_CHARACTERS_MAX:
        text = text[:FIELD_CHARACTERS_MAX] + "..."
    if text and text.isprintable() and not any(character in text for character in ' "=\\'):
        return text
    return json.dumps(text)
