"""The network between hosts: datagrams, and what befalls them by rule.

Theory of operation. A path is an ordered pair of hosts. Its condition is the
fold of all rules that apply to it: cuts win, losses combine as independent,
delays add. Rules are data under a name, so a fault is laid down and lifted by
name, and the condition of a path is a pure function of the rules. Chance comes
from the path's own stream. A path that is cut loses datagrams silently; what it
does to byte streams is in `sim.pipe`.

Jitter is drawn per datagram, so they overtake each other as soon as it exceeds
their distance.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from mesh.effects import Address
from sim.stream import Stream, seed_of

if TYPE_CHECKING:
    from sim.host import Host

MTU_BYTES = 1400
"""Largest datagram that the mesh may send; a larger one is a failed check."""

Groups = tuple[tuple[str, ...], ...]


@attrs.frozen
class Rule:
    """What happens on the paths from some hosts to some hosts. None is everybody."""

    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    cut: bool = False
    """Nothing arrives; nobody is told."""
    loss: float = 0.0
    """Share of datagrams that vanish, 0 to 1; a lost segment of a stream is sent again."""
    duplicate: float = 0.0
    """Share of datagrams that arrive twice."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more delay, uniformly drawn for each datagram."""

    def applies(self, source: str, target: str) -> bool:
        """Whether the path is one of this rule's."""
        return (self.sources is None or source in self.sources) and (
            self.targets is None or target in self.targets
        )


@attrs.frozen
class Condition:
    """All rules of one path together."""

    cut: bool
    loss: float
    duplicate: float
    delay_s: float
    jitter_s: float


def condition(rules: tuple[Rule, ...]) -> Condition:
    """Fold the rules that apply to a path."""
    kept = kept_single = 1.0
    for rule in rules:
        kept *= 1.0 - rule.loss
        kept_single *= 1.0 - rule.duplicate
    return Condition(
        cut=any(rule.cut for rule in rules),
        loss=1.0 - kept,
        duplicate=1.0 - kept_single,
        delay_s=sum(rule.delay_s for rule in rules),
        jitter_s=sum(rule.jitter_s for rule in rules),
    )


def partition(groups: Groups) -> tuple[Rule, ...]:
    """Return rules that cut every path between different groups."""
    everybody = frozenset(name for group in groups for name in group)
    return tuple(Rule(frozenset(group), everybody - frozenset(group), cut=True) for group in groups)


@attrs.define
class NetworkStatistics:
    """Counters since the run began."""

    sent: int = 0
    delivered: int = 0
    bytes_sent: int = 0
    lost: int = 0
    cut: int = 0
    duplicated: int = 0
    nobody: int = 0
    """Datagrams to addresses where no process listens."""


@attrs.define
class Path:
    """One direction between two hosts."""

    chance: Stream
    condition: Condition


@attrs.define
class Network:
    """All paths. `at` is the world's agenda, `now` its clock."""

    seed: int
    now: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    base: Rule = Rule(delay_s=0.0003, jitter_s=0.0004)
    """The undisturbed network: one data centre."""
    hosts: dict[Address, "Host"] = attrs.Factory(dict)
    statistics: NetworkStatistics = attrs.Factory(NetworkStatistics)
    _rules: dict[str, tuple[Rule, ...]] = attrs.field(init=False, factory=dict)
    _paths: dict[tuple[str, str], Path] = attrs.field(init=False, factory=dict)

    def lay(self, name: str, *rules: Rule) -> None:
        """Put rules in force under a name, instead of those it had."""
        self._rules[name] = rules
        self._reconsider()

    def lift(self, name: str) -> None:
        """Take back the rules of a name, if it has any."""
        self._rules.pop(name, None)
        self._reconsider()

    def heal(self) -> None:
        """Take back every rule."""
        self._rules.clear()
        self._reconsider()

    def _reconsider(self) -> None:
        for (source, target), path in self._paths.items():
            path.condition = self._condition(source, target)

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

    def delay_s(self, source: str, target: str) -> float:
        """Draw the time that something takes on a path."""
        path = self.path(source, target)
        return path.condition.delay_s + path.condition.jitter_s * path.chance.random()

    def send(self, source: "Host", address: Address, data: bytes) -> None:
        """Send a datagram; it arrives once, twice or never."""
        self.statistics.sent += 1
        self.statistics.bytes_sent += len(data)
        target = self.hosts.get(address)
        if target is None:
            self.statistics.nobody += 1
            return
        path = self.path(source.name, target.name)
        if path.condition.cut:
            self.statistics.cut += 1
        elif path.condition.loss and path.chance.random() < path.condition.loss:
            self.statistics.lost += 1
        else:
            self._post(path, source.address, target, data)

    def _post(self, path: Path, source: Address, target: "Host", data: bytes) -> None:
        condition = path.condition
        arrive = partial(self._arrive, source, target, data)
        self.at(self.now() + condition.delay_s + condition.jitter_s * path.chance.random(), arrive)
        if condition.duplicate and path.chance.random() < condition.duplicate:
            self.statistics.duplicated += 1
            self.at(self.now() + condition.delay_s + 2 * condition.jitter_s * path.chance.random(), arrive)

    def _arrive(self, source: Address, target: "Host", data: bytes) -> None:
        if target.datagram(source, data):
            self.statistics.delivered += 1
        else:
            self.statistics.nobody += 1
