"""What every check needs: whose life it looks at, and how it objects."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.host import Host

SLOWEST = 0.9
"""A drifting clock may make a second of its node last this much longer (`sim.clock.RATE_MIN`)."""

Life = tuple[str, str, int]
"""(host, node id, generation): what is remembered of one life says nothing about the next."""


def life(host: "Host") -> Life:
    """Name the running life of a host."""
    return host.name, host.id, host.generation


def object_to(host: "Host", check: str, message: str) -> None:
    """A check does not hold at a host. Raises Violation, unless the faults of the run excuse it."""
    host.world.doubt(check, f"{host.name}: {message}")
