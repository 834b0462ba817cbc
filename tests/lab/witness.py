"""What the nodes say of themselves while a run goes on: who holds whom for what, sampled."""

from typing import TYPE_CHECKING

import attrs
import trio

from tests.lab.ask import ask

if TYPE_CHECKING:
    from tests.lab.machine import Machine
    from tests.lab.stage import Stage

SAMPLE_S = 0.4
"""Time between two looks at a node; a look costs it about a millisecond."""


@attrs.frozen
class Sample:
    """What one node believed at one time."""

    at: float
    observer: str
    beliefs: dict[str, str]
    """Name -> alive, suspect, dead, left or quarantined."""


async def watch(stage: "Stage", samples: list[Sample]) -> None:
    """Sample every node that can answer; runs until cancelled."""
    async with trio.open_nursery() as nursery:
        for machine in stage.hosts.values():
            nursery.start_soon(_watch_one, stage, machine, samples)


async def _watch_one(stage: "Stage", machine: "Machine", samples: list[Sample]) -> None:
    while True:
        if machine.bind is not None and machine.core and not machine.paused:
            at = stage.time
            rows = await ask(machine.ops, "/members")
            if rows is not None:
                beliefs = {
                    row["name"]: "quarantined"
                    if row["quarantined"] and row["state"] == "alive"
                    else row["state"]
                    for row in rows
                }
                samples.append(Sample(at, machine.name, beliefs))
        await trio.sleep(SAMPLE_S)
