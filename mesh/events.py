"""User events: short messages that each node of the mesh hears once, in an order that all share.

Theory of operation. An event is told like a rumour, ceil(retransmit_factor * ln(n + 1)) times by each who hears it,
but in packets of its own: one to each of `gossip_fanout` members a gossip period, while any waits. So a flood of events
takes nothing from the packets that carry doubts and refutations, and a flood of rumours nothing from events. The bytes
that events cost are bounded by that, however many wait.

Once. Each author numbers its events; each hearer keeps a window of the last 1,024 numbers of each author's
present life (`mesh.replay`). So no event is delivered twice, whatever the network repeats; one that comes more than
1,024 behind its author's newest, or out of an earlier life than one already heard, is stale and not delivered. Windows
are bounded by the table of members: who is in nobody's table is not heard.

Order. Each event carries its author's Lamport time (Lamport 1978): greater than that of all its author had heard. It
is held back for HOLD_PERIODS gossip periods, in which it has reached nearly everybody, and delivered by (time, author).
One that takes longer, and is below what was delivered, is delivered at once, and says that it is late: never dropped.

Who joins later, or is cut off while an event is told, does not hear it; observers tell and hear none. Sources: serf's
user events (order by Lamport time, a bounded memory); memberlist's issue 299 for what a shared queue does.
"""

import collections
import enum
import random

import attrs

from mesh import codec
from mesh.agenda import Agenda
from mesh.errors import LimitError
from mesh.facts import EventHeard
from mesh.gossip import Broadcasts, Rank, sends_max
from mesh.kinds import LAMPORT_MAX
from mesh.members import Members
from mesh.messages import Event, Gossip
from mesh.now import Now
from mesh.replay import WINDOW, ReplayWindow
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.voice import Voice

HOLD_PERIODS = 10
"""Gossip periods for which an event is held back: a rumour at fanout 3 reaches 1,000 members in some seven."""
WAITING_MAX = 1024
"""Events that wait to be told or delivered, some 1 MB at most: beyond, own ones are refused, others' not passed on."""
RECENT_MAX = 256
"""Delivered events that are kept to be read."""
ROOM_BYTES = codec.PACKET_BYTES_MAX - 40
"""For events in a packet of theirs: 40 bytes are the most that header, message and mark take."""
LONG_SINCE = 3
"""The first wire protocol whose speakers read a payload of more than `codec.EVENT_BYTES_OLD`."""


class EventTimer(enum.Enum):
    """Agenda key."""

    TELL = "tell"
    """The next packets of events."""
    DELIVER = "deliver"
    """The first that is held back is due."""


@attrs.define
class _Heard:
    """What has been heard of one author."""

    generation: int
    window: ReplayWindow


