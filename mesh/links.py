"""All links of a node: who is on which connection, who is silent, whom to dial.

Theory of operation. A link is dialled when there is something to send and none
is up; frames wait in its outbox until it opens. The first link to
a peer is its *primary* (a dial counts from its start) and stays it until it is
lost: requests of this node go out on it, and answers go back on the link that brought the request, so frames of
one flight never overtake each other. Either side may dial.

A stopped process still acknowledges at its kernel, so only an echo (PONG) or
other frames count as life. While requests use a link, it is pinged when it has
been quiet for `echo_s`, and quiet for `silence_s` (or four times the lag that the
peer reports of itself) raises LinkSilent once. It is kept open, since late frames
of the peer are harmless, until `abandon_s`. After a pause of our own, every peer
is given its time again before it is judged. A link that no request uses costs
nothing and is kept: should its peer die, its reset tells us in a round trip. It is
closed when membership holds the peer dead or gone.
"""

from collections.abc import Callable

import attrs

from mesh.effects import Address, CloseLink, Dial, Effect, FlushLink, LinkId, Report
from mesh.errors import DecodeError, LimitError
from mesh.facts import Fact, LinkDown, LinkSilent, LinkUp, TwinMet
from mesh.frames import Frame, Hello, Kind, Ping, Pong
from mesh.link import Link
from mesh.now import Now

Output = Effect | Fact
InUse = Callable[[LinkId, str], bool]

ADDRESS_TEXT_MAX = 64
"""Longest `HOST:PORT` that is read from a hello, in characters."""

LAG_MAX_S = 0.5
"""Most of a peer's lag that counts: a busy loop is forgiven, but nobody can make itself immortal."""

LAG_HALF_LIFE_S = 0.5
"""How fast a lag of our own is forgotten."""

LINKS_MAX = 4096
"""Most connections at once; a further one is closed when it is accepted."""


@attrs.frozen
class LinkOptions:
    """Times of the silence detector, in seconds."""

    echo_s: float = 0.25
    """Ping a link that has been quiet for this long; also the grain of the detector."""
    silence_s: float = 1.0
    """Quiet despite pings for this long is silence. Shorter finds a frozen peer sooner and forgives
    less of a busy host: a peer needs to be scheduled four times within it."""
    abandon_s: float = 30.0
    """A silent link is closed after this."""
    used_s: float = 5.0
    """A link that carried a flight's frame so recently is in use, and watched."""
    idle_tick_s: float = 2.0
    """How often links are looked at when none is in use."""
    hello_s: float = 5.0
    """A connection that has not said who it is by then is closed."""


@attrs.define
class Connection:
    """One connection, dialled or accepted, from its first byte to its last."""

    id: LinkId
    link: Link
    heard_at: float
    address: Address | None = None
    """Where it was dialled to; None if it was accepted."""
    node: str = ""
    """The peer: who it said it is, or until then whom it was dialled for."""
    proven: str = ""
    """Whom the peer's certificate names; empty on clear links."""
    greeted: bool = False
    opened: bool = False
    used_at: float = 0.0
    lag_s: float = 0.0
    silent: bool = False
    stuck: bool = False
    """Silent or not open yet, although the peer has answered by another way since."""


