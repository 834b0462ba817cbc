"""What the nodes of a crowd say to one another, as a list, and crowds in which every trip takes equally long.

With it a measure states when each packet is due, from the options alone, and finds the first that comes early, late
or not at all.
"""

import math
from collections.abc import Sequence

import attrs

from mesh import codec
from mesh.effects import Address, Effect, Report, SendDatagram, SendReliable
from mesh.facts import Fact, MemberChanged
from mesh.member import Liveness, Member
from mesh.messages import Ack, Gossip, Message, Packet, Update
from mesh.roll import Roll
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from sim.peer import Peer
from sim.rule import Rule

LOCAL = attrs.evolve(SwimOptions.local(), witnesses=0)
"""Here the first word of a doubt makes a suspect, so that each doubt has one time; `witnesses` has its own measures."""
TRIP_S = 0.001
"""Every datagram takes so long, and what is sent reliably three times as long."""
BYSTANDER = attrs.evolve(
    LOCAL,
    probe_period_s=1e9,
    shared_probing=False,
    two_verdicts=False,
    loss_scaling=False,
    gossip_fanout=0,
    suspicion_factor=1e9,
    heal_period_s=1e9,
)
"""Of nodes that answer and help, and begin nothing of their own."""
CLOSE_S = 1e-6
"""Rounding of clocks: two times so close are the same."""


@attrs.frozen
class Said:
    """One packet as it was sent."""

    at: float
    by: int
    address: Address
    to: int
    """0 if nobody is there."""
    packet: Packet
    size: int
    reliable: bool

    @property
    def message(self) -> Message:
        """What it says."""
        return self.packet.message


@attrs.define
class Wire:
    """Everything that is sent in a crowd from now on."""

    crowd: Crowd
    all: list[Said] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.crowd.taps.append(self.tap)

    def tap(self, peer: Peer, outputs: Sequence[Effect | Fact]) -> None:
        """Keep what a node sends."""
        for output in outputs:
            if isinstance(output, SendDatagram | SendReliable):
                reliable = isinstance(output, SendReliable)
                limit = codec.RELIABLE_BYTES_MAX if reliable else codec.DATAGRAM_BYTES_MAX
                packet = codec.decode(output.data, limit)
                to = self.crowd._at_address.get(output.address)
                index, size = to.index if to is not None else 0, len(output.data)
                said = Said(self.crowd.time, peer.index, output.address, index, packet, size, reliable)
                self.all.append(said)

    def of(self, *kinds: type, by: int = 0, to: int = 0, since: float = 0.0) -> list[Said]:
        """What was said of these kinds, by whom, to whom, since when; 0 is anybody."""
        return [
            said
            for said in self.all
            if isinstance(said.message, kinds or object)
            and by in (0, said.by)
            and to in (0, said.to)
            and said.at >= since
        ]

    def accounts(self, node: str, **who: float) -> list[tuple[Said, Update]]:
        """What was said of one node, by whom and to whom."""
        return [(said, u) for said in self.of(**who) for u in said.packet.updates if u.member.node == node]


def even(count: int, run_s: float = 4.0, swim: SwimOptions = LOCAL, **more: object) -> Crowd:
    """A crowd that has been still for a while, in which every trip takes equally long; its log is empty."""
    crowd = Crowd(7, CrowdOptions(swim=swim, network=Rule(delay_s=TRIP_S), **more))
    crowd.form(count)
    crowd.run_for(run_s)
    crowd.log.clear()
    return crowd


def lone(count: int, run_s: float = 4.0, swim: SwimOptions = LOCAL, **more: object) -> Crowd:
    """A crowd of which node-1 alone begins anything; all the others answer it."""
    crowd = Crowd(7, CrowdOptions(swim=BYSTANDER, network=Rule(delay_s=TRIP_S), **more))
    known = Roll.of(crowd._account(index, 1) for index in range(1, count + 1))
    for index in range(1, count + 1):
        crowd._enter(crowd._seat(index, swim if index == 1 else BYSTANDER), known)
    crowd.run_for(run_s)
    crowd.log.clear()
    return crowd


def row(crowd: Crowd, observer: int, subject: int) -> Member:
    """What one holds of another, whom it knows."""
    known = crowd.core(observer).member(crowd.node(subject))
    assert known is not None, "they know one another"
    return known


def told(crowd: Crowd, to: int, by: int, member: Member, *accusers: str) -> None:
    """Let one node tell another something of a third."""
    data = codec.packet([codec.item(Gossip(crowd.node(by))), codec.item(Update(member, accusers))])
    crowd.call(to, "receive", data, crowd[by].address)


def said_gone(crowd: Crowd, to: int, by: int, subject: int) -> None:
    """Let one node tell another that a third has left."""
    told(crowd, to, by, attrs.evolve(row(crowd, to, subject), liveness=Liveness.LEFT))


def close(one: float, other: float, within_s: float = CLOSE_S) -> bool:
    """Whether two times are the same."""
    return abs(one - other) <= within_s


def moment(crowd: Crowd, who: int, subject: int, liveness: Liveness) -> float:
    """When a node first came to hold another for that, since the log was emptied; infinite if it did not."""
    node = crowd.node(subject)
    changes = [(at, f.after) for at, index, f in crowd.log if index == who and isinstance(f, MemberChanged)]
    return next((at for at, after in changes if after.node == node and after.liveness is liveness), math.inf)


def reports(crowd: Crowd, who: int, *events: str) -> list[tuple[float, dict[str, object]]]:
    """What a node told its operator, and when."""
    told = [(at, f) for at, index, f in crowd.log if index == who and isinstance(f, Report)]
    return [(at, dict(report.fields)) for at, report in told if report.event in events]


def after_echo(crowd: Crowd, who: int, wait_s: float) -> float:
    """Let time pass until a ping of one node was answered, and some time more; return the time then."""
    wire = Wire(crowd)
    since = crowd.time
    crowd.run_until(lambda: bool(wire.of(Ack, to=who, since=since + CLOSE_S)), 10.0)
    crowd.taps.remove(wire.tap)
    crowd.run_for(TRIP_S + wait_s)
    return crowd.time
