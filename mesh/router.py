"""The router of one entry: which of the workers that qualify is asked, by the policy that its operator chose.

Every policy is a score, the lowest is asked, chance decides between equals; so one account explains them all:

    least_wait         expected wait in seconds, those within `near_ratio` of each other equal (`mesh.route`)
    two_choices        the same, of two workers drawn at random (Mitzenmacher, IEEE TPDS 2001)
    round_robin        number of the turn in which it was asked last
    least_connections  flights under way there
    weighted           smooth weighted turns, as nginx takes them: each earns its share of the measured
                       speed of all, who has most is asked and pays one turn
    latency            moving average of the time to the first token, halved for every `latency_memory_s`
                       without news, times one and the flights that this entry has there (as Finagle's EWMA)
    zone_first         expected wait; outside this entry's zone, or where that is `zone_wait_s` or more,
                       `zone_wait_s` is added: the own zone is asked while it has room, then whoever waits least

Before the first two, the home of the prompt's prefix is asked, if it has one and there is room (`mesh.affinity`).
A flight that goes on elsewhere prefers an equal numerical policy to any score.

Invariants: a worker is chosen iff one qualifies; what is remembered of workers is bounded by `WORKERS_MAX`.
"""

import heapq
import random
from typing import TypeVar

import attrs

from mesh.affinity import home_of
from mesh.route import (
    Candidate,
    Policy,
    RouteOptions,
    Wanted,
    expected_wait_s,
    qualifies,
    running_there,
    speed_of,
)

SHOWN_MAX = 16
"""Most candidates that a choice lists, the best ones."""

WORKERS_MAX = 4096
"""Most workers whose turns, credit or latency are remembered; the one remembered longest is forgotten."""


@attrs.frozen
class Scored:
    """A candidate as it was weighed."""

    candidate: Candidate
    wait_s: float
    """Expected wait."""
    score: float
    """By the policy; the lowest is asked."""


@attrs.frozen
class Choice:
    """What was chosen, and among whom."""

    chosen: Scored | None
    why: str
    best: tuple[Scored, ...] = ()
    """The best at most `SHOWN_MAX`, in the order of their scores."""
    known: int = 0
    """Workers that serve the model, as far as this entry knows."""
    able: int = 0
    """Those among them that could be asked."""


Value = TypeVar("Value")

WHY: dict[Policy, str] = {
    Policy.LEAST_WAIT: "least expected wait",
    Policy.TWO_CHOICES: "the lesser wait of two drawn at random",
    Policy.ROUND_ROBIN: "asked longest ago",
    Policy.LEAST_CONNECTIONS: "fewest flights under way",
    Policy.WEIGHTED: "its turn by speed",
    Policy.LATENCY: "soonest first token",
    Policy.ZONE_FIRST: "least expected wait, own zone first",
}


