"""Scenarios of membership alone, for meshes of thousands: the cores of `sim.crowd` under one trouble each.

Nodes know one another from the start. Two checks are made: where nobody is cut off or
stopped, nobody who runs is declared dead (`false_death`); and once all is healed, all
who run agree within a bound (`views_agree`).
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from mesh.effects import Effect
from mesh.facts import Fact, MemberChanged, Quarantined
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.peer import Peer
from sim.report import Detection, spread
from sim.rule import Rule
from sim.stream import random_of

BEGIN_S = 3.0
EVERY_S = 6.0
"""Time between two troubles."""
VIEWS_S = 30.0
"""How long views may differ once all is healed, plus `VIEWS_NODE_S` for each node."""
VIEWS_NODE_S = 0.01
STEP_S = 0.5
"""Virtual time between two looks of whoever shows progress."""
LOSS = 0.2


@attrs.frozen
class Trouble:
    """Something that befalls some nodes, by number."""

    at: float
    kind: str
    """crash, restart, pause or cut."""
    nodes: tuple[int, ...]
    for_s: float = 0.0
    """0 is for good."""


@attrs.frozen
class Plan:
    """One run, before it is run."""

    name: str
    seed: int
    nodes: int
    seconds: float
    swim: SwimOptions
    troubles: tuple[Trouble, ...] = ()
    network: Rule = CrowdOptions().network
    may_bury: bool = False
    """Whether the living may be declared dead: they are stopped, or out of reach."""


Draw = Callable[[random.Random, float, int], Trouble]


def _crash(rng: random.Random, at: float, nodes: int) -> Trouble:
    return Trouble(at, "crash", (rng.randint(1, nodes),))


def _restart(rng: random.Random, at: float, nodes: int) -> Trouble:
    return Trouble(at, "restart", (rng.randint(1, nodes),), rng.uniform(0.2, 4.0))


def _pause(rng: random.Random, at: float, nodes: int) -> Trouble:
    return Trouble(at, "pause", (rng.randint(1, nodes),), rng.uniform(0.5, 5.0))


def _cut(rng: random.Random, at: float, nodes: int) -> Trouble:
    return Trouble(
        at, "cut", tuple(sorted(rng.sample(range(1, nodes + 1), max(1, nodes // 2)))), rng.uniform(0.5, 5.0)
    )


DRAWS: dict[str, Draw | None] = {
    "calm": None,
    "kill": _crash,
    "restart": _restart,
    "pause": _pause,
    "partition": _cut,
    "loss": None,
}
"""Scenarios by name; `loss` is calm on a network that loses one datagram of five."""


def draw(name: str, seed: int, nodes: int, seconds: float, swim: SwimOptions) -> Plan:
    """Draw a run."""
    rng = random_of(seed, "members", name)
    make = DRAWS[name]
    times = [BEGIN_S + EVERY_S * index for index in range(max(1, int(seconds / EVERY_S)))]
    troubles = tuple(make(rng, at + rng.random(), nodes) for at in times) if make else ()
    network = attrs.evolve(CrowdOptions().network, loss=LOSS if name == "loss" else 0.0)
    plan = Plan(name, seed, nodes, BEGIN_S + seconds, swim, troubles, network, name in ("pause", "partition"))
    return with_swim(plan, swim)


def with_swim(plan: Plan, swim: SwimOptions) -> Plan:
    """Return a plan with other options, which have room for all its nodes."""
    return attrs.evolve(plan, swim=attrs.evolve(swim, members_max=max(swim.members_max, plan.nodes)))


@attrs.define
class Watcher:
    """What was seen of a crowd: who noticed whose crash when, and who was judged wrongly."""

    crowd: Crowd
    crashes: list["Crash"] = attrs.Factory(list)
    false_deaths: int = 0
    first_false: str = ""
    false_quarantines: int = 0
    suspicions: int = 0
    _numbers: dict[str, int] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._numbers = {self.crowd.node(index): index for index in self.crowd.peers}

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        for output in outputs:
            if isinstance(output, MemberChanged):
                self._changed(peer, output)
            elif isinstance(output, Quarantined):
                self._noticed(peer, self._numbers[output.node], False)
                self.false_quarantines += self._runs(output.node, None)

    def _changed(self, peer: Peer, fact: MemberChanged) -> None:
        self.suspicions += fact.after.liveness is Liveness.SUSPECT
        if fact.after.liveness is Liveness.DEAD:
            self._noticed(peer, self._numbers[fact.after.node], True)
            if self._runs(fact.after.node, fact.after.identity.generation):
                self.false_deaths += 1
                self.first_false = (
                    self.first_false or f"{peer.name}: {fact.after.name} runs, and is declared dead"
                )

    def _runs(self, node: str, generation: int | None) -> bool:
        subject = self.crowd.peers[self._numbers[node]]
        return subject.running and generation in (None, subject.generation)

    def _noticed(self, peer: Peer, subject: int, dead: bool) -> None:
        for crash in self.crashes:
            if crash.index == subject and crash.back_s is None:
                crash.notice(peer.index, self.crowd.time, dead)

    def crashed(self, index: int) -> None:
        """A node has crashed."""
        watchers = {peer.index for peer in self.crowd.running}
        for crash in self.crashes:
            crash.waiting.discard(index)
            crash.waiting_out.discard(index)
        self.crashes.append(Crash(index, self.crowd.time, set(watchers), set(watchers)))

    def back(self, index: int) -> None:
        """It runs again."""
        for crash in self.crashes:
            if crash.index == index and crash.back_s is None:
                crash.back_s = self.crowd.time - crash.at


@attrs.define
class Crash:
    """One crash, and who has yet to notice it."""

    index: int
    at: float
    waiting: set[int]
    waiting_out: set[int]
    first: float | None = None
    last: float | None = None
    first_out: float | None = None
    last_out: float | None = None
    back_s: float | None = None

    def notice(self, who: int, time: float, dead: bool) -> None:
        """Somebody stopped asking it, or holds it dead."""
        after_s = time - self.at
        self.first_out = after_s if self.first_out is None else self.first_out
        self.waiting_out.discard(who)
        self.last_out = after_s if not self.waiting_out and self.last_out is None else self.last_out
        if dead:
            self.first = after_s if self.first is None else self.first
            self.waiting.discard(who)
            self.last = after_s if not self.waiting and self.last is None else self.last

    def detection(self, name: str) -> Detection:
        """Return how it was noticed."""
        return Detection(name, self.at, self.first_out, self.last_out, self.first, self.last, self.back_s)


def run(plan: Plan, watch: Callable[[float], None] = lambda _time: None) -> dict[str, Any]:
    """Run a plan; return its figures, ready for JSON, with the check that failed, if one did."""
    crowd = Crowd(plan.seed, CrowdOptions(swim=plan.swim, network=plan.network, keep_log=False))
    crowd.form(plan.nodes)
    seen = Watcher(crowd)
    crowd.taps.append(seen)
    for trouble in plan.troubles:
        crowd.at(trouble.at, lambda trouble=trouble: _befall(crowd, seen, trouble))
    while crowd.time < plan.seconds:
        crowd.run_for(min(STEP_S, plan.seconds - crowd.time))
        watch(crowd.time)
    sent = crowd.counts.packets, crowd.counts.bytes
    crowd.heal()
    agreed_s = crowd.run_until(crowd.converged, VIEWS_S + VIEWS_NODE_S * plan.nodes, every_s=0.1)
    return _figures(plan, seen, agreed_s, sent)


def _befall(crowd: Crowd, seen: Watcher, trouble: Trouble) -> None:
    index, *_ = trouble.nodes
    end = crowd.time + trouble.for_s
    if trouble.kind == "cut":
        others = [each for each in crowd.peers if each not in trouble.nodes]
        crowd.partition(trouble.nodes, others)
        crowd.at(end, lambda: crowd.lift("partition"))
    elif crowd[index].core is None or crowd[index].paused:
        return
    elif trouble.kind == "pause":
        crowd.pause(index)
        crowd.at(end, lambda: crowd.resume(index))
    else:
        crowd.crash(index)
        seen.crashed(index)
        if trouble.kind == "restart":
            crowd.at(end, lambda: _begin_again(crowd, seen, index))


def _begin_again(crowd: Crowd, seen: Watcher, index: int) -> None:
    seen.back(index)
    crowd.restart(index, [peer.index for peer in crowd.running if peer.index != index][:2])


def _figures(plan: Plan, seen: Watcher, agreed_s: float | None, sent: tuple[int, int]) -> dict[str, Any]:
    found = [crash.detection(f"node-{crash.index}") for crash in seen.crashes]
    node_seconds = plan.nodes * plan.seconds
    violation = None
    if seen.false_deaths and not plan.may_bury:
        violation = {"check": "false_death", "message": seen.first_false}
    elif agreed_s is None:
        violation = {"check": "views_agree", "message": "views still differ at the end of the bound"}
    return {
        "members_only": True,
        "scenario": plan.name,
        "seed": plan.seed,
        "nodes": plan.nodes,
        "virtual_s": round(seen.crowd.time, 6),
        "events": seen.crowd.counts.events,
        "trace_digest": seen.crowd.trace_digest(),
        "violation": violation,
        "detections": [attrs.asdict(each) for each in found],
        "membership": {
            "crashes": len(found),
            "dead_everywhere_s": spread([d.dead_all_s for d in found if d.dead_all_s is not None]),
            "false_deaths": seen.false_deaths,
            "false_quarantines": seen.false_quarantines,
            "suspicions": seen.suspicions,
        },
        "traffic": {
            "datagrams_per_node_s": round(sent[0] / node_seconds, 3),
            "bytes_per_node_s": round(sent[1] / node_seconds, 1),
        },
        "settled_s": {"views_agree": agreed_s},
    }
