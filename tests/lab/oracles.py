"""What must hold after every run of real processes, by what clients saw and by what nodes and the kernel say.

Those of the settling are awaited within the scenario's bounds, as in `sim.liveness`; the
others are looked at once, after it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from sim.liveness import judge
from sim.world import Violation
from tests.lab.ask import ask, figures, total
from tests.lab.machine import Machine

if TYPE_CHECKING:
    from tests.lab.stage import Stage

ORACLES: dict[str, str] = {
    "views_agree": "every node of the core holds all of the core alive, nobody quarantined, nobody else",
    "engines_back": "every worker of the core has its model ready",
    "clients_served": "every request has ended",
    "nothing_left": "no flight, ticket, sequence, queued token or page of KV is held, cancelled ones' included",
    "text_exact": "clients get their text, each token once, in order, and the usage says so",
    "outcomes": "each request ended as it may under these faults",
    "conservation": "an entry has answered as many requests as clients have asked it, each once",
    "nothing_leaks": "a process holds no more file descriptors and threads than before the faults",
    "nobody_fell": "no process ended that the lab did not end, and none logged a traceback",
    "faults_bite": "each fault has had an effect on a packet or a process",
}
"""Every oracle, and what it says."""

POLL_S = 0.2

LEAKS_S = 5.0
"""A connection that is being closed has gone by then."""

LINK_DESCRIPTORS = 1
"""What a link to a peer may add to a process: its socket."""


@attrs.frozen
class Baseline:
    """What a process held before the faults."""

    process: int
    descriptors: int
    threads: int


def baselines(stage: "Stage") -> dict[str, Baseline]:
    """Count what each process holds now."""
    return {
        machine.name: Baseline(machine.process.pid, machine.descriptors(), machine.threads())
        for machine in stage.hosts.values()
        if machine.core
    }


def core(stage: "Stage") -> list[Machine]:
    """Return the machines that must be well."""
    return [stage[name] for name in stage.scenario.core]


# -- awaited --------------------------------------------------------------------------------------


async def disagreement(stage: "Stage") -> str:
    """Say who sees the mesh wrongly; empty if nobody does."""
    up = {machine.name for machine in stage.hosts.values() if machine.core}
    for machine in core(stage):
        if not machine.look():
            return f"{machine.name} does not listen"
        rows = await ask(machine.ops, "/members") or []
        live = {row["name"] for row in rows if row["state"] in ("alive", "suspect")}
        doubted = [row["name"] for row in rows if row["state"] == "suspect" or row["quarantined"]]
        if live != up or any(name in up for name in doubted):
            return f"{machine.name} holds {sorted(live)} live, not {sorted(up)}, and doubts {doubted}"
    return ""


async def unready(stage: "Stage") -> str:
    """Name a worker of the core without a ready engine; empty if there is none."""
    for machine in core(stage):
        series = figures(await ask(machine.ops, "/metrics") or "")
        if machine.worker and not series.get('inferno_engines_state{engine="toy",state="ready"}'):
            return f"the engine of {machine.name} is not ready"
    return ""


async def unserved(stage: "Stage") -> str:
    """Name a client whose request goes on; empty if there is none."""
    waiting = [client for client in stage.clients if not client.outcome]
    return "; ".join(f"{each.label} at {each.host.name}, {len(each.text)} characters" for each in waiting[:3])


async def leftovers(stage: "Stage") -> str:
    """Say what is still held; empty if nothing is."""
    for machine in core(stage):
        series = figures(await ask(machine.ops, "/metrics") or "")
        held = {name: total(series, f"inferno_{name}") for name in ("flights_active", "relay_tickets")}
        for row in await ask(machine.ops, "/members") or []:
            if row["name"] == machine.name and row["load"]:
                for model in row["load"]["models"]:
                    held |= {name: model[name] for name in ("running", "queued_tokens")}
                    held["kv_used_ratio"] = 1.0 - model["kv_free_ratio"]
        if not series or any(held.values()):
            return f"{machine.name} holds { {name: value for name, value in held.items() if value} }"
    return ""


Wrong = Callable[["Stage"], Awaitable[str]]


async def settle(stage: "Stage") -> dict[str, float]:
    """Wait until the mesh has come to rest; return the seconds that each condition took. Raises Violation."""
    bounds = stage.scenario.bounds
    conditions: tuple[tuple[str, Wrong, float], ...] = (
        ("views_agree", disagreement, bounds.views_s),
        ("engines_back", unready, bounds.engines_s),
        ("clients_served", unserved, bounds.clients_s),
        ("nothing_left", leftovers, bounds.left_s),
    )
    return {name: await _await_none(stage, name, wrong, within_s) for name, wrong, within_s in conditions}


async def _await_none(stage: "Stage", name: str, wrong: Wrong, within_s: float) -> float:
    began = stage.time
    while found := await wrong(stage):
        if stage.time - began > within_s:
            raise Violation(name, f"{found}, {within_s:g} s after the faults")
        await trio.sleep(POLL_S)
    return round(stage.time - began, 3)


# -- looked at once -------------------------------------------------------------------------------


async def examine(stage: "Stage", before: dict[str, Baseline]) -> None:
    """Hold every other oracle against the run. Raises Violation."""

    async def leaks(_stage: "Stage") -> str:
        return leak(stage, before)

    _texts(stage)
    judge(stage, stage.scenario.crashed, stage.scenario.may_fail)
    await _conservation(stage, before)
    await _await_none(stage, "nothing_leaks", leaks, LEAKS_S)
    _fallen(stage)
    _bites(stage)


def _texts(stage: "Stage") -> None:
    for client in stage.clients:
        if found := client.mistakes():
            raise Violation("text_exact", f"{client.label} at {client.host.name}: {'; '.join(found)}")


async def _conservation(stage: "Stage", before: dict[str, Baseline]) -> None:
    for machine in core(stage):
        if machine.process.pid != before[machine.name].process:
            continue
        asked = sum(client.host is machine for client in stage.clients)
        series = figures(await ask(machine.ops, "/metrics") or "")
        answers = {
            name: value
            for name, value in series.items()
            if name.startswith("inferno_http_answers_total{") and "/v1/completions" in name
        }
        if sum(answers.values()) != asked:
            raise Violation("conservation", f"{machine.name} was asked {asked} times and answered {answers}")


def leak(stage: "Stage", before: dict[str, Baseline]) -> str:
    """Name a process that holds more than it did; empty if none does."""
    peers = len(stage.hosts) - 1
    for name, now in baselines(stage).items():
        past = before.get(name)
        if past is None or past.process != now.process:
            continue
        if now.descriptors > past.descriptors + peers * LINK_DESCRIPTORS or now.threads > past.threads:
            return f"{name} had {past} and has {now}"
    return ""


def _fallen(stage: "Stage") -> None:
    for machine in stage.hosts.values():
        log = machine.log.read_text(errors="replace") if machine.log.exists() else ""
        if machine.expected_up and machine.core is None:
            raise Violation("nobody_fell", f"{machine.name} has ended by itself:\n{log[-1500:]}")
        if "Traceback" in log:
            raise Violation(
                "nobody_fell", f"{machine.name} has logged {log[log.index('Traceback') :][:1500]}"
            )


def _bites(stage: "Stage") -> None:
    idle = [kind for kind in stage.struck if not stage.bitten.get(kind)]
    if idle:
        raise Violation("faults_bite", f"{', '.join(idle)} struck and hit nothing")
