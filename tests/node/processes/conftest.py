"""Real nodes as child processes, with the toy engine unless a test says otherwise."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.cli.fleet import ANY_PORTS, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose nodes end with the test."""
    with Fleet(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def toys(fleet: Fleet) -> Callable[[int], Fleet]:
    """Start so many nodes with the toy engine and wait until each sees all of them ready."""

    def start(count: int) -> Fleet:
        fleet.start_all([f"n{n + 1}" for n in range(count)], *ANY_PORTS, "--model", "toy")
        fleet.wait_converged()
        return fleet

    return start
