"""What a stage of the bench is, and how large its runs are."""

from collections.abc import Callable

import attrs

from tests.bench.mesh.contenders import Contender
from tests.bench.mesh.figures import Figures, Row


@attrs.frozen
class Cut:
    """A partition: how long, and whether only one direction is cut."""

    seconds: float
    one_way: bool

    @property
    def name(self) -> str:
        """For figures' keys."""
        return f"{'one' if self.one_way else 'both'}_{self.seconds:g}"


@attrs.frozen
class Scale:
    """How much is run; the schedule is drawn from the seed and is the same for every contender."""

    seed: int
    nodes: int = 64
    kills: int = 16
    silences: int = 6
    linked_kills: int = 8
    idle_nodes: tuple[int, ...] = (8, 64)
    idle_s: float = 20.0
    bursts: int = 4
    cut_nodes: int = 32
    cuts: tuple[Cut, ...] = (
        Cut(10, False),
        Cut(10, True),
        Cut(60, False),
        Cut(60, True),
    )
    losses_percent: tuple[int, ...] = (30, 50)
    loss_s: float = 60.0
    pauses: int = 7
    pause_s: float = 16.384


FULL = Scale(seed=1)

QUICK = Scale(
    seed=1,
    nodes=16,
    kills=5,
    silences=3,
    linked_kills=3,
    idle_nodes=(4, 16),
    idle_s=10.0,
    bursts=2,
    cut_nodes=16,
    cuts=(Cut(10, False), Cut(10, True)),
    losses_percent=(50,),
    loss_s=20.0,
    pauses=2,
    pause_s=8.0,
)

Run = Callable[[Contender, Scale], Figures]


@attrs.frozen
class Stage:
    """One schedule: what it shows, how it is run on one contender, and the lines of its table."""

    name: str
    what: str
    run: Run
    rows: Callable[[Scale], tuple[Row, ...]]