@attrs.define
class Links:
    """Every link of this node to peers. Engines' links are not here: their process is watched itself."""

    hello: Hello
    options: LinkOptions = LinkOptions()
    in_use: InUse = attrs.field(default=lambda _link, _node: False)
    """Whether requests of either side are under way on a link."""
    _connections: dict[LinkId, Connection] = attrs.field(init=False, factory=dict)
    _primary: dict[str, LinkId] = attrs.field(init=False, factory=dict)
    _by_address: dict[Address, LinkId] = attrs.field(init=False, factory=dict)
    _next_id: LinkId = attrs.field(init=False, default=1)
    _tick_at: float | None = attrs.field(init=False, default=None)
    _ticked_at: float = attrs.field(init=False, default=0.0)
    lag_s: float = attrs.field(init=False, default=0.0)
    """How late this node's own timer has lately fired; told to peers in echoes."""

    def new_id(self) -> LinkId:
        """Return a link id that was never used on this node."""
        self._next_id += 1
        return self._next_id - 1

    def __len__(self) -> int:
        return len(self._connections)

    def node_of(self, link: LinkId) -> str:
        """Return the node at the other end; empty if unknown."""
        connection = self._connections.get(link)
        return connection.node if connection else ""

    def gossip_address(self, link: LinkId) -> Address | None:
        """Return where the peer of a link takes datagrams and links, by its own word."""
        connection = self._connections.get(link)
        peer = connection.link.peer if connection else None
        return parse_address(peer.gossip) if peer else None

    # -- connections come and go ------------------------------------------------------------------

    def accepted(self, now: Now) -> tuple[LinkId, list[Output]]:
        """A peer has connected to us; name the connection and greet it."""
        connection = self._add(now, "", None)
        connection.opened = True
        if len(self._connections) > LINKS_MAX:
            return connection.id, self._close(connection, f"more than {LINKS_MAX} links")
        return connection.id, [FlushLink(connection.id)]

    def verified(self, link: LinkId, node: str) -> None:
        """The certificate of the peer names a node; its hello must say the same."""
        connection = self._connections.get(link)
        if connection is not None:
            connection.proven = node

    def opened(self, now: Now, link: LinkId) -> list[Output]:
        """A dial has succeeded."""
        connection = self._connections.get(link)
        if connection is None:
            return [CloseLink(link, "no longer wanted")]
        connection.opened, connection.stuck = True, False
        connection.heard_at = now.mono
        return [FlushLink(link)]

    def lost(self, now: Now, link: LinkId, reason: str) -> list[Output]:
        """A connection was closed or reset by the peer or the network, or a dial failed."""
        connection = self._connections.get(link)
        return [] if connection is None else self._forget(connection, reason)

    def _add(self, now: Now, node: str, address: Address | None) -> Connection:
        connection = Connection(self.new_id(), Link(self.hello), now.mono, address, node, used_at=now.mono)
        self._connections[connection.id] = connection
        self._index(connection, address)
        if self._tick_at is None:
            self._tick_at = now.mono + self.options.echo_s
        return connection

    def _index(self, connection: Connection, address: Address | None) -> None:
        if connection.node:
            self._primary.setdefault(connection.node, connection.id)
        if address is not None:
            self._by_address.setdefault(address, connection.id)

    def _forget(self, connection: Connection, reason: str) -> list[LinkDown]:
        del self._connections[connection.id]
        if not self._connections:
            self._tick_at = None
        for address in (connection.address, self._greeted_address(connection)):
            if address is not None and self._by_address.get(address) == connection.id:
                del self._by_address[address]
        primary = self._primary.get(connection.node) == connection.id
        if primary:
            self._succeed(connection.node)
        return [LinkDown(connection.id, connection.node, reason, primary)]

    def _succeed(self, node: str) -> None:
        del self._primary[node]
        for other in self._connections.values():
            if other.node == node and other.greeted:
                self._primary[node] = other.id
                return

    def _greeted_address(self, connection: Connection) -> Address | None:
        return parse_address(connection.link.peer.gossip) if connection.link.peer else None

    def _close(self, connection: Connection, reason: str) -> list[Output]:
        return [CloseLink(connection.id, reason), *self._forget(connection, reason)]

    # -- bytes and frames -------------------------------------------------------------------------

    def output(self, link: LinkId, bytes_max: int) -> bytes:
        """Take bytes to write; empty if there are none, or no such link any more."""
        connection = self._connections.get(link)
        if connection is None or not connection.opened:
            return b""
        return connection.link.output(bytes_max)

    def input(self, now: Now, link: LinkId, data: bytes) -> tuple[list[Frame], list[Output]]:
        """Take bytes from a link: the frames for the layers above, and what else must be done."""
        connection = self._connections.get(link)
        if connection is None:
            return [], []
        connection.heard_at = now.mono
        connection.silent = connection.stuck = False
        try:
            return self._frames(now, connection, data)
        except (DecodeError, LimitError) as error:
            report = Report("link_broken", (("node", connection.node), ("error", str(error))))
            return [], [report, *self._close(connection, str(error))]

    def _frames(self, now: Now, connection: Connection, data: bytes) -> tuple[list[Frame], list[Output]]:
        frames: list[Frame] = []
        outputs: list[Output] = []
        for frame in connection.link.input(data):
            match frame.kind:
                case Kind.HELLO:
                    outputs += self._greeted(connection)
                    if connection.id not in self._connections:
                        return (
                            [],
                            outputs,
                        )  # whoever it is, it is not who it should be: nothing of it is heard
                case Kind.PING:
                    pong = Pong(Ping.read(frame).token, round(self.lag_s * 1000))
                    connection.link.send(pong.frame())
                    outputs.append(FlushLink(connection.id))
                case Kind.PONG:
                    connection.lag_s = Pong.read(frame).lag_ms / 1000
                case _:
                    self._note_use(now, connection, frame)
                    frames.append(frame)
        return frames, outputs

    def _greeted(self, connection: Connection) -> list[Output]:
        peer = connection.link.peer
        assert peer is not None
        if connection.greeted:
            return []
        if peer.node == self.hello.node:
            return self._met_ourselves(connection, peer)
        if connection.proven not in ("", peer.node):
            return self._close(
                connection, f"it says it is `{peer.node}`, its certificate `{connection.proven}`"
            )
        if connection.node not in ("", peer.node):
            return self._close(connection, f"another node, `{peer.node}`, answers there")
        connection.node, connection.greeted = peer.node, True
        self._index(connection, self._greeted_address(connection))
        return [LinkUp(connection.id, peer.node)]

    def _met_ourselves(self, connection: Connection, peer: Hello) -> list[Output]:
        """Our own id answers: this process, or another with our key. Both ends of such a link come here."""
        address = parse_address(peer.gossip)
        is_this = (peer.gossip, peer.generation) == (self.hello.gossip, self.hello.generation)
        if is_this or address is None:
            return self._close(connection, "it is this node itself")
        return [TwinMet(address), *self._close(connection, "it has the id of this node")]

    def send(self, now: Now, frame: Frame, node: str, address: Address | None) -> list[Output]:
        """Send to a peer on its primary link, or to an address; dialled if none is up.

        `node` may be empty if only the address is known; without an address nothing is dialled.
        """
        outputs = self._drop_stuck(node, address)
        connection = self._find(node, address)
        if connection is None:
            if address is None:
                return outputs
            connection = self._add(now, node, address)
            outputs.append(Dial(connection.id, address))
        return outputs + self._queue(now, connection, frame)

    def reply(self, now: Now, frame: Frame, link: LinkId) -> list[Output]:
        """Send on one link and no other; dropped if it is gone."""
        connection = self._connections.get(link)
        return [] if connection is None else self._queue(now, connection, frame)

    def _find(self, node: str, address: Address | None) -> Connection | None:
        link = self._primary.get(node)
        if link is None and not node and address is not None:
            link = self._by_address.get(address)
        return None if link is None else self._connections[link]

    def drop(self, node: str, reason: str) -> list[Output]:
        """Close every link to a peer that is dead or has left."""
        outputs: list[Output] = []
        for connection in [c for c in self._connections.values() if c.node == node]:
            outputs += self._close(connection, reason)
        return outputs

    def refresh(self, node: str) -> None:
        """The peer has just answered otherwise: links to it that are stuck are replaced at the next send.

        After a cut has healed, a stream or a dial may lie in its kernel's backoff for many seconds. Nobody
        watches a link that no request uses, so that one is replaced if it has been quiet lately.
        """
        for connection in self._connections.values():
            if connection.node == node:
                quiet = self._ticked_at - connection.heard_at > self.options.used_s
                unwatched = quiet and not self.in_use(connection.id, node)
                connection.stuck = connection.silent or not connection.opened or unwatched

    def _drop_stuck(self, node: str, address: Address | None) -> list[Output]:
        """Close stuck links. What was sent on them was given up when the peer fell silent."""
        outputs: list[Output] = []
        while (connection := self._find(node, address)) is not None and connection.stuck:
            outputs.append(CloseLink(connection.id, "stuck"))
            outputs += [attrs.evolve(down, primary=False) for down in self._forget(connection, "stuck")]
        return outputs

    def _queue(self, now: Now, connection: Connection, frame: Frame) -> list[Output]:
        self._note_use(now, connection, frame)
        try:
            connection.link.send(frame)
        except LimitError as error:
            return self._close(connection, str(error))
        return [FlushLink(connection.id)] if connection.opened else []

    def _note_use(self, now: Now, connection: Connection, frame: Frame) -> None:
        """A flight's frame makes a link watched; one that was not gets its full time before it is judged."""
        if not frame.flight:
            return
        if not self._is_watched(now, connection):
            connection.heard_at = now.mono
            self._tick_at = min(self._tick_at or now.mono, now.mono) + self.options.echo_s
        connection.used_at = now.mono

    def _is_watched(self, now: Now, connection: Connection) -> bool:
        if not connection.node:
            return False
        recently = now.mono - connection.used_at <= self.options.used_s
        return recently or self.in_use(connection.id, connection.node)

    # -- silence ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` must be called; None while there is no link."""
        return self._tick_at if self._connections else None

    def tick(self, now: Now) -> list[Output]:
        """Ping the quiet, report the silent, close what never greeted."""
        if self._tick_at is None or now.mono < self._tick_at:
            return []
        late_s = now.mono - self._tick_at
        faded_s = self.lag_s * 0.5 ** ((now.mono - self._ticked_at) / LAG_HALF_LIFE_S)
        self.lag_s, self._ticked_at = max(min(late_s, LAG_MAX_S), faded_s), now.mono
        if late_s > self.options.silence_s / 2:
            self._forgive(now)
        outputs: list[Output] = []
        for connection in list(self._connections.values()):
            outputs += self._watch(now, connection)
        self._tick_at = self._next_tick(now)
        return outputs

    def _next_tick(self, now: Now) -> float | None:
        if not self._connections:
            return None
        watched = any(self._is_watched(now, connection) for connection in self._connections.values())
        return now.mono + (self.options.echo_s if watched else self.options.idle_tick_s)

    def _forgive(self, now: Now) -> None:
        for connection in self._connections.values():
            connection.heard_at = now.mono

    def _watch(self, now: Now, connection: Connection) -> list[Output]:
        quiet_s = now.mono - connection.heard_at
        if not connection.greeted and quiet_s > self.options.hello_s:
            return self._close(connection, "no hello")
        return self._judge(now, connection, quiet_s) if self._is_watched(now, connection) else []

    def _judge(self, now: Now, connection: Connection, quiet_s: float) -> list[Output]:
        options = self.options
        if quiet_s > options.abandon_s:
            return self._close(connection, f"silent for {quiet_s:.0f} s")
        outputs: list[Output] = []
        if not connection.silent and quiet_s > max(options.silence_s, 4 * min(connection.lag_s, LAG_MAX_S)):
            connection.silent = True
            outputs.append(LinkSilent(connection.node, quiet_s))
        if quiet_s >= options.echo_s:
            outputs += self._ping(now, connection)
        return outputs

    def _ping(self, now: Now, connection: Connection) -> list[Output]:
        connection.link.send(Ping(round(now.mono * 1e6)).frame())
        return [FlushLink(connection.id)]


def parse_address(text: str) -> Address | None:
    """Read `HOST:PORT` with a numeric host, IPv6 in brackets; None if it is none."""
    host, _, port = text.rpartition(":")
    if not host or len(text) > ADDRESS_TEXT_MAX or not (port.isascii() and port.isdigit()):
        return None
    return (host.strip("[]"), int(port)) if int(port) < 65536 else None


def format_address(address: Address) -> str:
    """Write `HOST:PORT`, IPv6 in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
