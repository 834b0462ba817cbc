"""The network between hosts: datagrams, and what befalls them by rule.

Theory of operation. A path is an ordered pair of hosts. Its condition is the
fold of all rules that apply to it (`sim.rule`). Rules are data under a name, so a
fault is laid down and lifted by name, and the condition of a path is a pure
function of the rules. Chance comes from the path's own stream. A path that is cut
loses datagrams silently; what it does to byte streams is in `sim.pipe`.

    sent -> cut, lost, too large                      nobody is told
         -> held while the path is clogged            until the rule is lifted
         -> spoilt: doubled, replayed, flipped ...    each copy goes its own way
         -> arrives after delay, jitter, tail         or finds nobody

Jitter is drawn per datagram, so they overtake each other as soon as it exceeds
their distance.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from mesh.effects import Address
from sim.rule import Condition, Rule, condition
from sim.stream import Stream, seed_of

if TYPE_CHECKING:
    from sim.host import Host

MTU_BYTES = 1400
"""Largest datagram that the mesh may send; a larger one is a failed check."""

HELD_MAX = 4096
"""Most datagrams that a clogged path holds; further ones are lost."""

TAIL_INDEX = 1.5
"""Of the Pareto distribution: finite mean, no variance."""

TAIL_FACTOR_MAX = 100.0
"""Most that a tail takes, in least tails."""

PADDING = bytes(2 * MTU_BYTES)


@attrs.define
class NetworkStatistics:
    """Counters since the run began."""

    sent: int = 0
    delivered: int = 0
    bytes_sent: int = 0
    lost: int = 0
    cut: int = 0
    too_large: int = 0
    held: int = 0
    duplicated: int = 0
    spoilt: int = 0
    checksum: int = 0
    """Datagrams that the receiving kernel found damaged."""
    nobody: int = 0
    """Datagrams to addresses where no process listens."""
    longest_s: float = 0.0
    """Longest time that a datagram, a segment or a copy was under way."""


@attrs.define
class Path:
    """One direction between two hosts."""

    chance: Stream
    condition: Condition
    bad: bool = False
    """Within a burst of loss."""
    held: list[Callable[[], None]] = attrs.Factory(list)
    """What is to be done when the clog is gone."""


def nobody_counts(_kind: str) -> None:
    """Count no bites."""


@attrs.define
class Network:
    """All paths. `at` is the world's agenda, `now` its clock."""

    seed: int
    now: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    base: Rule = Rule(delay_s=0.0003, jitter_s=0.0004)
    """The undisturbed network: one data centre."""
    hosts: dict[Address, "Host"] = attrs.Factory(dict)
    hidden: dict[Address, str] = attrs.Factory(dict)
    """Addresses at which nothing new comes in although a host has them, and the fault that did it."""
    statistics: NetworkStatistics = attrs.Factory(NetworkStatistics)
    bite: Callable[[str], None] = nobody_counts
    """Called with the kind of fault that hit a packet."""
    _rules: dict[str, tuple[Rule, ...]] = attrs.field(init=False, factory=dict)
    _paths: dict[tuple[str, str], Path] = attrs.field(init=False, factory=dict)

    # -- rules ------------------------------------------------------------------------------------

    def lay(self, name: str, *rules: Rule) -> None:
        """Put rules in force under a name, instead of those it had."""
        self._rules[name] = rules
        self._reconsider()

    def lift(self, name: str) -> None:
        """Take back the rules of a name, if it has any."""
        self._rules.pop(name, None)
        self._reconsider()

    @property
    def laid(self) -> tuple[str, ...]:
        """The names of the rules in force."""
        return tuple(self._rules)

    def heal(self) -> None:
        """Take back every rule."""
        self._rules.clear()
        self.hidden.clear()
        self._reconsider()

    def _reconsider(self) -> None:
        for (source, target), path in self._paths.items():
            path.condition = self._condition(source, target)
            if path.held and not path.condition.clog:
                held, path.held = path.held, []
                for go in held:
                    go()

    def _condition(self, source: str, target: str) -> Condition:
        laid = [rule for rules in self._rules.values() for rule in rules if rule.applies(source, target)]
        return condition((self.base, *laid))

    def path(self, source: str, target: str) -> Path:
        """Return the path from one host to another."""
        path = self._paths.get((source, target))
        if path is None:
            chance = Stream(seed_of(self.seed, "path", source, target))
            path = Path(chance, self._condition(source, target))
            self._paths[source, target] = path
        return path

    def blame(self, path: Path, trouble: str) -> None:
        """Count a packet that was hit for the faults that did it."""
        if path.condition.blame:
            for kind in path.condition.faults(trouble):
                self.bite(kind)

    # -- time and loss, for datagrams and segments alike ------------------------------------------

    def delay_s(self, source: str, target: str) -> float:
        """Draw the time that something takes on a path."""
        return self.time_on(self.path(source, target))

    def time_on(self, path: Path) -> float:
        """Draw the time that something takes on a path."""
        here = path.condition
        taken_s = here.delay_s + here.jitter_s * path.chance.random()
        if here.blame:
            self.blame(path, "delay_s")
            self.blame(path, "jitter_s")
        if here.tail and path.chance.random() < here.tail:
            self.blame(path, "tail")
            stretch = (1.0 - path.chance.random()) ** (-1.0 / TAIL_INDEX)
            taken_s += here.tail_s * min(TAIL_FACTOR_MAX, stretch)
        self.statistics.longest_s = max(self.statistics.longest_s, taken_s)
        return taken_s

    def loses(self, path: Path) -> bool:
        """Draw whether the next packet of a path is lost."""
        here = path.condition
        if here.burst is not None:
            turn = here.burst.end if path.bad else here.burst.begin
            path.bad ^= path.chance.random() < turn
            if path.bad:
                self.blame(path, "burst")
                return True
        if here.loss and path.chance.random() < here.loss:
            self.blame(path, "loss")
            return True
        return False

    # -- datagrams --------------------------------------------------------------------------------

    def send(self, source: "Host", address: Address, data: bytes) -> None:
        """Send a datagram; it arrives once, more often or never."""
        self.statistics.sent += 1
        self.statistics.bytes_sent += len(data)
        target = self.hosts.get(address)
        if target is None or address in self.hidden:
            self.statistics.nobody += 1
            if address in self.hidden:
                self.bite(self.hidden[address])
            return
        path = self.path(source.name, target.name)
        if not self._is_stopped(path, len(data)):
            self._forward(path, source.seen_as or source.address, target, data)

    def _is_stopped(self, path: Path, size: int) -> bool:
        here = path.condition
        if here.udp_cut:
            self.statistics.cut += 1
            self.blame(path, "udp_cut")
        elif here.mtu_bytes and size > here.mtu_bytes:
            self.statistics.too_large += 1
            self.blame(path, "mtu_bytes")
        elif self.loses(path):
            self.statistics.lost += 1
        else:
            return False
        return True

    def _forward(self, path: Path, source: Address, target: "Host", data: bytes) -> None:
        if not path.condition.clog:
            self._post(path, source, target, data)
        elif len(path.held) < HELD_MAX:
            self.statistics.held += 1
            self.blame(path, "clog")
            path.held.append(partial(self._release, path, self.now(), source, target, data))

    def _release(self, path: Path, since: float, source: Address, target: "Host", data: bytes) -> None:
        self.statistics.longest_s = max(self.statistics.longest_s, self.now() - since)
        self._post(path, source, target, data)

    def _post(self, path: Path, source: Address, target: "Host", data: bytes) -> None:
        here = path.condition
        late_s = 0.0
        if here.is_spoilt:
            data = self._spoil(path, source, target, data)
        if here.reorder and path.chance.random() < here.reorder:
            self.blame(path, "reorder")
            late_s = here.reorder_s
        if data:
            self._arrive_in(self.time_on(path) + late_s, source, target, data)

    def _spoil(self, path: Path, source: Address, target: "Host", data: bytes) -> bytes:
        """Send the copies, and return what becomes of the datagram itself; nothing if a kernel drops it."""
        here, draw = path.condition, path.chance.random
        if here.duplicate and draw() < here.duplicate:
            self.statistics.duplicated += 1
            self.blame(path, "duplicate")
            self._arrive_in(self.time_on(path) + here.jitter_s * draw(), source, target, data)
        if here.replay and draw() < here.replay:
            self.blame(path, "replay")
            self._arrive_in(here.replay_s * draw(), source, target, data)
        for trouble, spoil in SPOILERS.items():
            share = getattr(here, trouble)
            if share and draw() < share:
                self.statistics.spoilt += 1
                self.blame(path, trouble)
                data = spoil(data, draw())
                if trouble == "flip" and not here.unchecked:
                    self.statistics.checksum += 1
                    return b""
        return data

    def _arrive_in(self, seconds: float, source: Address, target: "Host", data: bytes) -> None:
        self.statistics.longest_s = max(self.statistics.longest_s, seconds)
        self.at(self.now() + seconds, partial(self._arrive, source, target, data))

    def _arrive(self, source: Address, target: "Host", data: bytes) -> None:
        if target.datagram(source, data):
            self.statistics.delivered += 1
        else:
            self.statistics.nobody += 1


def _flipped(data: bytes, draw: float) -> bytes:
    bit = int(draw * len(data) * 8)
    spoilt = bytearray(data)
    spoilt[bit >> 3] ^= 1 << (bit & 7)
    return bytes(spoilt)


def _truncated(data: bytes, draw: float) -> bytes:
    return data[: int(draw * len(data))]


def _oversized(data: bytes, draw: float) -> bytes:
    return data + PADDING[: MTU_BYTES + int(draw * MTU_BYTES)]


SPOILERS: dict[str, Callable[[bytes, float], bytes]] = {
    "flip": _flipped,
    "truncate": _truncated,
    "oversize": _oversized,
}
"""What each trouble makes of a datagram, given a number of [0, 1)."""
