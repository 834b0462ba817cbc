"""One scenario against real processes: start, disturb, heal, settle, examine."""

import tempfile
from pathlib import Path

import attrs
import trio

from node.cli.fleet import FleetError
from sim.fault import plan
from sim.scenario import Scenario
from sim.world import Violation
from tests.lab.clients import LabClient
from tests.lab.feasible import require
from tests.lab.oracles import baselines, disagreement, examine, settle, unready
from tests.lab.stage import START_S, Note, Stage
from tests.lab.witness import Sample, watch

CLIENTS_MAX = 256
"""Clients at once: each is a thread."""

LATE_S = 0.05
"""Time between two looks at a mesh that forms."""


@attrs.frozen
class Outcome:
    """One run, after it was run."""

    scenario: Scenario
    violation: Violation | None
    clients: list[LabClient]
    notes: list[Note]
    samples: list[Sample]
    settled_s: dict[str, float]
    bitten: dict[str, int]
    seconds: float

    @property
    def outcomes(self) -> dict[str, int]:
        """How many clients ended how."""
        counts: dict[str, int] = {}
        for client in self.clients:
            counts[client.outcome or "unserved"] = counts.get(client.outcome or "unserved", 0) + 1
        return counts

    @property
    def moves(self) -> int:
        """How often streams have moved."""
        return sum(client.moves for client in self.clients)

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two events of any stream."""
        return max((gap for client in self.clients for gap in client.gaps_s), default=0.0)

    def line(self) -> str:
        """Say in one line how it went."""
        verdict = str(self.violation) if self.violation else "every oracle held"
        return (
            f"{self.scenario.name}: {verdict}; {self.outcomes}, {self.moves} moves,"
            f" longest gap {self.longest_gap_s:.2f} s, bites {self.bitten}, {self.seconds:.1f} s"
        )


def run(scenario: Scenario, lanes: int = 0) -> Outcome:
    """Run a scenario with real processes. Raises InfeasibleError before anything is started, and FleetError.

    With `lanes` the requests are shared out in their order to so many clients, each of which asks one after
    another; without, each request has a client of its own.
    """
    require(scenario)
    with tempfile.TemporaryDirectory(prefix="inferno-lab-") as directory:
        return trio.run(_run, scenario, Path(directory), lanes)


async def _run(scenario: Scenario, directory: Path, lanes: int) -> Outcome:
    stage = Stage(scenario, directory)
    samples: list[Sample] = []
    try:
        async with trio.open_nursery() as nursery:
            _begin_tasks(stage, nursery)
            stage.start_all()
            await _whole(stage)
            outcome = await _disturbed(stage, samples, nursery, lanes)
            nursery.cancel_scope.cancel()
    finally:
        stage.end()
    return outcome


def _begin_tasks(stage: Stage, nursery: trio.Nursery) -> None:
    nursery.start_soon(stage.run_agenda)
    nursery.start_soon(stage.look_for_ready)
    for front in (*(machine.front for machine in stage.hosts.values()), stage.stranger):
        nursery.start_soon(front.carry_datagrams)
        nursery.start_soon(front.carry_streams)


async def _whole(stage: Stage) -> None:
    wrong = ""
    with trio.move_on_after(START_S):
        while wrong := await disagreement(stage) or await unready(stage) or await _loadless(stage):
            await trio.sleep(LATE_S)
    if wrong:
        raise FleetError(f"the mesh was not whole within {START_S:g} s: {wrong}")


async def _loadless(stage: Stage) -> str:
    """Say which node knows no ready model anywhere yet; empty if all do."""
    from tests.lab.ask import ask

    for machine in stage.hosts.values():
        rows = await ask(machine.ops, "/members") or []
        ready = sum(model["ready"] for row in rows if row["load"] for model in row["load"]["models"])
        if ready < stage.scenario.workers:
            return f"{machine.name} knows of {ready} ready engines"
    return ""


async def _disturbed(stage: Stage, samples: list[Sample], nursery: trio.Nursery, lanes: int) -> Outcome:
    before = baselines(stage)
    stage.begin()
    limiter = trio.CapacityLimiter(CLIENTS_MAX)
    requests = stage.scenario.requests
    stage.clients += [LabClient(each, stage[each.entry], lambda: stage.time) for each in requests]
    size = -(-len(requests) // lanes) if lanes else 1
    for first in range(0, len(requests), size):
        nursery.start_soon(_serve, stage, stage.clients[first : first + size], limiter)
    plan(stage, stage.scenario.strikes)
    violation, settled_s = None, {}
    try:
        async with trio.open_nursery() as watching:
            watching.start_soon(watch, stage, samples)
            await trio.sleep(max(0.0, stage.scenario.faults_end_s - stage.time))
            stage.heal()
            settled_s = await settle(stage)
            watching.cancel_scope.cancel()
        await examine(stage, before)
    except* Violation as found:
        violation = found.exceptions[0]
    clients, notes = stage.clients, stage.notes
    return Outcome(
        stage.scenario, violation, clients, notes, samples, settled_s, dict(stage.bitten), stage.time
    )


async def _serve(stage: Stage, clients: list[LabClient], limiter: trio.CapacityLimiter) -> None:
    for client in clients:
        await trio.sleep(max(0.0, client.request.at - stage.time))
        await trio.to_thread.run_sync(client.run, abandon_on_cancel=True, limiter=limiter)