@attrs.define
class Router:
    """Chooses for one entry; remembers what the policies need."""

    options: RouteOptions
    rng: random.Random
    _turn: int = 0
    _turns: dict[str, int] = attrs.field(init=False, factory=dict)
    _credits: dict[str, float] = attrs.field(init=False, factory=dict)
    _latencies_s: dict[str, tuple[float, float]] = attrs.field(init=False, factory=dict)
    """node -> moving average, and when it was renewed."""

    def choose(self, now_s: float, candidates: tuple[Candidate, ...], wanted: Wanted) -> Choice:
        """Choose whom to ask next, at a monotonic time in seconds. O(candidates)."""
        able = [c for c in candidates if qualifies(c, wanted)]
        if not able:
            return Choice(None, _why_nobody(candidates, wanted), known=len(candidates))
        same = [c for c in able if c.policy == wanted.policy] if wanted.policy else []
        pool = same or able
        scored = self._score(now_s, self._drawn(pool))
        best = [one for one, _ in heapq.nsmallest(SHOWN_MAX, scored, key=lambda one: (one[0].score, one[1]))]
        why = WHY[self.options.policy]
        home = self._home(pool, wanted)
        if home is not None:
            best, why = _first(home, best, self.options), "home of the prompt's prefix"
        self._asked(best[0].candidate, pool)
        why += ", of those with the numerical policy of its first tokens" if same else ""
        return Choice(best[0], why, tuple(best), len(candidates), len(able))

    def _home(self, pool: list[Candidate], wanted: Wanted) -> Candidate | None:
        if not wanted.prefix or not heeds_prefixes(self.options):
            return None
        return home_of(wanted.prefix, wanted.cost_tokens, pool, self.options)

    def first_token(self, now_s: float, node: str, after_s: float) -> None:
        """A worker's first token came so long after it was asked."""
        before, _ = self._latencies_s.get(node, (after_s, now_s))
        average = before + self.options.latency_share * (after_s - before)
        _keep(self._latencies_s, node, (average, now_s))

    def _latency_s(self, now_s: float, node: str) -> float:
        if node not in self._latencies_s:
            return self.options.latency_guess_s
        average, at_s = self._latencies_s[node]
        return average * 0.5 ** ((now_s - at_s) / self.options.latency_memory_s)

    def _drawn(self, pool: list[Candidate]) -> list[Candidate]:
        if self.options.policy is Policy.TWO_CHOICES and len(pool) > 2:
            return self.rng.sample(pool, 2)
        return pool

    def _score(self, now_s: float, pool: list[Candidate]) -> list[tuple[Scored, float]]:
        """Score each, with the chance that decides between equals."""
        speed = sum(map(self._speed, pool))
        scored = []
        for candidate in pool:
            wait_s, chance = expected_wait_s(candidate, self.options), self.rng.random()
            score = self._score_of(now_s, candidate, wait_s, chance, speed)
            scored.append((Scored(candidate, wait_s, score), chance))
        return scored

    def _score_of(
        self, now_s: float, candidate: Candidate, wait_s: float, chance: float, speed: float
    ) -> float:
        node, options = candidate.node, self.options
        match options.policy:
            case Policy.ROUND_ROBIN:
                return self._turns.get(node, 0)
            case Policy.LEAST_CONNECTIONS:
                return running_there(candidate, options)
            case Policy.WEIGHTED:
                return -self._credits.get(node, 0.0) - self._speed(candidate) / speed
            case Policy.LATENCY:
                return self._latency_s(now_s, node) * (1 + candidate.sent_flights)
        near_s = wait_s * (1 + options.near_ratio * (chance - 0.5))
        if options.policy is not Policy.ZONE_FIRST:
            return near_s
        at_home = candidate.zone == options.zone and near_s < options.zone_wait_s
        return near_s if at_home else near_s + options.zone_wait_s

    def _speed(self, candidate: Candidate) -> float:
        return speed_of(candidate, self.options)

    def _asked(self, chosen: Candidate, pool: list[Candidate]) -> None:
        if self.options.policy is Policy.ROUND_ROBIN:
            self._turn += 1
            _keep(self._turns, chosen.node, self._turn)
        elif self.options.policy is Policy.WEIGHTED:
            speed = sum(map(self._speed, pool))
            for one in pool:
                paid = one is chosen
                credit = self._credits.get(one.node, 0.0) + self._speed(one) / speed - paid
                _keep(self._credits, one.node, credit)


def heeds_prefixes(options: RouteOptions) -> bool:
    """Whether the home of a prefix comes first."""
    return options.prefix_affinity and options.policy in (Policy.LEAST_WAIT, Policy.TWO_CHOICES)


def _first(home: Candidate, best: list[Scored], options: RouteOptions) -> list[Scored]:
    """Put the home before the others, which are listed as they were scored."""
    wait_s = expected_wait_s(home, options)
    others = [one for one in best if one.candidate is not home]
    return [Scored(home, wait_s, wait_s), *others][:SHOWN_MAX]


def _keep(memory: dict[str, Value], node: str, value: Value) -> None:
    memory.pop(node, None)
    memory[node] = value
    if len(memory) > WORKERS_MAX:
        del memory[next(iter(memory))]


def _why_nobody(candidates: tuple[Candidate, ...], wanted: Wanted) -> str:
    if not candidates:
        return "no worker serves the model"
    if all(c.node in wanted.declined for c in candidates):
        return "every worker has turned it down"
    return "no other worker has the weights of its first tokens"
