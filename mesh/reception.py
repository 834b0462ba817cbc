"""What arrives at a membership core: packets, taken apart, each part given to whom it is for.

The order is fixed: accounts first, others' before our own, so that what else a packet says is judged by what is
believed after it; then load records and events; then the message, whose answer carries what was just learned. A
packet of our own id tells nothing but that; one of another mesh (`mesh.border`) tells nothing at all. Who is leaving
hears nothing any more.
"""

from typing import assert_never

from mesh import codec
from mesh.ages import ages_of
from mesh.beliefs import Beliefs
from mesh.border import Border
from mesh.detector import Detector, Say
from mesh.effects import Address
from mesh.errors import DecodeError
from mesh.events import Events
from mesh.load import LoadMark, LoadTable
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.messages import (
    Ack,
    Gossip,
    Join,
    Leave,
    MetadataAnswer,
    MetadataAsk,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Reconcile,
    Seen,
    Snapshot,
    Sync,
)
from mesh.metadata import Metadata
from mesh.myself import Myself
from mesh.now import Now
from mesh.reconcile import Reconciler, is_bulk
from mesh.reunion import Reunion
from mesh.swim_statistics import Tally
from mesh.voice import Voice


class Reception:
    """Reads packets and hands them round. What it says goes through `Voice`."""

    def __init__(
        self,
        me: str,
        border: Border,
        members: Members,
        detector: Detector,
        beliefs: Beliefs,
        myself: Myself,
        reunion: Reunion,
        reconciler: Reconciler,
        loads: LoadTable,
        events: Events,
        metadata: Metadata,
        voice: Voice,
        tally: Tally,
    ) -> None:
        self._me = me
        self._border = border
        self._members = members
        self._detector = detector
        self._beliefs = beliefs
        self._myself = myself
        self._reunion = reunion
        self._reconciler = reconciler
        self._loads = loads
        self._events = events
        self._metadata = metadata
        self._voice = voice
        self._tally = tally
        self._waited_s = 0.0
        self.is_leaving = False
        """Whether this node has said goodbye."""

    def receive(self, now: Now, data: bytes, source: Address, reliable: bool, waited_s: float) -> None:
        """Take one packet, which has waited in a socket for `waited_s` at most.

        `source` is where a datagram came from; replies to reliable packets go to the address in the sender's own
        account. Anything that is not a packet is counted and dropped.
        """
        self._tally.packets_received += 1
        self._tally.bytes_received += len(data)
        try:
            limit = codec.RELIABLE_BYTES_MAX if reliable else codec.DATAGRAM_BYTES_MAX
            packet = codec.decode(data, limit, self._loads.holds)
        except DecodeError:
            self._tally.decode_errors += 1
            return
        self._waited_s = waited_s
        self._accept(now, packet, source, reliable)

    def _accept(self, now: Now, packet: Packet, source: Address, reliable: bool) -> None:
        self._tally.unknown_items += packet.unknown
        if self._border.refuses(now, packet, source, reliable):
            return
        if packet.updates and not self.is_leaving:
            self._learn(now, packet, source)
        self._hear_loads(now, packet)
        if packet.events and not self.is_leaving:
            self._events.hear(now, packet.events)
        if packet.pieces and not self.is_leaving and not isinstance(packet.message, MetadataAnswer):
            self._metadata.hear(now, packet.pieces)
        if packet.message.source == self._me:
            self._myself.mirrored(now, packet.message, source)
        elif not self.is_leaving:
            self._beliefs.weigh(now, self._detector.heard(now, packet.message.source))
            self._answer(now, packet, source, reliable)

    def _learn(self, now: Now, packet: Packet, source: Address) -> None:
        """Merge the accounts of a packet, and then look at what it says of us."""
        returned = self._members.returned
        self._voice.quiet = is_bulk(packet)
        for update, age_s in zip(packet.updates, ages_of(packet), strict=True):
            self._voice.age_s = age_s + self._waited_s if age_s is not None else None
            if not self._is_plausible(update.member):
                self._tally.implausible += 1
            elif update.member.node != self._me:
                self._beliefs.learn(now, update, (packet.message.source, source))
        self._voice.quiet, self._voice.age_s = False, None
        for update in packet.updates:
            if update.member.node == self._me and self._is_plausible(update.member):
                self._myself.hear(now, update.member, len(update.accusers))
        self._metadata.learn(now, packet.updates, packet.message.source if is_bulk(packet) else "")
        if self._members.returned != returned and self._reunion.met(now):
            self._reconciler.urge(now, packet.message.source)

    def _is_plausible(self, new: Member) -> bool:
        known = self._members.get(new.node)
        return known is None or new.identity.may_follow(known.identity)

    def _hear_loads(self, now: Now, packet: Packet) -> None:
        """Take figures, with the time for which they may have waited in a socket while we did not run."""
        source, waited_s = packet.message.source, self._waited_s
        for record in packet.loads:
            owner = self._beliefs.live_peer(record.node)
            if owner is not None and record.generation >= owner.identity.generation:
                self._loads.observe(now, record, source, waited_s)
        for still in packet.still:
            mark = LoadMark(source, still.generation, still.sequence, still.age_ms)
            self._loads.heard_again(now, mark, source, waited_s)
        for mark in packet.repeats:
            self._loads.heard_again(now, mark, source, waited_s)

    def _answer(self, now: Now, packet: Packet, source: Address, reliable: bool) -> None:
        message = packet.message
        known = self._members.get(message.source)
        reply_to = known.address if reliable and known is not None else source
        match message:
            case Ping() if message.target == self._me:
                self._pinged(now, message, packet, reply_to, reliable)
                self._tell_seen(now, known, source, reliable)
            case Ack():
                self._acked(now, message, reliable)
            case PingRequest():
                self._beliefs.weigh(now, self._detector.asked(now, message, reply_to))
            case Nack():
                self._detector.nacked(message)
            case Leave() | Gossip():
                pass
            case Reconcile():
                self._reconciler.receive(now, message, packet, reply_to, reliable)
            case Seen():
                self._myself.seen(now, message)
            case Join() | Snapshot() | Sync() | MetadataAsk() | MetadataAnswer():
                self._take_bulk(now, message, packet, reply_to, reliable)
            case Ping():
                self._tally.misplaced += 1
            case _:
                assert_never(message)

    def _pinged(self, now: Now, ping: Ping, packet: Packet, reply_to: Address, reliable: bool) -> None:
        """Say that we are there, and send our load record if it is missed."""
        round_trips = self._detector.round_trips
        if ping.coordinate and self._beliefs.live_peer(ping.source) is not None:
            round_trips.told(ping.source, ping.coordinate)
        ack = Ack(self._me, ping.nonce, self._members.digest(), round_trips.mine)
        missing = self._loads.missing(now, packet.held[0]) if packet.held else None
        self._voice.say(now, Say(reply_to, ack, ping.source, reliable), missing)

    def _tell_seen(self, now: Now, peer: Member | None, source: Address, reliable: bool) -> None:
        """Who doubts a member that pings us from elsewhere than it says tells it where it is seen."""
        if peer is None or reliable or peer.address == source:
            return
        if peer.liveness is not Liveness.ALIVE or self._detector.is_quarantined(peer.node):
            self._voice.say(now, Say(source, Seen(self._me, source), peer.node))

    def _take_bulk(
        self,
        now: Now,
        message: Join | Snapshot | Sync | MetadataAsk | MetadataAnswer,
        packet: Packet,
        reply_to: Address,
        reliable: bool,
    ) -> None:
        """Take what comes over links alone."""
        match message:
            case _ if not reliable:
                self._tally.misplaced += 1
            case Join():
                self._reconciler.welcome(now, message.source, reply_to)
            case Snapshot():
                self._reunion.joined(message.source)
                self._reconciler.urge(now, message.source)
            case Sync():
                self._reconciler.answer_sync(now, message, packet, reply_to)
            case MetadataAsk():
                self._metadata.answer(now, message, reply_to)
            case MetadataAnswer():
                self._metadata.receive(now, message, packet.pieces, self._detector.quarantined)

    def _acked(self, now: Now, ack: Ack, reliable: bool) -> None:
        findings = self._detector.acked(now, ack, reliable)
        self._beliefs.weigh(now, findings)
        if findings:
            self._reconciler.compare(now, ack)
