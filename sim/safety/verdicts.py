"""Checks of judgements: who is quarantined, suspected, buried, and for what reason."""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect, Report
from mesh.member import Liveness, Member
from sim.safety.life import SLOWEST, Life, life, object_to

if TYPE_CHECKING:
    from sim.host import Host

VERDICTS = frozenset(("quarantined", "quarantine_lifted", "member_dead", "member", "refuted", "paused"))
"""Reports after which judgements are looked at again."""

ROUNDING_S = 1e-6
DEAF_PERIODS = 3.0
"""Who has heard nobody for so many probe periods must not declare anybody dead."""
DEAF_EVIDENCE = ("refused", "alone", "two of us")
"""Deaths that do not rest on hearing others: the dead machine spoke, or there is nobody left to hear."""


@attrs.define
class Judge:
    """What one life has believed so far."""

    quarantined: dict[str, tuple[float, int]] = attrs.Factory(dict)
    """Since when and in which life, by node."""
    liveness: dict[str, Liveness] = attrs.Factory(dict)


@attrs.define
class VerdictCheck:
    """deaf_verdict, death_cause, fair_trial and quarantine_fresh."""

    _judges: dict[Life, Judge] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the judgements of this input."""
        told = [e for e in effects if isinstance(e, Report) and e.event in VERDICTS]
        if not told:
            return
        judge = self._judges.setdefault(life(host), Judge())
        for report in told:
            host.world.reach(report.event)
            if report.event == "member_dead":
                self._buried(host, judge, dict(report.fields))
        doubted = {str(dict(report.fields)["node"]) for report in told if report.event == "quarantined"}
        for row in host.core.swim.members():
            if row.node != host.id:
                self._look(host, judge, row, doubted)

    def _look(self, host: "Host", judge: Judge, row: Member, doubted: set[str]) -> None:
        was = judge.liveness.get(row.node)
        judge.liveness[row.node] = row.liveness
        own = row.node in judge.quarantined or row.name in doubted
        if row.liveness is Liveness.DEAD and was in (Liveness.ALIVE, Liveness.SUSPECT) and not own:
            object_to(
                host, "death_cause", f"{row.name} is dead without a failed round or a lost link of our own"
            )
        if host.core.swim.is_quarantined(row.node):
            judge.quarantined.setdefault(row.node, (host.world.time, row.identity.generation))
        elif (held := judge.quarantined.pop(row.node, None)) is not None and row.is_live:
            self._lifted(host, row, *held)

    def _buried(self, host: "Host", judge: Judge, fields: dict[str, object]) -> None:
        name, needs_hearing = str(fields["name"]), fields["evidence"] not in DEAF_EVIDENCE
        if needs_hearing:
            self._not_deaf(host, name)
        accusers = [node for node in str(fields["accusers"]).split(",") if node]
        unknown = [node for node in accusers if node not in host.world.lives]
        if not accusers or unknown:
            object_to(host, "death_cause", f"{name} was declared dead with accusers {accusers}")
        row = host.core.swim.member(str(fields["node"]))
        if row is not None and needs_hearing:
            self._tried_fairly(host, row)

    def _not_deaf(self, host: "Host", name: str) -> None:
        live = sum(row.is_live for row in host.core.swim.members())
        silent_s = host.world.time - host.heard_at
        if (
            live > 1
            and silent_s > DEAF_PERIODS * host.core.swim.options.probe_period_s / SLOWEST + ROUNDING_S
        ):
            message = f"declared {name} dead after {silent_s:.2f} s without hearing anybody"
            object_to(host, "deaf_verdict", message)

    def _tried_fairly(self, host: "Host", row: Member) -> None:
        """The first to declare a death has waited for the least suspicion; others may follow its word."""
        world = host.world
        if row.identity in world.buried:
            return
        world.buried[row.identity] = world.time
        options = host.core.swim.options
        least_s = options.suspicion_factor * options.probe_period_s * SLOWEST
        since = [doubts[row.identity] for doubts in world.doubted.values() if row.identity in doubts]
        waited_s = world.time - min(since, default=world.time)
        if waited_s < least_s - ROUNDING_S:
            message = f"{row.name} had {waited_s:.2f} s to refute, at least {least_s:.2f} s are due"
            object_to(host, "fair_trial", message)

    def _lifted(self, host: "Host", row: Member, since: float, generation: int) -> None:
        """Whoever was quarantined has spoken since, or begun another life: a quarantine is of one."""
        world = host.world
        if row.identity.generation > generation:
            world.reach("reborn")
            return
        spoke_at = (
            max(subject.spoke_at for subject in world.lives[row.node]) if row.node in world.lives else 0.0
        )
        if spoke_at < since - world.network.statistics.longest_s - host.waited_s - ROUNDING_S:
            message = f"{row.name} is trusted again, and has said nothing since {spoke_at:.3f}"
            object_to(host, "quarantine_fresh", message)
