"""The experiment of 800 requests: eight clients, each asking one after another, and a fault in their midst.

Five nodes of which the first is the clients' entry, four have a paced toy engine. The fault strikes
`node-2`. What is told is how many failed, and what clients felt beyond the pace: the longest gap of
each stream that moved.
"""

import attrs

from sim.fault import Fault, Strike
from sim.report import quantile
from sim.scenario import Scenario
from sim.troubles.cuts import OneWayCut
from sim.troubles.engines import EngineCrash, EngineFreeze
from sim.troubles.processes import Crash, Pause
from sim.workload import Request
from tests.lab.run import Outcome

NODES = 5
CLIENTS = 8
REQUESTS = 100
TOKENS = 100
VICTIM = "node-2"
ENTRY = "node-0"

FAULTS: dict[str, Fault] = {
    "kill": Crash(VICTIM),
    "engine-kill": EngineCrash(VICTIM),
    "freeze": Pause(VICTIM, 10.0),
    "freeze-engine": EngineFreeze(VICTIM),
    "one-way": OneWayCut(VICTIM, ENTRY, 10.0),
}
"""By the name that a person says."""


def scenario(fault: str, requests: int = REQUESTS, fault_at: float = 30.0) -> Scenario:
    """Return the experiment; `requests` of each of the clients."""
    core = tuple(f"node-{number}" for number in range(NODES))
    killed = fault == "kill"
    return Scenario(
        name=f"experiment {fault}",
        seed=1,
        nodes=NODES,
        workers=NODES - 1,
        requests=tuple(
            Request(ENTRY, 0.0, f"client {client} asks {number}: ", client * 1000 + number, TOKENS)
            for client in range(CLIENTS)
            for number in range(requests)
        ),
        strikes=(Strike(fault_at, FAULTS[fault]),),
        faults_end_s=fault_at + 12.0,
        core=tuple(name for name in core if not (killed and name == VICTIM)),
    )


@attrs.frozen
class Felt:
    """What clients felt of one run. Times in seconds."""

    requests: int
    failed: int
    moved: int
    pace_p50_s: float
    gap_p99_s: float
    """Of the longest gaps of all streams."""
    moved_gap_p99_s: float
    """Of the longest gaps of those that moved."""


def felt(outcome: Outcome) -> Felt:
    """Return what the clients of a run felt."""
    gaps = [gap for client in outcome.clients for gap in client.gaps_s]
    longest = [max(client.gaps_s, default=0.0) for client in outcome.clients]
    moved = [max(client.gaps_s, default=0.0) for client in outcome.clients if client.moves]
    return Felt(
        len(outcome.clients),
        sum(client.outcome != "done" or bool(client.mistakes()) for client in outcome.clients),
        len(moved),
        quantile(gaps, 0.5) or 0.0,
        quantile(longest, 0.99) or 0.0,
        quantile(moved, 0.99) or 0.0,
    )
