"""One run in a few numbers: what a swarm of thousands keeps of each, and what all of them come to."""

from collections.abc import Iterable

import attrs

from sim.journal import Journal
from sim.scenario import Scenario, run


@attrs.frozen
class Tally:
    """What is kept of one run."""

    seed: int
    nodes: int
    virtual_s: float
    events: int
    digest: str
    check: str = ""
    """The check that failed; empty if all held."""
    message: str = ""
    faults: tuple[tuple[str, int], ...] = ()
    """How often each kind struck."""
    bitten: tuple[tuple[str, int], ...] = ()
    """How often each kind had an effect: a packet that it hit, a node that it stopped."""
    reached: tuple[tuple[str, int], ...] = ()
    """How often each state was reached, or event was told."""
    outcomes: tuple[tuple[str, int], ...] = ()
    moves: int = 0
    sealed: bool = False
    """Whether every datagram was sealed."""


def tally(scenario: Scenario) -> Tally:
    """Run a scenario, and keep a few numbers."""
    journal = Journal()
    result = run(scenario, listen=journal.attach)
    world, found = result.world, result.violation
    return Tally(
        scenario.seed,
        scenario.nodes,
        world.time,
        world.events,
        world.trace.digest(),
        found.check if found else "",
        found.message if found else "",
        tuple(world.struck.items()),
        tuple(world.bitten.items()),
        tuple(journal.counts.items()),
        tuple(result.outcomes.items()),
        sum(client.moves for client in world.clients),
        scenario.sealed,
    )


def sums(counts: Iterable[tuple[tuple[str, int], ...]]) -> dict[str, int]:
    """Add up counts by name, in the order of the names."""
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each:
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))
