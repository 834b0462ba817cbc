"""Directed scenarios without clients: each leads membership through one kind of trouble after another."""

import attrs

from sim.fault import Fault, Strike
from sim.faults import (
    Amnesia,
    ClockSkew,
    Crash,
    Deaf,
    JoinStorm,
    LeaveStorm,
    Liar,
    LongPause,
    Loss,
    MassRestart,
    Mute,
    OneWayCut,
    Partition,
    Pause,
    Replay,
    Restart,
    RumourFlood,
    TcpCut,
    UdpCut,
)
from sim.liveness import Bounds
from sim.scenario import Scenario
from sim.world import WorldOptions

Story = tuple[int, float, tuple[tuple[float, Fault], ...]]
"""Nodes, the end of all faults, and the faults."""

STORIES: dict[str, Story] = {
    "lives": (
        5,
        22.0,
        (
            (3.0, Crash("node-3", power=True)),
            (6.0, Restart("node-3")),
            (8.0, Pause("node-2", 2.5)),
            (12.0, Partition(("node-4",), 4.0)),
            (18.0, LeaveStorm(("node-1",), 2.0)),
        ),
    ),
    "lies": (
        5,
        20.0,
        (
            (3.0, Liar("node-1", "node-4", "dead", 0, 2.0)),
            (6.0, Liar("node-1", "node-3", "suspect", 0, 2.0)),
            (9.0, Liar("node-2", "node-0", "dead", 7, 1.0)),
            (11.0, RumourFlood("node-2", 50.0, 1.0)),
            (13.0, Replay(0.3, 6.0, 4.0)),
            (15.0, Restart("node-1")),
        ),
    ),
    "noise": (
        5,
        32.0,
        (
            (3.0, Loss(0.5, 6.0)),
            (10.0, OneWayCut("node-3", "node-0", 4.0)),
            (15.0, UdpCut("node-2", 4.0)),
            (16.0, TcpCut("node-3", 4.0)),
            (20.0, ClockSkew("node-4", 3600.0)),
            (22.0, LongPause(("node-1", "node-2"), 6.0)),
        ),
    ),
    "crowds": (
        5,
        27.0,
        (
            (3.0, JoinStorm("node-0", 4)),
            (6.0, MassRestart(("node-2", "node-3", "node-4"), 1.0)),
            (10.0, Partition(("node-1", "node-2"), 5.0)),
            (18.0, Crash("node-3", power=True)),
            (18.0, Crash("node-4", power=True)),
            (20.0, Amnesia("node-2", 1.0)),
            (22.0, Restart("node-3")),
        ),
    ),
    "pair": (
        2,
        24.0,
        (
            (3.0, Pause("node-1", 3.0)),
            (8.0, Partition(("node-1",), 5.0)),
            (16.0, Crash("node-1", power=True)),
            (22.0, Restart("node-1")),
        ),
    ),
    "robin": (
        4,
        16.0,
        ((3.0, Crash("node-2", power=True)), (8.0, Restart("node-2")), (10.0, Pause("node-3", 3.0))),
    ),
    "full": (5, 16.0, tuple((3.0 + 2.5 * turn, Amnesia("node-4", 0.3)) for turn in range(5))),
    "trio": (
        3,
        24.0,
        (
            (3.0, Partition(("node-2",), 8.0)),
            (14.0, Crash("node-1", power=True)),
            (14.15, Restart("node-1")),
            (16.0, Pause("node-2", 0.45)),
            (18.0, Restart("node-2")),
            (19.0, OneWayCut("node-0", "node-1", 3.0)),
        ),
    ),
    "holes": (
        4,
        44.0,
        ((3.0, Partition(("node-3",), 20.0)), (26.0, Deaf("node-2", 6.0)), (35.0, Mute("node-1", 6.0))),
    ),
}


OPTIONS = {
    "robin": {"shared_probing": False},
    "full": {"members_max": 6},
}
"""What is different in the options of some."""


def story(name: str, seed: int = 1) -> Scenario:
    """Build one of them."""
    nodes, end_s, faults = STORIES[name]
    names = tuple(f"node-{index}" for index in range(nodes))
    strikes = tuple(Strike(at, fault) for at, fault in faults)
    options = WorldOptions()
    swim = attrs.evolve(options.node.swim, **OPTIONS.get(name, {}))
    options = attrs.evolve(options, node=attrs.evolve(options.node, swim=swim))
    scenario = Scenario(name, seed, nodes, 1, (), strikes, end_s, names, crashed=names, options=options)
    return attrs.evolve(scenario, exam=name != "full", bounds=Bounds(trust_s=90.0))
