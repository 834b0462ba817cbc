"""Hard days of a large mesh, one line of figures per seed: `python -m sim.trials NAME --nodes N --seeds K`.

    loss      every packet is lost with --loss for a minute: nobody may die
    lossy     one in a hundred loses 80 % of what it sends and should receive, for a minute: routing leaves it
              out, and nobody else dies (the experiment of Rapid, USENIX ATC 2018)
    flipflop  one in a hundred hears nothing for 20 s, then all for 20 s, three times: routing takes each back once
    pause     a quarter is stopped for 16.4 s, seven times, 64 ms apart: nobody else dies, and they are soon back
    accusers  two broken nodes accuse everybody, period after period, for 20 s: nobody dies; what does it cost?
    crash     one idle member after another dies: when is it out of the first router, and dead everywhere?
    mass      a third dies at once: when does everybody who is left know of all of them?

Membership cores alone (`sim.crowd`), the real bytes, virtual time. `false` deaths are of those who ran and whose
network worked; what befell the victims of the day is told apart.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from mesh.effects import Effect
from mesh.facts import Fact, MemberChanged, QuarantineLifted
from mesh.member import Liveness
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.papers_report import quantile
from sim.peer import Peer
from sim.rule import Rule
from sim.stream import random_of

SETTLE_S = 12.0
"""Long enough for round trips to be known; a mesh of a thousand does not meet all pairs in it."""
LOST = 0.8
STEP_S = 0.05
"""How often a condition is looked at."""
FLIP_S = 20.0
PAUSE_S, PEACE_S, PAUSES = 16.4, 0.064, 7
CRASHES = 5

Figures = dict[str, Any]


@attrs.define
class Watch:
    """Deaths and lifted quarantines, of victims and of others: a tap."""

    crowd: Crowd
    victims: frozenset[str] = frozenset()
    """Ids of those whom the day befalls: what they believe, and what is believed of them, is told apart."""
    false: int = 0
    """Times that anybody healthy held another healthy member dead."""
    of_victims: int = 0
    """Times that a healthy member held a victim dead."""
    by_victims: int = 0
    """Times that a victim held anybody else dead."""
    lifted: dict[tuple[int, str], int] = attrs.Factory(dict)
    """How often a healthy member took a victim back into routing."""

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        """Count what a node came to believe."""
        for output in outputs:
            if isinstance(output, MemberChanged) and output.after.liveness is Liveness.DEAD:
                self._died(peer, output.after.node)
            elif isinstance(output, QuarantineLifted):
                self._back(peer, output.node)
            elif isinstance(output, MemberChanged) and output.before and not output.before.is_live:
                self._back(peer, output.after.node)

    def _back(self, peer: Peer, node: str) -> None:
        """A verdict was taken back; one whom the mesh holds alive again may stay out of routing for flapping."""
        if node in self.victims and not _is_out(peer, node):
            key = peer.index, node
            self.lifted[key] = self.lifted.get(key, 0) + 1

    def _died(self, peer: Peer, node: str) -> None:
        if peer.core is not None and peer.core.me.node in self.victims:
            self.by_victims += node not in self.victims
        elif node in self.victims:
            self.of_victims += 1
        else:
            self.false += 1


@attrs.define
class Day:
    """A formed mesh, its victims, and who watches."""

    crowd: Crowd
    victims: list[int]
    watch: Watch

    @property
    def healthy(self) -> list[Peer]:
        """Those who run and are no victims."""
        return [peer for peer in self.crowd.running if peer.index not in set(self.victims)]

    def out_of_routing(self) -> float:
        """The share of pairs (healthy member, victim) in which no request is sent to the victim."""
        nodes = [self.crowd.node(index) for index in self.victims]
        out = [_is_out(peer, node) for peer in self.healthy for node in nodes]
        return sum(out) / max(1, len(out))


def _is_out(peer: Peer, node: str) -> bool:
    core = peer.core
    assert core is not None, "only those who run are asked"
    row = core.member(node)
    return row is None or not row.is_live or core.is_quarantined(node)


def begin(seed: int, nodes: int, swim: SwimOptions, victims: int) -> Day:
    """Form a mesh and choose who will suffer."""
    crowd = Crowd(seed, CrowdOptions(swim, keep_log=False))
    crowd.form(nodes)
    crowd.run_for(SETTLE_S)
    chosen = sorted(random_of(seed, "victims").sample(range(1, nodes + 1), victims))
    watch = Watch(crowd, frozenset(map(crowd.node, chosen)))
    crowd.taps.append(watch)
    return Day(crowd, chosen, watch)


def loss(seed: int, nodes: int, swim: SwimOptions, share: float = 0.5, seconds: float = 60.0) -> Figures:
    """Every packet is lost with a probability of `share`."""
    day = begin(seed, nodes, swim, 0)
    day.crowd.lay("loss", Rule(loss=share))
    day.crowd.run_for(seconds)
    day.crowd.heal()
    healed_s = day.crowd.run_until(day.crowd.converged, 30.0, STEP_S)
    return {"loss": share, "false": day.watch.false, "agreed_s": _rounded(healed_s)}


def lossy(seed: int, nodes: int, swim: SwimOptions, seconds: float = 60.0) -> Figures:
    """One in a hundred loses most of its packets, both ways."""
    day = begin(seed, nodes, swim, max(1, nodes // 100))
    names = day.crowd.names(day.victims)
    day.crowd.lay("lossy", Rule(sources=names, loss=LOST), Rule(targets=names, loss=LOST))
    shares = {}
    for at_s in (5.0, 20.0, seconds):
        day.crowd.run_for(at_s - (max(shares) if shares else 0.0))
        shares[at_s] = round(day.out_of_routing(), 4)
    told = {f"out_at_{at_s:g}_s": share for at_s, share in shares.items()}
    return {
        "false": day.watch.false,
        "by_lossy": day.watch.by_victims,
        "of_lossy": day.watch.of_victims,
        **told,
    }


def flipflop(seed: int, nodes: int, swim: SwimOptions, rounds: int = 3) -> Figures:
    """One in a hundred hears nobody for a while, again and again; what it sends arrives."""
    day = begin(seed, nodes, swim, max(1, nodes // 100))
    shares = []
    for _ in range(rounds):
        day.crowd.lay("flip", Rule(targets=day.crowd.names(day.victims), cut=True))
        day.crowd.run_for(5.0)
        shares.append(round(day.out_of_routing(), 4))
        day.crowd.run_for(FLIP_S - 5.0)
        day.crowd.lift("flip")
        day.crowd.run_for(FLIP_S)
    pairs = len(day.healthy) * len(day.victims)
    return {
        "false": day.watch.false,
        "by_deaf": day.watch.by_victims,
        "back_most": max(day.watch.lifted.values(), default=0),
        "back_mean": round(sum(day.watch.lifted.values()) / pairs, 3),
        "out_5_s_after_each_cut": shares,
    }


def pause(seed: int, nodes: int, swim: SwimOptions, pauses: int = PAUSES) -> Figures:
    """A quarter is stopped again and again."""
    day = begin(seed, nodes, swim, nodes // 4)
    for _ in range(pauses):
        for index in day.victims:
            day.crowd.pause(index)
        day.crowd.run_for(PAUSE_S)
        for index in day.victims:
            day.crowd.resume(index)
        day.crowd.run_for(PEACE_S)
    back_s = day.crowd.run_until(lambda: day.out_of_routing() == 0.0, 30.0, STEP_S)
    return {"false": day.watch.false, "by_stopped": day.watch.by_victims, "back_s": _plus(back_s, PEACE_S)}


def accusers(seed: int, nodes: int, swim: SwimOptions, seconds: float = 20.0) -> Figures:
    """Two broken nodes doubt everybody in every period, whatever they hear."""
    day = begin(seed, nodes, swim, 2)
    idle = _bytes_per_node_s(day, 5.0)
    end = day.crowd.time + seconds
    sent = day.crowd.counts.bytes
    while day.crowd.time < end:
        for index in day.victims:
            accuse_everybody(day.crowd, index)
        day.crowd.run_for(swim.probe_period_s)
    during = (day.crowd.counts.bytes - sent) / seconds / nodes
    return {"false": day.watch.false, "idle_B_s": round(idle), "accused_B_s": round(during)}


def accuse_everybody(crowd: Crowd, index: int) -> None:
    """Let a node believe that its rounds with all live members have failed."""
    core, now = crowd.core(index), crowd[index].now(crowd.time)
    for row in core.members():
        if row.is_live and row.node != core.me.node:
            core._beliefs._unanswered(now, row)
    crowd.call(index, "tick")


def _bytes_per_node_s(day: Day, seconds: float) -> float:
    sent = day.crowd.counts.bytes
    day.crowd.run_for(seconds)
    return (day.crowd.counts.bytes - sent) / seconds / len(day.crowd.running)


def crash(seed: int, nodes: int, swim: SwimOptions, crashes: int = CRASHES) -> Figures:
    """One idle member after another dies."""
    day = begin(seed, nodes, swim, min(crashes, nodes // 2))
    chance, firsts, everywheres = random_of(seed, "moments"), [], []
    for index in day.victims:
        day.crowd.run_for(chance.uniform(3.0, 3.0 + swim.probe_period_s))
        first_s, everywhere_s = _killed(day.crowd, [index])
        firsts.append(first_s)
        everywheres.append(everywhere_s)
    missed = firsts.count(None) + everywheres.count(None)
    return {
        "false": day.watch.false,
        "first_out_s": _spread(firsts),
        "dead_everywhere_s": _spread(everywheres),
        "missed": missed,
    }


def mass(seed: int, nodes: int, swim: SwimOptions) -> Figures:
    """A third dies at once."""
    day = begin(seed, nodes, swim, nodes // 3)
    first_s, everywhere_s = _killed(day.crowd, day.victims, within_s=60.0)
    return {"false": day.watch.false, "first_out_s": _rounded(first_s), "all_dead_s": _rounded(everywhere_s)}


@attrs.define
class _Burial:
    """Counts who knows of which death, so that no table need be searched: a tap."""

    crowd: Crowd
    nodes: frozenset[str]
    first_at: float | None = None
    known: set[tuple[int, str]] = attrs.Factory(set)

    def __call__(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        for output in outputs:
            if isinstance(output, MemberChanged):
                if output.after.liveness is Liveness.DEAD and output.after.node in self.nodes:
                    self.known.add((peer.index, output.after.node))
            elif getattr(output, "node", None) in self.nodes and self.first_at is None:
                self.first_at = self.crowd.time


def _killed(
    crowd: Crowd, victims: Iterable[int], within_s: float = 30.0
) -> tuple[float | None, float | None]:
    """Kill some; return the seconds until the first router leaves one out, and until all who run hold all dead."""
    dying = list(victims)
    burial = _Burial(crowd, frozenset(map(crowd.node, dying)))
    crowd.taps.append(burial)
    began = crowd.time
    for index in dying:
        crowd.crash(index)
    wanted = len(dying) * len(crowd.running)
    took_s = crowd.run_until(lambda: len(burial.known) >= wanted, within_s)
    crowd.taps.remove(burial)
    return (burial.first_at - began if burial.first_at is not None else None), took_s


def _spread(values: Sequence[float | None]) -> list[float]:
    seen = [value for value in values if value is not None]
    return [round(quantile(seen, 0.5), 3), round(max(seen), 3)] if seen else []


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None else None


def _plus(value: float | None, more: float) -> float | None:
    return round(value + more, 3) if value is not None else None


TRIALS: dict[str, Callable[..., Figures]] = {
    act.__name__: act for act in (loss, lossy, flipflop, pause, accusers, crash, mass)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: one JSON object per seed. Returns 1 if anybody died who ran and could be reached."""
    parser = argparse.ArgumentParser(prog="python -m sim.trials", description=__doc__.split("\n")[0])
    parser.add_argument("trial", choices=sorted(TRIALS))
    parser.add_argument("--nodes", type=int, default=64, help="3 or more")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--preset", default="local", choices=["local", "lan", "wan", "lifeguard", "plain_swim"]
    )
    parser.add_argument("--loss", type=float, help="share, for `loss`")
    parser.add_argument("--budget", type=int, default=4, help="accusations per window; 0: no bound")
    parser.add_argument("--witnesses", type=int, default=3, help="of a suspicion; 0: one word is enough")
    options = parser.parse_args(arguments)
    more = {"share": options.loss} if options.trial == "loss" and options.loss is not None else {}
    false = 0
    for seed in range(options.first, options.first + options.seeds):
        began, swim = time.monotonic(), getattr(SwimOptions, options.preset)()
        swim = attrs.evolve(swim, accusations_per_window=options.budget, witnesses=options.witnesses)
        figures = TRIALS[options.trial](seed, options.nodes, swim, **more)
        false += figures["false"]
        head = {"trial": options.trial, "nodes": options.nodes, "preset": options.preset, "seed": seed}
        print(json.dumps({**head, **figures, "real_s": round(time.monotonic() - began, 1)}), flush=True)
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
