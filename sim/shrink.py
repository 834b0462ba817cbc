"""Make a failing scenario small: fewer clients, faults and nodes, a shorter time, plainer values.

Theory of operation. A scenario fails with a named check. Each pass offers smaller
scenarios; one that fails the same check is taken, and the passes begin anew, until
none is left that helps or the time is up. Lists are cut by delta debugging (Zeller and
Hildebrandt, 2002): halves first, then quarters, down to single items. A node is taken
away by renaming those above it, so that what is left is `node-0` to `node-(n-1)` again;
faults and clients that named it go with it.

A run is stopped once it has lasted well beyond the time at which the failure came, so
that runs that hold cost little. What chance decides changes when something is taken
away, so once nothing helps any more, steps that matter much are tried with a few other seeds.

The same check may fail for another reason in the smaller scenario; that is still a
failing scenario of this check, and much easier to read.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from mesh.swim_options import SwimOptions
from node.core import NodeOptions
from sim.scenario import Scenario, StopRun, run
from sim.world import WorldOptions

SLACK_S = 3.0
"""A run is given so much more virtual time than the failure took before."""

SEEDS_MORE = 2
"""Other seeds that a step which matters is tried with, once its own seed gives nothing more."""

NODES_MIN = 2
PLAIN = WorldOptions().network
EARLIEST_S = 0.5
NAME = re.compile(r"node-(\d+)")


@attrs.frozen
class Failure:
    """How a scenario failed."""

    scenario: Scenario
    check: str
    message: str
    at: float
    """Virtual seconds."""

    @property
    def events(self) -> int:
        """Faults and clients."""
        return len(self.scenario.strikes) + len(self.scenario.requests)

    @property
    def is_late(self) -> bool:
        """Whether it failed after the healing: a bound was not kept."""
        return self.at >= self.scenario.faults_end_s


def fail(scenario: Scenario, within_s: float | None = None) -> Failure | None:
    """Run a scenario for at most so much virtual time; return how it failed, or None."""

    def watch(time: float) -> None:
        if within_s is not None and time > within_s:
            raise StopRun

    try:
        result = run(scenario, watch)
    except StopRun:
        return None
    found = result.violation
    return Failure(scenario, found.check, found.message, result.world.time) if found else None


class TimeUp(Exception):
    """The time for shrinking is over."""


@attrs.define
class Shrinker:
    """One search. `left_s` says how much real time is left."""

    best: Failure
    left_s: Callable[[], float]
    tell: Callable[["Shrinker"], None] = lambda _shrinker: None
    """Called after every run."""
    attempt: Callable[[Scenario, float | None], Failure | None] = fail
    runs: int = 0
    taken: int = 0
    """Steps that helped."""
    seeds: int = 0
    """Other seeds that a step which matters is tried with."""
    doing: str = ""
    """The pass that is under way."""

    def shrink(self) -> Failure:
        """Return the smallest failing scenario that was found in time."""
        passes = (self._trim, self._requests, self._strikes, self._nodes, self._times, self._values)
        try:
            for self.seeds in (0, SEEDS_MORE):
                before = -1
                while before != self.taken:
                    before = self.taken
                    for each in passes:
                        self.doing = each.__name__.strip("_")
                        each()
        except TimeUp:
            self.doing = "stopped: the time was up"
        return self.best

    def _try(self, scenario: Scenario, seeds: int = 0) -> bool:
        """Take a scenario if it fails the same check, under its seed or one of a few others."""
        if scenario == self.best.scenario:
            return False
        for more in range(seeds + 1):
            if self.left_s() <= 0:
                raise TimeUp
            self.runs += 1
            failure = self.attempt(attrs.evolve(scenario, seed=scenario.seed + more), self._limit(scenario))
            self.tell(self)
            if failure is not None and failure.check == self.best.check:
                self.best = failure
                self.taken += 1
                return True
        return False

    def _limit(self, scenario: Scenario) -> float | None:
        return None if self.best.is_late else min(self.best.at + SLACK_S, scenario.faults_end_s + SLACK_S)

    # -- passes -----------------------------------------------------------------------------------

    def _trim(self) -> None:
        """Drop what had no time to matter: all that comes after the failure."""
        best, scenario = self.best, self.best.scenario
        if best.is_late:
            return
        end = min(scenario.faults_end_s, round(best.at + 0.1, 1))
        self._try(
            attrs.evolve(
                scenario,
                strikes=tuple(strike for strike in scenario.strikes if strike.at <= best.at),
                requests=tuple(request for request in scenario.requests if request.at <= best.at),
                faults_end_s=end,
            )
        )

    def _requests(self) -> None:
        self._cut("requests")

    def _strikes(self) -> None:
        self._cut("strikes")

    def _cut(self, field: str) -> None:
        """Take parts of a list away, the largest first."""
        items: tuple[Any, ...] = getattr(self.best.scenario, field)
        if items and self._try(attrs.evolve(self.best.scenario, **{field: ()})):
            return
        size = -(-len(items) // 2)
        while size:
            start = 0
            while start < len(getattr(self.best.scenario, field)):
                items = getattr(self.best.scenario, field)
                fewer = (*items[:start], *items[start + size :])
                seeds = self.seeds if size == 1 else 0
                if not self._try(attrs.evolve(self.best.scenario, **{field: fewer}), seeds):
                    start += size
            size = size // 2 if size > 1 else 0

    def _nodes(self) -> None:
        """Take nodes away: all that nothing names at once, then one after another from the last."""
        scenario = self.best.scenario
        unnamed = [index for index in range(scenario.nodes) if f"node-{index}" not in named(scenario)]
        keep = max(0, NODES_MIN - (scenario.nodes - len(unnamed)))
        if len(unnamed) > keep + 1:
            self._try(without(scenario, unnamed[keep:]))
        for index in range(self.best.scenario.nodes - 1, -1, -1):
            if self.best.scenario.nodes > NODES_MIN and index < self.best.scenario.nodes:
                self._try(without(self.best.scenario, [index]), self.seeds)

    def _times(self) -> None:
        """Let everything come sooner, and end sooner."""
        for factor in (0.25, 0.5, 0.8):
            self._try(sooner(self.best.scenario, factor))
        scenario = self.best.scenario
        last = max((each.at for each in (*scenario.strikes, *scenario.requests)), default=EARLIEST_S)
        if self.best.is_late and scenario.faults_end_s > last + 0.5:
            self._try(attrs.evolve(scenario, faults_end_s=round(last + 0.2, 1)))

    def _values(self) -> None:
        """Make single values plain."""
        for change in _plainer(self.best.scenario):
            changed = change(self.best.scenario)
            if changed is not None:
                self._try(changed)


# -- smaller scenarios ----------------------------------------------------------------------------


def named(scenario: Scenario) -> frozenset[str]:
    """Return the hosts that faults and clients name."""
    text = repr((scenario.strikes, [request.entry for request in scenario.requests]))
    return frozenset(f"node-{index}" for index in NAME.findall(text))


def without(scenario: Scenario, indices: Sequence[int]) -> Scenario:
    """Return a scenario without some nodes, and without what cannot be without them."""
    kept = [index for index in range(scenario.nodes) if index not in indices]
    names = {f"node-{index}": f"node-{place}" for place, index in enumerate(kept)}
    first_worker = scenario.nodes - scenario.workers
    workers = sum(index >= first_worker for index in kept)
    strikes = [renamed(strike, names) for strike in scenario.strikes]
    requests = [renamed(request, names) for request in scenario.requests]
    return attrs.evolve(
        scenario,
        nodes=len(kept),
        workers=max(min(1, scenario.workers), workers),
        strikes=tuple(strike for strike in strikes if strike is not None),
        requests=tuple(request for request in requests if request is not None),
        core=renamed(scenario.core, names) or (),
        crashed=renamed(scenario.crashed, names) or (),
    )


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a value with its hosts renamed; None if it names one that is gone and is nothing without it."""
    if isinstance(value, str):
        return names.get(value) if NAME.fullmatch(value) else value
    if isinstance(value, tuple):
        items = tuple(item for item in (renamed(item, names) for item in value) if item is not None)
        return items if items or not value else None
    if not attrs.has(type(value)):
        return value
    fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value)) if field.init}
    changed = {name: renamed(item, names) for name, item in fields.items()}
    lost = any(changed[name] is None and fields[name] is not None for name in fields)
    return None if lost else attrs.evolve(value, **changed)


