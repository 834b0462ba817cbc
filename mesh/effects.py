"""What a core asks its driver to do: the closed union of effects.

A core never touches a socket, a process or a clock. It returns effects, in the
order in which they must be carried out, and learns of their outcome through an
input method named in the effect's docstring. Two drivers carry them out: the
trio one (`node.driver`) and the simulator's (`sim.world`).
"""

from typing import Any

import attrs

from mesh.frames import Frame
from mesh.hot import hot

Address = tuple[str, int]
"""(numeric IP address, port), as the socket layer reports it."""

LinkId = int
"""Names one connection for as long as the node runs; never reused."""

LOCAL: LinkId = 0
"""The link from a node to itself, which is none: no connection ever has this name."""


@hot
class SendDatagram:
    """Send one UDP datagram; it may be lost. No outcome is reported."""

    address: Address
    data: bytes


@attrs.frozen
class SendReliable:
    """Send one gossip message to an address over its TCP link, dialling if there is none.

    An effect of `mesh.swim` that `node.core` turns into a GOSSIP frame; drivers never see it.
    """

    address: Address
    data: bytes


@attrs.frozen
class SendFrame:
    """Send a frame to the node that serves, or that asked; `port` is a link, or LOCAL for this node itself.

    An effect of `mesh.forward` and `mesh.relay` that `node.core` turns into bytes; drivers never see it.
    """

    node: str
    """The peer to send to, if no port is given."""
    frame: Frame
    port: LinkId | None = None
    """The link on which the request came, on which its answers must go back."""


@attrs.frozen
class Dial:
    """Connect to a peer; the outcome is `link_opened(now, link)` or `link_lost(now, link, reason)`."""

    link: LinkId
    address: Address


@attrs.frozen
class FlushLink:
    """Bytes wait in the link's outbox: take them with `core.link_output(link, limit)` and write them."""

    link: LinkId


@attrs.frozen
class CloseLink:
    """Close the connection at once. `link_lost` is not called for it: the core knows."""

    link: LinkId
    reason: str


@attrs.frozen
class StartEngine:
    """Start the engine process of a replica; `link` names the socketpair to it.

    Outcomes: `engine_started(now, replica, pid)`, its bytes through `link_data` and `FlushLink` as
    for any link, and at last `engine_exited(now, replica, reason)`.
    """

    replica: str
    link: LinkId


@attrs.frozen
class KillEngine:
    """Kill the engine process of a replica; `engine_exited` follows."""

    replica: str
    reason: str


@attrs.frozen
class Wake:
    """A flight's log has grown or ended: wake whoever serves its client from that log."""

    flight: int


@attrs.frozen
class Report:
    """Tell the operator something that happened: one log line, fields in order."""

    event: str
    fields: tuple[tuple[str, Any], ...] = ()


@attrs.frozen
class ViewMoved:
    """The view of the mesh has changed (`mesh.views`): wake whoever follows it."""

    number: int
    """Of the newest change."""


@attrs.frozen
class KeepGeneration:
    """Keep this generation as that of the running life, before what follows is sent: the next life begins above it.

    Nothing is reported back; without a data directory there is nothing to do.
    """

    generation: int


@attrs.frozen
class Stop:
    """End the process, with this reason: it must not go on. Nothing is reported back."""

    reason: str


Effect = (
    SendDatagram
    | SendReliable
    | SendFrame
    | Dial
    | FlushLink
    | CloseLink
    | StartEngine
    | KillEngine
    | Wake
    | Report
    | ViewMoved
    | KeepGeneration
    | Stop
)
