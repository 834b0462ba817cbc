"""Between the sub-cores of a node: what one says is carried to whoever it is for.

Frames become bytes of a link, or pass between this node's own entry and worker. Facts go, by the
table in `_tell`, to the siblings that must know, and may beget more of either. What is left are
effects, for the driver, in the order in which they must be carried out.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from mesh.custody import Custody
from mesh.effects import LOCAL, Effect, LinkId, Report, SendDatagram, SendFrame, SendReliable
from mesh.facts import (
    ClaimEnded,
    ClaimTaken,
    EngineLost,
    EngineReady,
    EventHeard,
    Fact,
    LinkDown,
    LinkSilent,
    LinkUp,
    MemberChanged,
    MetadataChanged,
    Quarantined,
    QuarantineLifted,
    RecordChanged,
    TwinMet,
)
from mesh.forward import Forwarder
from mesh.frames import Frame, Kind
from mesh.links import Links, format_address
from mesh.member import Member
from mesh.now import Now
from mesh.relay import Relay, SendEngine
from mesh.replication import Replication
from mesh.swim import Swim
from node.policy.engine_links import EngineLinks

if TYPE_CHECKING:
    from mesh.seal import Seal  # 20 ms of start-up, for those who have a key

Output = Effect | Fact | SendEngine

SETTLE_STEPS_MAX = 100_000
"""More outputs than this from one input is a loop in the table below: our bug."""


@attrs.frozen
class Switchboard:
    """The sub-cores of one node, and the way between them."""

    _swim: Swim
    _links: Links
    _forwarder: Forwarder
    _relay: Relay
    _engine_links: EngineLinks
    _records: Replication
    _custody: Custody
    _publish: Callable[[Now], list[Output]]
    """Tells the mesh how loaded this node is."""
    _seal: "Seal | None" = None
    """Seals datagrams, where the mesh has a key."""

    def settle(self, now: Now, outputs: list[Output]) -> list[Effect]:
        """Carry what a sub-core said to whoever it is for, until only effects are left, in order."""
        effects: list[Effect] = []
        pending = outputs[::-1]
        for _ in range(SETTLE_STEPS_MAX):
            if not pending:
                return effects
            self._settle_one(now, pending.pop(), pending, effects)
        raise AssertionError("outputs beget outputs without end")

    def _settle_one(self, now: Now, output: Output, pending: list[Output], effects: list[Effect]) -> None:
        match output:
            case SendFrame():
                pending += self._send_frame(now, output)[::-1]
            case SendEngine():
                pending += self._engine_links.send(output.replica, output.frame)
            case SendReliable():
                frame = Frame(Kind.GOSSIP, body=output.data)
                pending += self._links.send(now, frame, "", output.address)[::-1]
            case (
                MemberChanged()
                | Quarantined()
                | QuarantineLifted()
                | LinkUp()
                | LinkDown()
                | LinkSilent()
                | TwinMet()
                | EngineReady()
                | EngineLost()
                | EventHeard()
                | MetadataChanged()
                | RecordChanged()
                | ClaimEnded()
                | ClaimTaken()
            ):
                pending += self._tell(now, output, effects)[::-1]
            case SendDatagram(address, data) if self._seal is not None:
                effects += self._seal.send(now, address, data)
            case _:
                effects.append(output)

    def _send_frame(self, now: Now, send: SendFrame) -> list[Output]:
        if send.port == LOCAL:
            return self._forwarder.receive(now, self._swim.me.node, send.frame)
        if send.port is not None:
            return self._links.reply(now, send.frame, send.port)
        if send.node == self._swim.me.node:
            return self._relay.receive(LOCAL, send.node, send.frame)
        member = self._swim.member(send.node)
        return self._links.send(now, send.frame, send.node, member.address if member else None)

    def _tell(self, now: Now, fact: Fact, effects: list[Effect]) -> list[Output]:
        match fact:
            case MemberChanged(before, after):
                effects.append(_member_report(before, after))
                return self._member_changed(now, before, after)
            case Quarantined(node, reason):
                effects.append(Report("quarantined", (("node", self._label(node)), ("reason", reason))))
                return [*self._forwarder.node_lost(now, node, reason), *self._custody.view_changed(now)]
            case QuarantineLifted(node):
                effects.append(Report("quarantine_lifted", (("node", self._label(node)),)))
                self._links.refresh(node)
                return [*self._forwarder.view_changed(now), *self._custody.view_changed(now)]
            case LinkUp() | LinkDown() | LinkSilent() | TwinMet():
                return self._link_changed(now, fact)
            case RecordChanged() | EventHeard() | MetadataChanged():
                return []
            case ClaimEnded(claim, flights):
                released = [one for id in flights for one in self._forwarder.release(now, id)]
                return [*self._custody.ended(claim), *released]
            case ClaimTaken(claim):
                return self._custody.claims.end(claim)
            case EngineReady():
                return [*self._publish(now), *self._forwarder.view_changed(now)]
            case EngineLost(replica, reason, in_step):
                return [*self._relay.engine_lost(replica, reason, in_step), *self._publish(now)]

    def _member_changed(self, now: Now, before: Member | None, after: Member) -> list[Output]:
        self._records.member_changed(now, after)
        if not after.is_live:
            reason = after.liveness.name.lower()
            return [
                *self._forwarder.node_lost(now, after.node, reason),
                *self._links.drop(after.node, reason),
                *self._custody.view_changed(now),
            ]
        if before is not None and not before.is_live:
            self._links.refresh(after.node)
        return [*self._forwarder.view_changed(now), *self._custody.view_changed(now)]

    def _link_changed(self, now: Now, fact: LinkUp | LinkDown | LinkSilent | TwinMet) -> list[Output]:
        match fact:
            case LinkUp(_, node):
                return self._swim.heard(now, node)
            case LinkDown(link, node, reason, primary):
                return self._link_down(now, link, node, reason, primary)
            case LinkSilent(node, silent_s):
                reason = f"silent for {silent_s:.1f} s"
                evidence = self._swim.evidence(now, node, reason)
                return [*self._forwarder.node_lost(now, node, reason), *evidence]
            case TwinMet(address):
                return self._swim.met_twin(now, address)

    def _link_down(self, now: Now, link: LinkId, node: str, reason: str, primary: bool) -> list[Output]:
        outputs = self._relay.port_lost(link)
        if primary:
            evidence = self._swim.evidence(now, node, reason)
            outputs += [*self._forwarder.node_lost(now, node, reason), *evidence]
        return outputs

    def _label(self, node: str) -> str:
        member = self._swim.member(node)
        return member.name if member else node


def _member_report(before: Member | None, after: Member) -> Report:
    was = before.liveness.name.lower() if before else "unknown"
    fields = (("node", after.name), ("state", after.liveness.name.lower()), ("was", was))
    return Report("member", (*fields, ("address", format_address(after.address))))