class Events:
    """What was announced, here or elsewhere: telling it on, and delivering it once."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        voice: Voice,
        agenda: Agenda,
        rng: random.Random,
        tally: Tally,
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._voice = voice
        self._agenda = agenda
        self._rng = rng
        self._tally = tally
        self._clock = 0
        self._sequence = 0
        self._heard: dict[str, _Heard] = {}
        self._queue = Broadcasts()
        self._held: dict[tuple[int, str, int, int], tuple[float, Event]] = {}
        self._delivered: tuple[int, str, int, int] = (-1, "", 0, 0)
        self.recent: collections.deque[EventHeard] = collections.deque(maxlen=RECENT_MAX)
        """The last delivered, oldest first."""

    @property
    def waiting(self) -> int:
        """How many still wait to be told to others."""
        return len(self._queue)

    def announce(self, now: Now, name: str, payload: bytes) -> None:
        """Tell the mesh, ourselves included.

        Raises LimitError, nothing changed, if the payload has more than 1,024 bytes (900 while a live member speaks
        a protocol below 3), the name more than 64 characters or 249 bytes, if WAITING_MAX events wait, or if this
        node only looks on.
        """
        if self._options.observer:
            raise LimitError("an observer is no member, so nobody would believe its events")
        if max(len(self._queue), len(self._held)) >= WAITING_MAX:
            raise LimitError(f"{WAITING_MAX} events wait to be told\nhint: announce fewer per second")
        long_name = len(name) > codec.EVENT_NAME_MAX or len(name.encode()) > codec.EVENT_NAME_BYTES_MAX
        if long_name or len(payload) > codec.EVENT_BYTES_MAX:
            raise LimitError(
                f"an event has at most {codec.EVENT_NAME_MAX} characters of name, {codec.EVENT_NAME_BYTES_MAX} bytes in"
                f" UTF-8, and {codec.EVENT_BYTES_MAX} bytes\nhint: tell where the rest is to be had"
            )
        if len(payload) > codec.EVENT_BYTES_OLD and (old := self._without_long_events()):
            raise LimitError(
                f"member `{old}` is of an older version, whose events have at most {codec.EVENT_BYTES_OLD} bytes\n"
                "hint: shorten the event, or upgrade that member first"
            )
        me = self._members.get(self._me)
        assert me is not None, "a table always holds its owner"
        lamport = min(self._clock + 1, LAMPORT_MAX)
        event = Event(self._me, me.identity.generation, self._sequence + 1, lamport, name, payload)
        codec.item(event)
        self._sequence += 1
        self._tally.events_announced += 1
        self._hear(now, event)

    def _without_long_events(self) -> str:
        """Name of a live member that cannot read a long event; empty if all can. O(n)."""
        return next(
            (row.name for row in self._members.all() if row.is_live and row.protocol < LONG_SINCE), ""
        )

    def hear(self, now: Now, events: tuple[Event, ...]) -> None:
        """Take what a packet told."""
        for event in events:
            self._hear(now, event)

    def due(self, now: Now, timer: EventTimer, excluding: tuple[str, ...]) -> None:
        """A timer of ours has come due; nothing is told to `excluding`."""
        if timer is EventTimer.DELIVER:
            self._deliver_due(now)
        else:
            self._tell(now, excluding)

    def _hear(self, now: Now, event: Event) -> None:
        if not self._is_first(event):
            return
        self._clock = max(self._clock, event.lamport)
        self._pass_on(now, event)
        key = _key(event)
        if key < self._delivered:
            self._deliver(event, late=True)
            return
        at = now.mono + HOLD_PERIODS * self._options.gossip_period_s
        self._held[key] = (at, event)
        if len(self._held) > WAITING_MAX:
            self._release(min(self._held))
        if EventTimer.DELIVER not in self._agenda:
            self._agenda.set(EventTimer.DELIVER, at)

    def _is_first(self, event: Event) -> bool:
        """Whether it is heard for the first time; remembers that it was."""
        author = self._members.get(event.node)
        if author is None or event.generation > author.identity.generation:
            self._tally.events_unknown += 1
            return False
        heard = self._heard.get(event.node)
        if heard is None or heard.generation < event.generation:
            heard = self._remember(event)
        if heard.generation > event.generation or event.sequence <= heard.window.top - WINDOW:
            self._tally.events_stale += 1
            return False
        if not heard.window.is_fresh(event.sequence):
            return False
        heard.window.note(event.sequence)
        return True

    def _remember(self, event: Event) -> _Heard:
        if len(self._heard) > 2 * len(self._members):
            self._heard = {node: heard for node, heard in self._heard.items() if self._members.get(node)}
        self._heard[event.node] = heard = _Heard(event.generation, ReplayWindow(0))
        return heard

    def _pass_on(self, now: Now, event: Event) -> None:
        if len(self._queue) >= WAITING_MAX:
            self._tally.events_unspread += 1
            return
        name = f"{event.node} {event.generation} {event.sequence}"
        self._queue.offer(name, codec.item(event), Rank.NEWS, now.mono)
        if EventTimer.TELL not in self._agenda:
            wait_s = self._rng.uniform(0.0, self._options.gossip_period_s)
            self._agenda.set(EventTimer.TELL, now.mono + wait_s)

    def _tell(self, now: Now, excluding: tuple[str, ...]) -> None:
        """A packet of events to each of a few members; the next are set while events wait."""
        often = sends_max(self._members.live, self._options.retransmit_factor)
        for peer in self._members.sample(self._options.gossip_fanout, excluding):
            items = self._queue.fill(ROOM_BYTES, often)
            if items:
                self._voice.say_bulk(peer.address, Gossip(self._me), items, codec.PACKET_BYTES_MAX, False)
        if self._queue and self._members.live > 1:
            self._agenda.set(EventTimer.TELL, now.mono + self._options.gossip_period_s)
        elif self._members.live <= 1:
            self._queue.clear()

    def _deliver_due(self, now: Now) -> None:
        """Deliver, in order, all up to the greatest that has been held back for its time."""
        ripe = [key for key, (at, _) in self._held.items() if at <= now.mono]
        last = max(ripe, default=self._delivered)
        for key in sorted(key for key in self._held if key <= last):
            self._release(key)
        if self._held:
            self._agenda.set(EventTimer.DELIVER, min(at for at, _ in self._held.values()))

    def _release(self, key: tuple[int, str, int, int]) -> None:
        self._deliver(self._held.pop(key)[1], late=False)
        self._delivered = key

    def _deliver(self, event: Event, late: bool) -> None:
        self._tally.events_heard += 1
        self._tally.events_late += late
        fact = EventHeard(event.lamport, event.node, event.name, event.payload, late)
        self.recent.append(fact)
        self._voice.tell(fact)


def _key(event: Event) -> tuple[int, str, int, int]:
    return (event.lamport, event.node, event.generation, event.sequence)
