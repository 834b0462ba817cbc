"""The sealing sessions of other nodes that this one has admitted, and where they are reached.

A session gets in by an answer to a challenge of ours, or by answering one. It has the window
that no replay passes. It is forgotten after `FORGET_S` without an authentic packet, or after
`IDLE_S` where the table is full; both are longer than a cookie lives, so no recorded packet can
bring a forgotten session back. When the table is full of sessions that are not idle, newcomers
are refused.

A route is an address at which a session has proved, by a round trip, that it receives.
"""

import attrs
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.cookie import LIFE_MAX_S
from mesh.effects import Address
from mesh.replay import ReplayWindow

SESSIONS_MAX = 32_768
"""Sessions held, about 1 KiB each: three for each member of a mesh of ten thousand."""
IDLE_S = 60.0
"""Silence after which a session may be forgotten, if another needs its room."""
FORGET_S = 86_400.0
"""Silence after which it is forgotten: of ten thousand members each hears each other every few hours."""
SWEEP_S = 10.0
"""The idle are looked for at most so often."""
ROUTES_MAX = 4
"""Addresses of one session; beyond, the oldest is forgotten."""

assert IDLE_S > LIFE_MAX_S


@attrs.define(eq=False)
class Peer:
    """One session of another node."""

    session: bytes
    key_id: int
    aead: AESGCM = attrs.field(repr=False)
    window: ReplayWindow
    heard_at: float
    """When an authentic packet last came, seconds, monotonic."""
    routes: list[Address] = attrs.field(factory=list)
    """Where it was proved to be; the last one is the newest."""
    cookie: bytes = b""
    """What it gave us, to be shown until it knows us."""
    cookie_at: float = 0.0
    confirmed: bool = False
    """Whether it has shown that it knows our session."""
    unheard: int = 0
    """Packets sent to it since it was last heard."""
    unheard_since: float = 0.0
    """When the first of them was sent."""
    knocked_at: float = 0.0
    """When we last knocked at it; also when a path was last challenged."""


class Sessions:
    """The table. Bounded; `admit` says whether there was room."""

    def __init__(self) -> None:
        self.peers: dict[bytes, Peer] = {}
        """By session: what the receiving path looks into first."""
        self._by_address: dict[Address, Peer] = {}
        self._swept_at: float | None = None

    def __len__(self) -> int:
        return len(self.peers)

    @property
    def routes(self) -> int:
        """How many addresses are known."""
        return len(self._by_address)

    def at(self, address: Address) -> Peer | None:
        """Return the session that was last proved to be at an address."""
        return self._by_address.get(address)

    def admit(self, mono: float, peer: Peer) -> bool:
        """Take a session in; False if the table is full of sessions that are alive."""
        if self._swept_at is None or mono - self._swept_at >= SWEEP_S:
            self._sweep(mono, IDLE_S if len(self.peers) >= SESSIONS_MAX else FORGET_S)
        if len(self.peers) >= SESSIONS_MAX:
            return False
        self.peers[peer.session] = peer
        return True

    def route(self, peer: Peer, address: Address) -> None:
        """The session has proved that it receives at an address."""
        self._by_address[address] = peer
        if address in peer.routes:
            peer.routes.remove(address)
        peer.routes.append(address)
        if len(peer.routes) > ROUTES_MAX:
            self._unroute(peer, peer.routes.pop(0))

    def keep(self, key_ids: frozenset[int]) -> None:
        """Forget every session under another key."""
        for peer in [peer for peer in self.peers.values() if peer.key_id not in key_ids]:
            self._forget(peer)

    def _sweep(self, mono: float, idle_s: float) -> None:
        self._swept_at = mono
        for peer in [peer for peer in self.peers.values() if mono - peer.heard_at > idle_s]:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.session]
        for address in peer.routes:
            self._unroute(peer, address)

    def _unroute(self, peer: Peer, address: Address) -> None:
        if self._by_address.get(address) is peer:
            del self._by_address[address]
