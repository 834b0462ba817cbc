"""The condition of every path of a crowd, from the rules in force.

`sim.network` keeps a stream of chance for each path, which n squared paths of thousands of nodes
cannot afford; here each sender has one, and a path has only its condition, worked out when it is
first used and forgotten whenever a rule comes or goes.
"""

import random
from collections.abc import Sequence

import attrs

from sim.crowd_options import CrowdCounts
from sim.rule import Condition, Rule, condition

RELIABLE_TRIPS = 3
"""A handshake, then the data."""
RETRANSMIT_S = 0.2
"""First wait of TCP for a lost segment (Linux's least); doubles each time."""
RETRANSMITS_MAX = 6
CONDITIONS_MAX = 2**20
"""Conditions kept at once; beyond, they are all forgotten and worked out again."""


@attrs.define
class Paths:
    """Rules by name, and what they make of each path between two names."""

    base: Rule
    """The undisturbed network."""
    counts: CrowdCounts
    _rules: dict[str, tuple[Rule, ...]] = attrs.field(init=False, factory=dict)
    _conditions: dict[tuple[str, str], Condition] = attrs.field(init=False, factory=dict)

    @property
    def calm(self) -> bool:
        """Whether every path is the undisturbed one, and loses nothing."""
        return not self._rules and not (self.base.loss or self.base.duplicate or self.base.cut)

    def lay(self, name: str, *rules: Rule) -> None:
        """Put rules in force under a name, instead of those it had."""
        self._rules[name] = rules
        self._conditions.clear()

    def lift(self, name: str) -> None:
        """Take back the rules of a name, if it has any."""
        self._rules.pop(name, None)
        self._conditions.clear()

    def heal(self) -> None:
        """Take back every rule."""
        self._rules.clear()
        self._conditions.clear()

    def condition(self, source: str, target: str) -> Condition:
        """All rules of one path together."""
        known = self._conditions.get((source, target))
        if known is not None:
            return known
        if len(self._conditions) >= CONDITIONS_MAX:
            self._conditions.clear()
        laid = [rule for rules in self._rules.values() for rule in rules if rule.applies(source, target)]
        folded = self._conditions[source, target] = condition((self.base, *laid))
        return folded

    def trips_s(self, chance: random.Random, source: str, target: str, reliable: bool) -> Sequence[float]:
        """How long a packet takes, for each copy of it that arrives."""
        if self.calm:
            trips = RELIABLE_TRIPS if reliable else 1
            return (trips * (self.base.delay_s + self.base.jitter_s * chance.random()),)
        path = self.condition(source, target)
        if path.cut:
            self.counts.cut += 1
            return ()
        return (self.stream_s if reliable else self._datagram_s)(chance, path)

    def stream_s(self, chance: random.Random, path: Condition) -> Sequence[float]:
        """How long what is sent reliably takes: later for each lost segment; it is given up at last."""
        trip_s = RELIABLE_TRIPS * (path.delay_s + path.jitter_s * chance.random())
        wait_s = RETRANSMIT_S
        for _ in range(RETRANSMITS_MAX):
            if not path.loss or chance.random() >= path.loss:
                return (trip_s,)
            self.counts.lost += 1
            trip_s += wait_s
            wait_s *= 2
        return ()

    def _datagram_s(self, chance: random.Random, path: Condition) -> Sequence[float]:
        if path.loss and chance.random() < path.loss:
            self.counts.lost += 1
            return ()
        trip_s = path.delay_s + path.jitter_s * chance.random()
        if not path.duplicate or chance.random() >= path.duplicate:
            return (trip_s,)
        self.counts.duplicated += 1
        return (trip_s, path.delay_s + 2 * path.jitter_s * chance.random())
