"""Entries die under clients that come back elsewhere: every token is told once, and a broken custody is caught."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.claims import ClaimOptions
from mesh.custody import Custody
from mesh.flight import Flight
from mesh.swim_options import SwimOptions
from mesh.trustee import Trustee
from node.core import NodeOptions
from sim.fault import Fault, Strike
from sim.faults import Crash
from sim.liveness import Bounds
from sim.scenario import Result, Scenario, run
from sim.workload import Request
from sim.world import WorldOptions

NAMES = tuple(f"node-{index}" for index in range(5))
OPTIONS = WorldOptions(NodeOptions(SwimOptions.local(), claims=ClaimOptions(return_s=3.0)))
BOUNDS = Bounds(views_s=10.0, engines_s=10.0, clients_s=30.0, left_s=10.0)
KILLED = (3.0, Crash("node-0"))


def streams(count: int = 12, tokens: int = 400, **more: Any) -> tuple[Request, ...]:
    return tuple(
        Request(
            NAMES[index % 2],
            2.0 + 0.01 * index,
            f"story {index}",
            1000 + index,
            tokens,
            resumable=True,
            **more,
        )
        for index in range(count)
    )


def played(*faults: tuple[float, Fault], requests: tuple[Request, ...] = (), seed: int = 5) -> Result:
    strikes = tuple(Strike(at, fault) for at, fault in faults)
    return run(
        Scenario(
            "test",
            seed,
            5,
            3,
            requests or streams(),
            strikes,
            8.0,
            NAMES,
            NAMES,
            options=OPTIONS,
            bounds=BOUNDS,
        )
    )


def exact(result: Result) -> Result:
    assert result.violation is None, "\n".join([str(result.violation), *result.world.trace.tail(40)])
    assert result.outcomes == {"done": len(result.world.clients)}
    return result


def test_streams_that_may_be_resumed_are_exact_when_nothing_befalls_them():
    result = exact(played())
    assert not any(client.returns for client in result.world.clients)


@pytest.mark.parametrize("power", [False, True], ids=["process killed", "power lost"])
@pytest.mark.parametrize("at", [2.2, 2.6, 3.0])
def test_streams_of_a_killed_entry_go_on_elsewhere_to_the_character(power: bool, at: float):
    result = exact(played((at, Crash("node-0", power))))
    assert sum(client.returns > 0 for client in result.world.clients) == 6


def test_entries_may_die_one_after_the_other():
    result = exact(played((2.5, Crash("node-0")), (4.5, Crash("node-2")), requests=streams(tokens=900)))
    assert any(client.returns > 1 for client in result.world.clients)


def test_who_leaves_an_entry_that_lives_is_served_elsewhere_and_the_old_one_lets_go():
    result = exact(played(requests=streams(leave_after_s=0.6)))
    taken = sum(host.core.custody.statistics.taken for host in result.world.hosts.values())
    assert taken > 0
    assert all(client.returns for client in result.world.clients)


def _repeats(self: Flight, started: Any, chunks: Any) -> None:
    """A successor that takes the last piece of the log twice."""
    RESTORE(self, started, (*chunks, *chunks[-1:]))


def _forgets(self: Trustee, now: Any, node: str, frame: Any) -> list:
    """A keeper that acknowledges and keeps nothing."""
    answers = KEEP(self, now, node, frame)
    self.trusts.pop(frame.flight, None)
    return answers


RESTORE, KEEP = Flight.restore, Trustee.keep


@pytest.mark.parametrize(
    ("owner", "name", "broken", "caught"),
    [
        (Flight, "restore", _repeats, "text_exact"),
        (Trustee, "keep", _forgets, ""),
        (Custody, "finding", lambda self, claim: None, "clients_served"),
    ],
)
def test_a_broken_custody_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., Any], caught: str
):
    monkeypatch.setattr(owner, name, broken)
    result = played(KILLED)
    if caught:
        assert result.violation is not None
        assert result.violation.check == caught
    else:
        assert result.outcomes.get("entry_lost")
