"""What a long job shows: what runs, how far it is, how fast, how long it will take."""

import sys
import time
from collections.abc import Callable

import attrs

EVERY_TERMINAL_S = 0.2
EVERY_PIPE_S = 10.0
"""Seconds between two progress lines when nobody sits before a terminal."""

BAR = 24
"""Characters of the bar."""


def bar(share: float) -> str:
    """Return a bar of fixed width."""
    done = round(min(1.0, max(0.0, share)) * BAR)
    return "#" * done + "." * (BAR - done)


@attrs.define
class Progress:
    """Of a job whose size is known. Shown on standard error: in place on a terminal, else a line now and then."""

    total: float
    """How much is to be done, in `unit`."""
    unit: str = "virtual s"
    clock: Callable[[], float] = time.monotonic
    label: str = ""
    done: float = 0.0
    """What earlier parts have done."""
    note: str = ""
    """What has been found so far."""
    _began: float = attrs.field(init=False)
    _shown: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self._shown = self.clock()

    def begin(self, label: str) -> None:
        """A part begins."""
        self.label = label

    def end(self, amount: float) -> None:
        """A part has ended, which was so much."""
        self.done += amount

    def watch(self, amount: float = 0.0) -> None:
        """Show a line if it is time; the part under way has done `amount`."""
        now = self.clock()
        terminal = sys.stderr.isatty()
        if now - self._shown < (EVERY_TERMINAL_S if terminal else EVERY_PIPE_S):
            return
        self._shown = now
        line = self.line(amount, now - self._began)
        sys.stderr.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")
        sys.stderr.flush()

    def line(self, amount: float, elapsed_s: float) -> str:
        """Return the line: what, how far, rate, time left, what was found."""
        done = self.done + amount
        share = min(1.0, done / self.total) if self.total else 0.0
        left_s = elapsed_s / share - elapsed_s if share else 0.0
        rate = done / elapsed_s if elapsed_s else 0.0
        found = f"  {self.note}" if self.note else ""
        return (
            f"{self.label}  [{bar(share)}] {share:4.0%}  {rate:.1f} {self.unit}/s  {left_s:.0f} s left{found}"
        )

    def clear(self) -> None:
        """Take the line from the terminal."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