def sooner(scenario: Scenario, factor: float) -> Scenario:
    """Return a scenario in which everything comes at a share of its time."""

    def earlier(at: float) -> float:
        return max(EARLIEST_S, round(at * factor, 2))

    return attrs.evolve(
        scenario,
        strikes=tuple(attrs.evolve(strike, at=earlier(strike.at)) for strike in scenario.strikes),
        requests=tuple(attrs.evolve(request, at=earlier(request.at)) for request in scenario.requests),
        faults_end_s=earlier(scenario.faults_end_s),
    )


Change = Callable[[Scenario], Scenario | None]


def _plainer(scenario: Scenario) -> Iterator[Change]:
    """Yield changes that make one thing plain; each gives None where it makes no difference any more."""
    yield _plain_network
    yield _plain_options
    yield lambda now: attrs.evolve(now, sealed=False)
    yield lambda now: attrs.evolve(now, core=tuple(f"node-{index}" for index in range(now.nodes)))
    yield lambda now: attrs.evolve(now, workers=min(1, now.workers))
    for place in range(len(scenario.requests)):
        for fields in (
            {"read_s": 0.0, "timeout_s": None, "cancel_after_s": None},
            {"prompt": "x"},
            {"seed": 1},
        ):
            yield lambda now, place=place, fields=fields: _changed(now, "requests", place, **fields)
        for tokens in (1, 20, 100):
            yield lambda now, place=place, tokens=tokens: _fewer_tokens(now, place, tokens)
    for place, strike in enumerate(scenario.strikes):
        yield lambda now, place=place: _changed(now, "strikes", place, at=round(now.strikes[place].at, 1))
        for field in attrs.fields(type(strike.fault)):
            yield from _plainer_field(place, field)


