"""Many processes of one contender in one private network: started, read, stopped, killed.

One thread does everything: it reads all logs while it waits, and stamps each line as it is read.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.space import SHORT_LIVED, Side, Space
from tests.bench.mesh.views import Event, Views

READ_BYTES = 1 << 16
START_S = 120.0
"""A herd that does not take part by then has failed to start."""
PORT = 7001
"""Where the first node of a side binds; the others follow."""
STARTING_MAX = 4
"""So many processes start at once, unless a burst is wanted."""
TICKS = os.sysconf("SC_CLK_TCK")
LAST_LINES = 20
LOOK_S = 0.05
"""How often a condition is looked at; times come from the events' own stamps."""


class HerdError(Exception):
    """The processes did not do what was asked in time; the message says what."""


@attrs.define
class Node:
    """One process."""

    name: str
    bind: str
    side: Side
    process: subprocess.Popen[bytes]
    ready_at: float | None = None
    partial: bytes = b""
    lines: list[str] = attrs.Factory(list)
    """The last of its log."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Where it binds."""
        return int(self.bind.rpartition(":")[2])

    @property
    def cpu_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def switches(self) -> int:
        """How often its threads have gone to sleep: its wake-ups."""
        return sum(
            int(line.split()[1])
            for status in Path(f"/proc/{self.pid}/task").glob("*/status")
            for line in status.read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory, and its proportional share: pages of n processes count for an nth."""
        rows = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {row.split(":")[0]: int(row.split()[1]) * 1024 for row in rows}
        return sizes["Rss"], sizes["Pss"]


class Herd:
    """The processes of one contender. A context manager: all are killed at the end."""

    def __init__(self, contender: Contender, sides: int = 1) -> None:
        self.contender = contender
        self.space = Space(sides)
        self.nodes: dict[str, Node] = {}
        self.views = Views()
        self._gone: list[Node] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "Herd":
        return self

    def __exit__(self, *_: object) -> None:
        for node in [*self.nodes.values(), *self._gone]:
            node.process.kill()
            node.process.wait()
        self._selector.close()
        self.space.__exit__()

    # -- processes --------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Who runs, in order of their start."""
        return tuple(self.nodes)

    def bind_of(self, number: int) -> str:
        """Where the node of this number binds; sides take turns."""
        side = self.space.sides[number % len(self.space.sides)]
        return f"{side.address}:{PORT + number}"

    def start(self, number: int, seeds: Sequence[str]) -> Node:
        """Start one process, whose log is read from now on."""
        side = self.space.sides[number % len(self.space.sides)]
        name, bind = f"n{number}", self.bind_of(number)
        others = [seed for seed in seeds if seed != bind]
        words = side.words(*self.contender.command(name, bind, others))
        process = subprocess.Popen(
            [*SHORT_LIVED, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        node = self.nodes[name] = Node(name, bind, side, process)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, node)
        return node

    def start_all(self, count: int, seeds: int = 1) -> None:
        """Start so many, a few at a time, the first `seeds` of them as seeds of all; wait until all see all.

        Raises HerdError.
        """
        binds = [self.bind_of(number) for number in range(seeds)]
        for number in range(count):
            self.start(number, binds)
            self.until(lambda: self._starting < STARTING_MAX, START_S, "nodes to start")
        self.wait_complete()

    def wait_complete(self, seconds: float = START_S) -> None:
        """Wait until every node that runs sees all of them. Raises HerdError."""
        self.until(lambda: self.views.all_complete(self.names), seconds, "all nodes to see all")

    @property
    def _starting(self) -> int:
        return sum(node.ready_at is None for node in self.nodes.values())

    def kill(self, name: str) -> float:
        """SIGKILL one process and forget it; return when."""
        at = self.remove(name, signal.SIGKILL)
        self._gone.pop().process.wait()
        return at

    def remove(self, name: str, number: signal.Signals) -> float:
        """Send one process a signal after which it counts no more, and return when."""
        node = self.nodes.pop(name)
        at = time.monotonic()
        node.process.send_signal(number)
        self._gone.append(node)
        self._unregister(node)
        return at

    def _unregister(self, node: Node) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(node.process.stdout)

    def signal(self, names: Sequence[str], number: signal.Signals) -> None:
        """Send a signal to some, as fast as can be."""
        for name in names:
            self.nodes[name].process.send_signal(number)

    # -- time -------------------------------------------------------------------------------------

    def rest(self, seconds: float) -> None:
        """Read logs for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)

    def holds(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Read logs until the condition holds, or for so long; return whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.rest(min(left, LOOK_S))
        return True

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Read logs until the condition holds. Raises HerdError after so long."""
        if not self.holds(condition, seconds):
            raise HerdError(f"waited {seconds:g} s for {what}\n{self._last_words()}")

    # -- logs -------------------------------------------------------------------------------------

    def _read(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            for at, line in self._lines(key.data):
                self._take(key.data, at, line)

    def _lines(self, node: Node) -> Iterator[tuple[float, str]]:
        assert node.process.stdout is not None
        data = node.process.stdout.read(READ_BYTES)
        at = time.monotonic()
        if data is None:
            return
        if not data:
            self._unregister(node)
            return
        *whole, node.partial = (node.partial + data).split(b"\n")
        yield from ((at, line.decode(errors="replace")) for line in whole)

    def _take(self, node: Node, at: float, line: str) -> None:
        node.lines = [*node.lines[1 - LAST_LINES :], line]
        if node.ready_at is None and self.contender.ready in line:
            node.ready_at = at
        if said := self.contender.said(line):
            kind, subject = said
            self.views.feed(Event(at, node.name, subject, kind))

    def _last_words(self) -> str:
        names = self.names
        lacking = [node for node in self.nodes.values() if not self.views.is_complete(node.name, names)]
        return "\n".join(f"{node.name}: {line}" for node in lacking[:2] for line in node.lines[-5:])
