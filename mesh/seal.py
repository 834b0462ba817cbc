"""Sealed datagrams: nobody without the mesh key can read, forge, alter, replay or re-address one.

Theory of operation. Each process draws a random *session* and seals everything that it sends
under a key of its own, HKDF(mesh key, session), with a counter that is never used twice. The
receiver's session and the mesh's name are bound into the associated data, so that a recorded
packet opens at no other node, at no later life of the same one, and in no other mesh. So a
sender must know the receiver's session first, and a receiver admits a session only at an
address where it has proved to be:

    A -> B   KNOCK       "I am session a"; authenticated, leaves nothing behind at B
    B -> A   CHALLENGE   B's session, and a cookie for (A's address, a); bound to the knock
    A -> B   ADMIT       the packet that waited, with the cookie: B admits a at that address
    A <-> B  DATA

Whatever B cannot place, since it has restarted or forgotten, is answered by a challenge, and
the sender comes again with the cookie. A packet from a new address is opened, but answered
where its session was last proved to be; a challenge goes to the new address (NAT rebind; RFC
9000, section 8.2, has the same rule). Nothing is answered by more bytes than it had.

What is refused is counted by its reason, and changes nothing else. A knock says in the clear
which key and label its sender has, 4 bytes of each: so a wrong key, a wrong label and a wrong
clock are told apart. Anybody can forge these, hence they only count and report.
"""

from collections.abc import Callable
from typing import Any

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.bucket import Bucket
from mesh.codec import DATAGRAM_BYTES_MAX, UNSEALED, VERSION
from mesh.cookie import COOKIE_BYTES, COUNTER_BYTES, SLOT_S, Cookies
from mesh.effects import Address, Effect, Report, SendDatagram
from mesh.envelope import (
    ANSWER_BYTES_MIN,
    COUNTER_BITS,
    COUNTER_MAX,
    HEADER_BYTES,
    PACKET_HEADER_BYTES,
    SESSION_BYTES,
    SHORTEST_BYTES,
    Kind,
    Why,
    nonce,
    unword,
    word,
)
from mesh.keyring import Keyring, MeshKey, label_bytes
from mesh.knock import knock, refusal
from mesh.now import Now
from mesh.replay import ReplayWindow
from mesh.sessions import Peer, Sessions

PACKET_HEADER = bytes((VERSION, UNSEALED))
SENT_MAX = 256
"""Packets kept for when their receiver turns out not to know us."""
WAITING_MAX = 1024
"""Addresses whose session is being asked for at once."""
WAITING_PACKETS = 4
"""Packets kept for one such address: the newest."""
WAITING_S = 2.0
"""A packet that has waited longer is of no use to a failure detector."""
KNOCK_S = 0.2
"""An address is knocked at no more often than this."""
REKNOCK_S = 2.0
"""Who has not answered for so long may have forgotten us: knock with the next packet."""
REKNOCK_PACKETS = 3
"""Nor answered so many: an acknowledgement goes unanswered, and so may the ping after it be yet."""
CHALLENGES_PER_S = 2000.0
"""Answers to knocks, all sources together."""
STRANGERS_PER_S = 500.0
"""Answers to what only looks like a member's packet, all sources together."""
SESSION_PACKETS_MAX = 2**32
"""Packets under one session's key; then the session is drawn anew."""
SESSION_S = 7 * 86_400.0
"""Age at which a session is drawn anew."""
OVERLAP_S = 60.0
"""For so long packets to our last session are opened too."""
SKEW_MAX_S = 60.0
"""Clocks that differ by more are counted and told."""
COOKIE_COUNTER_MAX = 256**COUNTER_BYTES - 1
"""Far above SESSION_PACKETS_MAX: no honest counter is cut."""
TELL_S = 10.0
"""One report for each reason in this time."""

HINTS = {
    "wrong_key": "that node has another mesh key under the same id",
    "wrong_label": "that node has our key but another --mesh-name",
    "unknown_key": "that node seals with a key that is not in our --mesh-key-file",
    "clear": "that node has no --mesh-key-file",
}
"""What to tell the operator of a refusal; the others are only counted."""

