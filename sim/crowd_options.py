"""How a crowd is built, and what it counts. See `sim.crowd`."""

from collections.abc import Callable

import attrs

from mesh.effects import Address
from mesh.identity import Identity
from mesh.member import Member
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.network import Rule
from sim.stream import seed_of

PORT = 7946


def account_of(seed: int, index: int, generation: int, address: Address) -> Member:
    """What a node says of itself. Ids are 64 random bits, as in a real mesh."""
    return Member(Identity(f"{seed_of(seed, 'id', index):016x}", generation), f"node-{index}", address)


def address_of(index: int) -> Address:
    """Where a node listens, unless it moves."""
    return (f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", PORT)


@attrs.frozen
class CrowdOptions:
    """How a crowd is built."""

    swim: SwimOptions = SwimOptions.local()
    """Of every node for which nothing else is said."""
    network: Rule = Rule(delay_s=0.0003, jitter_s=0.0004)
    """The undisturbed network."""
    refusals: bool = False
    """Whether a sender is told when nobody listens where it sent reliably."""
    keep_log: bool = True
    """Whether facts and reports are kept; forming a large crowd by joins makes n squared of them."""
    core: Callable[..., Swim] = Swim
    """What to run; tests plant broken ones here."""
    account: Callable[[int, int, int, Address], Member] = account_of
    """(seed, number, generation, address) -> what the node says of itself."""
    address: Callable[[int], Address] = address_of


@attrs.define
class CrowdCounts:
    """Counters since the crowd began."""

    events: int = 0
    packets: int = 0
    """Sent, reliable ones included."""
    bytes: int = 0
    """On the wire: with 28 for IP and UDP each."""
    delivered: int = 0
    lost: int = 0
    cut: int = 0
    duplicated: int = 0
    overflowed: int = 0
    """Dropped because a socket that nobody reads was full."""
    nobody: int = 0
    """Sent to an address where no process listens."""
    ticks: int = 0