def _plain_network(scenario: Scenario) -> Scenario:
    return attrs.evolve(scenario, options=attrs.evolve(scenario.options, network=PLAIN))


def _plain_options(scenario: Scenario) -> Scenario:
    return attrs.evolve(
        scenario, options=attrs.evolve(scenario.options, node=NodeOptions(SwimOptions.local()))
    )


def _plainer_field(place: int, field: "attrs.Attribute[Any]") -> Iterator[Change]:
    """Yield changes to one field of a fault: its default, then rounder numbers, then fewer names."""
    if field.default is not attrs.NOTHING:
        yield lambda now: _fault(now, place, field.name, lambda _old: field.default)
        return
    for plainer in (_one_digit, _halved, _first):
        yield lambda now, plainer=plainer: _fault(now, place, field.name, plainer)


def _one_digit(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) and round(value, 1) else value


def _halved(value: Any) -> Any:
    return round(value / 2, 2) if isinstance(value, float) and value > 0.2 else value


def _first(value: Any) -> Any:
    return value[:1] if isinstance(value, tuple) else value


def _fault(now: Scenario, place: int, name: str, plainer: Callable[[Any], Any]) -> Scenario | None:
    if place >= len(now.strikes) or not hasattr(now.strikes[place].fault, name):
        return None
    fault = now.strikes[place].fault
    fault = attrs.evolve(fault, **{name: plainer(getattr(fault, name))})
    return _changed(now, "strikes", place, fault=fault)


def _fewer_tokens(now: Scenario, place: int, tokens: int) -> Scenario | None:
    if place >= len(now.requests) or now.requests[place].tokens <= tokens:
        return None
    return _changed(now, "requests", place, tokens=tokens)


def _changed(now: Scenario, field: str, place: int, **fields: Any) -> Scenario | None:
    items: tuple[Any, ...] = getattr(now, field)
    if place >= len(items):
        return None
    changed = attrs.evolve(items[place], **fields)
    return attrs.evolve(now, **{field: (*items[:place], changed, *items[place + 1 :])})


def stretch(scenario: Scenario) -> str:
    """Say how large a scenario is."""
    events = f"{len(scenario.strikes)} faults, {len(scenario.requests)} clients"
    return f"{scenario.nodes} nodes, {events}, {scenario.faults_end_s:g} s"