Received = tuple[bytes | None, Address, list[Effect]]
"""A packet, if one came out, with the address to answer it at; and what else must be sent or told."""


@attrs.frozen
class SealOptions:
    """What a sealing node needs to know."""

    keyring: Keyring
    label: str = "inferno"
    """The mesh's name: nodes of different names never hear each other, whatever their keys."""


@attrs.define
class SealStatistics:
    """Counters since the process began."""

    sealed: int = 0
    opened: int = 0
    challenged: int = 0
    """Challenges sent."""
    knocked: int = 0
    """Knocks sent."""
    sessions: int = 0
    """Sessions admitted."""
    shed: int = 0
    """Challenges not sent, because there were too many or the packet was too short."""
    unsent: int = 0
    """Packets dropped while their receiver's session was asked for."""
    rejected: dict[str, int] = attrs.field(factory=dict)
    """Datagrams refused, by reason."""


class Seal:
    """The sealing of one process. `draw(n)` returns n random bytes: the system's, or a simulator's own."""

    def __init__(self, options: SealOptions, draw: Callable[[int], bytes]) -> None:
        self.statistics = SealStatistics()
        self._draw = draw
        self._label = label_bytes(options.label)
        self._cookies = Cookies(draw(32))
        self._sessions = Sessions()
        self._waiting: dict[Address, list[tuple[float, bytes]]] = {}
        self._knocked_at: dict[Address, float] = {}
        self._sent: dict[int, tuple[Address, bytes | None]] = {}
        self._answers = Bucket(CHALLENGES_PER_S, CHALLENGES_PER_S)
        self._strangers = Bucket(STRANGERS_PER_S, STRANGERS_PER_S)
        self._told_at: dict[str, float] = {}
        self._session = b""
        self._previous = b""
        self._previous_until = 0.0
        self._renew_at: float | None = None
        """When our session is drawn anew; None until its first packet."""
        self._keyring = options.keyring
        self._keys = options.keyring.by_id()
        self._begin_session()

    def __len__(self) -> int:
        """How many sessions of others are held."""
        return len(self._sessions)

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges by name."""
        counters = attrs.asdict(self.statistics)
        return {**counters, "held": len(self._sessions), "waiting": len(self._waiting)}

    # -- our own session --------------------------------------------------------------------------

    def _begin_session(self) -> None:
        key = self._keyring.first
        self._previous, self._session = self._session, self._draw(SESSION_BYTES)
        self._aead = AESGCM(key.session_key(self._session))
        self._prefix = bytes((VERSION, key.id)) + self._session
        self._counter = 0
        self._sent.clear()
        for peer in self._sessions.peers.values():
            peer.confirmed, peer.cookie = False, b""

    def _renew(self, now: Now) -> None:
        self._begin_session()
        self._previous_until = now.mono + OVERLAP_S
        self._renew_at = now.mono + SESSION_S

    def _age(self, now: Now) -> None:
        if self._renew_at is None:
            self._renew_at = now.mono + SESSION_S
        elif now.mono >= self._renew_at or self._counter >= SESSION_PACKETS_MAX:
            self._renew(now)

    def rekey(self, now: Now, keyring: Keyring) -> None:
        """Take another ring; what is sealed under keys that it lacks is refused from now on."""
        kept = frozenset(key.id for key in keyring.keys if self._keys.get(key.id) == key)
        changed = keyring.first != self._keyring.first
        self._keyring, self._keys = keyring, keyring.by_id()
        self._sessions.keep(kept)
        if changed:
            self._renew(now)

    def _header(self, kind: Kind) -> bytes:
        assert self._counter <= COUNTER_MAX
        header = self._prefix + word(kind, self._counter)
        self._counter += 1
        return header

    # -- sending ----------------------------------------------------------------------------------

    def send(self, now: Now, address: Address, packet: bytes) -> list[Effect]:
        """Seal a packet for whoever is at an address; a knock goes instead while that is not known."""
        self._age(now)
        peer = self._sessions.at(address)
        if peer is None:
            return self._wait(now, address, packet)
        fresh = not peer.confirmed and peer.cookie != b"" and now.mono - peer.cookie_at < SLOT_S
        self._remember(address, packet)
        effects: list[Effect] = [self._sealed(peer, address, packet, peer.cookie if fresh else b"")]
        if self._is_forgotten(now, peer):
            peer.knocked_at = now.mono
            effects.append(self._knock(now, address))
        return effects

    def _is_forgotten(self, now: Now, peer: Peer) -> bool:
        """Count a packet that is sent, and say whether the silence since others makes a knock worth its bytes."""
        if not peer.unheard:
            peer.unheard_since = now.mono
        peer.unheard += 1
        silent_s = now.mono - max(peer.unheard_since, peer.knocked_at)
        return peer.unheard >= REKNOCK_PACKETS and silent_s > REKNOCK_S

    def _sealed(self, peer: Peer, address: Address, packet: bytes, cookie: bytes) -> SendDatagram:
        header = self._header(Kind.ADMIT if cookie else Kind.DATA)
        bound = header + peer.session + self._label + cookie
        body = self._aead.encrypt(nonce(header), packet[PACKET_HEADER_BYTES:], bound)
        self.statistics.sealed += 1
        return SendDatagram(address, header + cookie + body)

    def _remember(self, address: Address, packet: bytes | None) -> None:
        self._sent[self._counter] = (address, packet)
        if len(self._sent) > SENT_MAX:
            del self._sent[next(iter(self._sent))]

    def _wait(self, now: Now, address: Address, packet: bytes) -> list[Effect]:
        if address not in self._waiting and len(self._waiting) >= WAITING_MAX:
            stale = next(iter(self._waiting))
            self.statistics.unsent += len(self._waiting.pop(stale))
            self._knocked_at.pop(stale, None)
        packets = self._waiting.setdefault(address, [])
        packets.append((now.mono, packet))
        if len(packets) > WAITING_PACKETS:
            packets.pop(0)
            self.statistics.unsent += 1
        if now.mono - self._knocked_at.get(address, float("-inf")) < KNOCK_S:
            return []
        self._knocked_at[address] = now.mono
        return [self._knock(now, address)]

    def _knock(self, now: Now, address: Address) -> SendDatagram:
        self._remember(address, None)
        self.statistics.knocked += 1
        return SendDatagram(
            address, knock(self._header(Kind.KNOCK), self._keyring.first, self._label, now.wall)
        )

    def knows(self, data: bytes) -> bool:
        """Whether a datagram names a session that is held. Anybody can name one; says what to shed first."""
        return data[2:10] in self._sessions.peers

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, now: Now, data: bytes, source: Address) -> Received:
        """Open a datagram from anywhere. Total: what is not authentic is counted by its reason."""
        if not SHORTEST_BYTES <= len(data) <= DATAGRAM_BYTES_MAX or data[0] != VERSION:
            return self._refuse(now, "malformed", source)
        key = self._keys.get(data[1])
        if key is None:
            return self._refuse(now, "clear" if data[1] == UNSEALED else "unknown_key", source)
        kind = data[10] >> 6
        peer = self._sessions.peers.get(data[2:10])
        if peer is not None and peer.key_id != data[1]:
            peer = None
        if kind == Kind.DATA:
            if peer is None:
                return self._stranger(now, data, source, "stranger")
            return self._open(now, data, source, peer, HEADER_BYTES)
        if kind == Kind.ADMIT:
            return self._admit(now, data, source, key, peer)
        if kind == Kind.KNOCK:
            return self._knocked(now, data, source, key, peer)
        return self._challenged(now, data, source, key, peer)

    def _open(self, now: Now, data: bytes, source: Address, peer: Peer, body_at: int) -> Received:
        packet, reason = self._read(now, data, peer, body_at)
        if reason:
            return self._refuse(now, reason, source)
        if source in peer.routes:
            return packet, source, []
        return packet, peer.routes[-1], self._challenge_path(now, data, source, peer)

    def _read(self, now: Now, data: bytes, peer: Peer, body_at: int) -> tuple[bytes | None, str]:
        """Return the packet, None if it is empty, and why it is refused, "" if it is not."""
        counter = int.from_bytes(data[10:HEADER_BYTES], "big") & COUNTER_MAX
        if not peer.window.is_fresh(counter):
            return None, "replayed"
        packet = self._unseal(now, peer.aead, data, body_at)
        if packet is None:
            return None, "forged"
        peer.window.note(counter)
        self._heard(now, peer)
        self.statistics.opened += 1
        return (PACKET_HEADER + packet if packet else None), ""

    def _unseal(self, now: Now, aead: AESGCM, data: bytes, body_at: int) -> bytes | None:
        header, extra, body = data[:HEADER_BYTES], data[HEADER_BYTES:body_at], data[body_at:]
        number = nonce(header)
        try:
            return aead.decrypt(number, body, header + self._session + self._label + extra)
        except InvalidTag:
            if now.mono >= self._previous_until:
                return None
        try:
            return aead.decrypt(number, body, header + self._previous + self._label + extra)
        except InvalidTag:
            return None

    def _heard(self, now: Now, peer: Peer) -> None:
        peer.heard_at = now.mono
        peer.unheard = 0
        peer.confirmed = peer.confirmed or now.mono >= self._previous_until

    def _refuse(self, now: Now, reason: str, source: Address) -> Received:
        rejected = self.statistics.rejected
        rejected[reason] = rejected.get(reason, 0) + 1
        hint = HINTS.get(reason)
        return None, source, self._tell(now, reason, source, hint=hint) if hint is not None else []

    def _tell(self, now: Now, reason: str, source: Address, **more: float | str) -> list[Effect]:
        told_at = self._told_at.get(reason)
        if told_at is not None and now.mono - told_at < TELL_S:
            return []
        self._told_at[reason] = now.mono
        fields = (("reason", reason), ("source", f"{source[0]}:{source[1]}"), *more.items())
        return [Report("datagram_refused" if reason in HINTS else "clocks_differ", fields)]

    # -- getting to know each other ---------------------------------------------------------------

    def _stranger(self, now: Now, data: bytes, source: Address, reason: str) -> Received:
        """A session that we do not know, or that must show its cookie again."""
        nothing, _, effects = self._refuse(now, reason, source)
        effects += self._challenge(now, data, source, Why.STRANGER, self._strangers)
        return nothing, source, effects

    def _challenge(self, now: Now, data: bytes, source: Address, why: Why, budget: Bucket) -> list[Effect]:
        if len(data) < ANSWER_BYTES_MIN or not budget.take(now.mono):
            self.statistics.shed += 1
            return []
        self.statistics.challenged += 1
        header = self._header(Kind.CHALLENGE)
        counter = unword(data[10:HEADER_BYTES])[1]
        answered = word(why, counter)
        told = self._cookies.bake(now.mono, source, data[2:10], counter & COOKIE_COUNTER_MAX)
        told += wall_ms(now.wall)
        bound = header + data[2:10] + self._label + answered
        return [SendDatagram(source, header + answered + self._aead.encrypt(nonce(header), told, bound))]

    def _challenge_path(self, now: Now, data: bytes, source: Address, peer: Peer) -> list[Effect]:
        if now.mono - peer.knocked_at < KNOCK_S:
            return []
        peer.knocked_at = now.mono
        return self._challenge(now, data, source, Why.PATH, self._strangers)

    def _knocked(self, now: Now, data: bytes, source: Address, key: MeshKey, peer: Peer | None) -> Received:
        reason = refusal(data, key, self._label)
        if reason:
            return self._refuse(now, reason, source)
        if data[2:10] == self._session:
            return self._refuse(now, "own", source)
        effects = self._compare_clocks(now, data[24:30], source)
        if peer is None:
            why = Why.STRANGER
        else:
            why = Why.WELL if source in peer.routes else Why.PATH
        return None, source, effects + self._challenge(now, data, source, why, self._answers)

    def _compare_clocks(self, now: Now, six: bytes, source: Address) -> list[Effect]:
        ahead_s = int.from_bytes(six, "big") / 1000 - now.wall
        if abs(ahead_s) <= SKEW_MAX_S:
            return []
        rejected = self.statistics.rejected
        rejected["wrong_clock"] = rejected.get("wrong_clock", 0) + 1
        return self._tell(now, "wrong_clock", source, ahead_s=round(ahead_s, 1))

    def _challenged(
        self, now: Now, data: bytes, source: Address, key: MeshKey, peer: Peer | None
    ) -> Received:
        """An answer to something that we sent: it says whom we have reached there."""
        if len(data) != ANSWER_BYTES_MIN:
            return self._refuse(now, "malformed", source)
        why, answered = unword(data[HEADER_BYTES : HEADER_BYTES + 6])
        sent = self._sent.get(answered)
        if sent is None:
            return self._refuse(now, "unasked", source)
        counter = unword(data[10:HEADER_BYTES])[1]
        if peer is not None and not peer.window.is_fresh(counter):
            return self._refuse(now, "replayed", source)
        aead = peer.aead if peer is not None else AESGCM(key.session_key(data[2:10]))
        told = self._unseal(now, aead, data, HEADER_BYTES + 6)
        if told is None:
            return self._refuse(now, "forged", source)
        del self._sent[answered]
        if peer is None:
            peer = Peer(data[2:10], data[1], aead, ReplayWindow(counter), now.mono)
        else:
            peer.window.note(counter)
            self._heard(now, peer)
        if not self._take_in(now, peer, sent[0]):
            return self._refuse(now, "full", source)
        peer.cookie, peer.cookie_at = told[:COOKIE_BYTES], now.mono
        peer.confirmed = why != Why.STRANGER
        effects = self._compare_clocks(now, told[COOKIE_BYTES:], source)
        return None, source, effects + self._present(now, peer, *sent, Why(min(why, Why.WELL)))

    def _take_in(self, now: Now, peer: Peer, address: Address) -> bool:
        """An authentic session is at an address; False if there is no room for another."""
        if peer.session not in self._sessions.peers:
            if not self._sessions.admit(now.mono, peer):
                return False
            self.statistics.sessions += 1
        self._sessions.route(peer, address)
        return True

    def _present(
        self, now: Now, peer: Peer, address: Address, packet: bytes | None, why: Why
    ) -> list[Effect]:
        """Send what has waited, with the cookie. None of it is remembered: one answer, one try."""
        packets = [packet] if packet is not None and why is Why.STRANGER else []
        for at, waiting in self._waiting.pop(address, []):
            if now.mono - at <= WAITING_S:
                packets.append(waiting)
            else:
                self.statistics.unsent += 1
        self._knocked_at.pop(address, None)
        if not packets and why is not Why.WELL:
            packets = [b""]
        return [self._sealed(peer, address, each, peer.cookie) for each in packets]

    def _admit(self, now: Now, data: bytes, source: Address, key: MeshKey, peer: Peer | None) -> Received:
        body_at = HEADER_BYTES + COOKIE_BYTES
        if len(data) < SHORTEST_BYTES + COOKIE_BYTES:
            return self._refuse(now, "malformed", source)
        floor = self._cookies.floor(data[HEADER_BYTES:body_at], now.mono, source, data[2:10])
        if floor is None:
            if peer is None:
                return self._stranger(now, data, source, "stale_cookie")
            return self._open(now, data, source, peer, body_at)
        if peer is not None:
            return self._admit_again(now, data, source, peer, body_at)
        aead = AESGCM(key.session_key(data[2:10]))
        peer = Peer(data[2:10], data[1], aead, ReplayWindow(floor), now.mono, confirmed=True)
        packet, reason = self._read(now, data, peer, body_at)
        if not reason and not self._take_in(now, peer, source):
            packet, reason = None, "full"
        return self._refuse(now, reason, source) if reason else (packet, source, [])

    def _admit_again(self, now: Now, data: bytes, source: Address, peer: Peer, body_at: int) -> Received:
        packet, reason = self._read(now, data, peer, body_at)
        if reason:
            return self._refuse(now, reason, source)
        self._sessions.route(peer, source)
        return packet, source, []


def wall_ms(wall: float) -> bytes:
    """Return a wall clock as 6 bytes of milliseconds."""
    return (round(wall * 1000) & (2**48 - 1)).to_bytes(6, "big")


assert COUNTER_BITS == 46  # `receive` reads the kind from the two upper bits of the tenth byte
