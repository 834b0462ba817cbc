"""SWIM membership: who is in the mesh, by gossip alone, as one pure core.

Theory of operation. `Swim` is the surface: it looks at the clock, and hands each input to the part that
owns the decision:

    Members    mesh.members    the table and the lattice
    Rota       mesh.rota       whom to probe next, and when
    Detector   mesh.detector   probe rounds, relays, round trips, quarantine (our own verdict)
    Beliefs    mesh.beliefs    suspicion, death, life: what is gossiped (the mesh's verdict)
    Reunion    mesh.reunion    join, heal
    Reconciler mesh.reconcile  compare tables, snapshots
    Myself     mesh.myself     our own account: refutation, clashes of ids, our address
    Views      mesh.views      the view as applications follow it
    Metadata   mesh.metadata   what each member publishes about itself
    Events     mesh.events     short messages that everybody hears once
    Voice      mesh.voice      packets, piggy-backing, gossip rounds, facts, reports
    Reception  mesh.reception  packets that arrive: each part to whom it is for

and keeps for itself what concerns this node's time: its goodbye, its pauses, what comes due.

Invariants:
- a rumour about ourselves is answered with a higher incarnation, by us alone;
- a pause of this process moves its deadlines and may raise its incarnation; nobody dies of it;
- what arrives is merged by the lattice, so the order of arrival does not matter;
- any bytes may arrive: what means nothing is counted and changes nothing.

Sources: SWIM (DSN 2002) for rounds, suspicion and piggy-backing; Lifeguard (arXiv 1707.00788)
for timeouts, nacks, health and the buddy system; the two verdicts, digests in acks, healing
and forgiveness are ours (docs/explanation/membership.md).

Every input takes `now` first and returns effects and facts in the order in which they must be
carried out. The first input of all arms the timers.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from mesh import codec
from mesh.agenda import Agenda
from mesh.backlog import Backlog
from mesh.beliefs import Beliefs
from mesh.border import Border
from mesh.cases import CaseKey, Cases
from mesh.detector import AskKey, Detector, RelayKey, RoundKey, Say
from mesh.effects import Address, Effect
from mesh.events import Events, EventTimer
from mesh.facts import Fact
from mesh.health import FORGIVEN_VERDICTS, pause_s
from mesh.identity import INCARNATION_MAX
from mesh.load import LoadRecord, LoadTable
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.messages import Leave, Update
from mesh.metadata import Metadata, MetadataTimer
from mesh.myself import Myself, MyselfTimer
from mesh.now import Now
from mesh.pulls import PullKey, WantKey
from mesh.reception import Reception
from mesh.reconcile import PaceTimer, Reconciler, SyncKey
from mesh.reunion import Reunion, ReunionTimer
from mesh.roll import NOBODY, Roll
from mesh.rota import Rota
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import SwimStatistics, Tally, statistics_of
from mesh.turns import PeriodTimer, Turns
from mesh.views import Views, ViewTimer
from mesh.voice import GossipTimer, Voice
from mesh.why import Verdict

RUMOURS_MANY = 64
"""More rumours than this wait longer for their turn than a table takes to be compared: preset `lan` sends 210 a
second, each about 3 * ln(n) times, within a spread bound of some seconds."""


class Swim:
    """The membership core of one node."""

    def __init__(
        self,
        options: SwimOptions,
        me: Member,
        rng: random.Random,
        known: Roll = NOBODY,
        agenda: Agenda | None = None,
    ) -> None:
        """Begin as a mesh of one, or with accounts of others that are believed from the start.

        Args:
            options: see `SwimOptions`; its presets are `local`, `lan` and `wan`.
            me: this node's own account, ALIVE, with a generation above any that it ever used.
            rng: the only source of randomness; the same seed and inputs give the same outputs.
            known: accounts of other nodes that are believed from the start, at most `members_max`
                with our own; shared, not copied.
            agenda: where its deadlines are kept; an empty one.

        Raises:
            LimitError: the account is too large for a datagram.

        """
        codec.item(Update(me))
        if options.observer:
            me = attrs.evolve(me, liveness=Liveness.LEFT)
        self.loads = LoadTable(me.node, codec.load_item)
        """Newest load record of each live member; `get(now, node)` says how old it is."""
        self._options = options
        self._node = me.node
        self._rng = rng
        agenda = self._agenda = Agenda() if agenda is None else agenda
        tally = self._tally = Tally()
        self._begun = False
        self._lag_s = 0.0
        self._backlog = Backlog()
        members = self._members = Members(me, rng, options.members_max, known)
        detector = self._detector = Detector(me.node, options, members, agenda, rng)
        cases = Cases(me.node, options, members, detector, self.loads, agenda, tally)
        voice = self._voice = Voice(me.node, options, members, cases, self.loads, agenda, rng, tally)
        self.views = Views(members, agenda)
        """The view as applications follow it."""
        self._beliefs = Beliefs(
            me.node, options, members, cases, detector, self.loads, voice, self.views, agenda, tally
        )
        self.events = Events(me.node, options, members, voice, agenda, rng, tally)
        """User events; `recent` are the last."""
        self.metadata = Metadata(me.node, options, members, voice, agenda, rng, tally)
        """What members publish about themselves; `get(node)` is what is known."""
        self._known = known
        rota = Rota(options, members)
        self._turns = Turns(options, rota, detector, self._beliefs, agenda, rng)
        self._myself = Myself(
            me.node, options, members, self.views, voice, detector.health, agenda, rng, tally
        )
        self._reunion = Reunion(me.node, options, members, voice, agenda, rng)
        self._reconciler = Reconciler(me.node, options, members, voice, agenda, rng, tally)
        self._reception = Reception(
            me.node,
            Border(me.node, options.mesh_name, voice, tally),
            members,
            detector,
            self._beliefs,
            self._myself,
            self._reunion,
            self._reconciler,
            self.loads,
            self.events,
            self.metadata,
            voice,
            tally,
        )

    def __repr__(self) -> str:
        return f"<Swim {self.me.name} {self._members!r}>"

    # Queries.

    @property
    def me(self) -> Member:
        """This node's own account."""
        return self._myself.account

    @property
    def options(self) -> SwimOptions:
        """What it was built with."""
        return self._options

    @property
    def live(self) -> int:
        """How many are alive or suspect, this node included."""
        return self._members.live

    def members(self) -> tuple[Member, ...]:
        """Every account, the dead and this node's own included, in order of first hearing."""
        return self._members.all()

    def member(self, node: str) -> Member | None:
        """The account of `node`, or None."""
        return self._members.get(node)

    def view_digest(self) -> bytes:
        """Fingerprint of the live view, 8 bytes: equal on all nodes when the mesh is still. O(1)."""
        return self._members.digest()

    def is_quarantined(self, node: str) -> bool:
        """Whether this node, on its own, has stopped trusting `node` to answer."""
        return self._detector.is_quarantined(node)

    @property
    def doubted(self) -> tuple[str, ...]:
        """Ids of those against whom a case is open here, suspects and those in doubt, longest first."""
        return self._beliefs.doubted

    def round_trip_s(self, node: str) -> float | None:
        """Smoothed round trip to `node` in seconds, or None when it was not measured."""
        estimate = self._detector.round_trips.get(node)
        return estimate.smoothed_s if estimate is not None else None

    def distance_s(self, one: str, other: str) -> float | None:
        """Estimated round trip between any two live nodes in seconds, by their coordinates (`mesh.coordinates`).

        None without the option `coordinates`, or when one of the two has not told us its own.
        """
        coordinates = self._detector.round_trips.coordinates
        if coordinates is None:
            return None
        ends = [coordinates.mine if node == self._node else coordinates.get(node) for node in (one, other)]
        if None in ends:
            return None
        return ends[0].distance_s(ends[1]) if one != other else 0.0

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called, monotonic seconds; None before the first input."""
        return self._agenda.next_deadline()

    def statistics(self) -> SwimStatistics:
        """How things stand. O(n)."""
        rumours, ages = self._voice.rumours, self._voice.ages.cumulative()
        metadata = (self.metadata.held_bytes, self.metadata.missing)
        return statistics_of(self._members, self._detector, metadata, rumours, ages, self._lag_s, self._tally)

    def explain(self, node: str | None = None) -> tuple[Verdict, ...]:
        """Why this node quarantined or buried a member, or any: its verdicts, oldest first."""
        return self._detector.why.explain(node)

    # Inputs.

    def receive(self, now: Now, data: bytes, source: Address, reliable: bool = False) -> list[Effect | Fact]:
        """Take one packet: a datagram, or with `reliable` the body of a gossip frame of a link.

        Anything that is not a packet is counted and dropped. `source` is where a datagram came
        from; replies to reliable packets go to the address in the sender's own account.
        """
        self._wake(now)
        self._reception.receive(now, data, source, reliable, self._backlog.waited_s(now.mono))
        return self._voice.take()

    def tick(self, now: Now) -> list[Effect | Fact]:
        """Do what has come due. Call it at `next_deadline()`, after draining the sockets."""
        self._wake(now)
        self._backlog.ticked(now.mono)
        for key in self._agenda.due(now.mono):
            _DUE[type(key)](self, now, key)
        return self._voice.take()

    def join(self, now: Now, addresses: Iterable[Address]) -> list[Effect | Fact]:
        """Ask these seeds to let us in until one does; later, at the healing rate, those that are no live members."""
        self._wake(now)
        self._reunion.join(now, [seed for seed in addresses if seed != self.me.address])
        return self._voice.take()

    def leave(self, now: Now) -> list[Effect | Fact]:
        """Say goodbye. Keep ticking for about a second, so that the goodbye spreads."""
        self._wake(now)
        if not self._is_leaving:
            self._reception.is_leaving = True
            self._agenda.clear()
            self._myself.say(now, attrs.evolve(self.me, liveness=Liveness.LEFT))
            for peer in self._members.sample(self._options.leave_fanout):
                self._voice.say(now, Say(peer.address, Leave(self._node), peer.node))
        return self._voice.take()

    def ask_unlike(self, now: Now) -> tuple[list[str], list[Effect | Fact]]:
        """Which live peers have not yet said that they hold our present view; some of them are asked."""
        self._wake(now)
        return self._reconciler.ask_unlike(now), self._voice.take()

    def forget(self, now: Now, node: str) -> list[Effect | Fact]:
        """Let the mesh forget this life of a member, whatever is still said of it; its next life may return.

        It is held as LEFT at its generation's last incarnation, which nothing said of that generation tops. One
        that seems to live is looked at first, here as everywhere: who answers is not forgotten.
        """
        self._wake(now)
        row = self._members.get(node)
        if row is not None and node != self._node and not self._is_leaving:
            identity = attrs.evolve(row.identity, incarnation=INCARNATION_MAX)
            gone = attrs.evolve(row, identity=identity, liveness=Liveness.LEFT)
            self._beliefs.dismiss(now, gone)
        return self._voice.take()

    def lost_input(self, now: Now, count: int) -> list[Effect | Fact]:
        """So many datagrams to us were dropped on this machine: who seems silent may have answered. Before a tick."""
        self._tally.input_lost += count
        if self._begun and not self._is_leaving:
            self._beliefs.lost_input(now)
        return self._voice.take()

    def announce(self, now: Now, name: str, payload: bytes) -> list[Effect | Fact]:
        """Tell every node a user event, once (`mesh.events`). Raises LimitError, nothing changed."""
        self._wake(now)
        if not self._is_leaving:
            self.events.announce(now, name, payload)
        return self._voice.take()

    def publish_metadata(self, now: Now, value: bytes) -> list[Effect | Fact]:
        """Publish up to 64 KiB about ourselves, instead of any before; empty for none (`mesh.metadata`).

        Raises LimitError, nothing changed, if it is longer, or our account has no room left for its digest.
        """
        outputs = self.update_me(now, **self.metadata.check(value))
        if not self._is_leaving:
            self.metadata.publish(now, value)
        return outputs + self._voice.take()

    def heard(self, now: Now, node: str) -> list[Effect | Fact]:
        """The link layer received authenticated traffic from `node`: it lives."""
        self._wake(now)
        self._beliefs.weigh(now, self._detector.heard(now, node))
        return self._voice.take()

    def met_twin(self, now: Now, address: Address) -> list[Effect | Fact]:
        """The link layer met another process with our id: ask at its address, and one of the two ends (`Stop`)."""
        self._wake(now)
        if not self._is_leaving:
            self._myself.met(now, address)
        return self._voice.take()

    def evidence(self, now: Now, node: str, reason: str = "link lost") -> list[Effect | Fact]:
        """The link layer saw a reset, refused or closed link: quarantine and probe at once."""
        self._wake(now)
        if self._beliefs.live_peer(node) is not None and not self._is_leaving:
            self._beliefs.weigh(now, self._detector.evidence(now, node, reason))
            self._beliefs.probe(now, node)
        return self._voice.take()

    def probe(self, now: Now, node: str) -> list[Effect | Fact]:
        """Probe one live peer at once, unless a round is open."""
        self._wake(now)
        if not self._is_leaving:
            self._beliefs.probe(now, node)
        return self._voice.take()

    def publish_load(self, now: Now, record: LoadRecord) -> list[Effect | Fact]:
        """Take this node's own new figures; its id, generation, sequence and age are filled in here.

        Raises LimitError, nothing changed, when the record is too large for a datagram.
        """
        self._wake(now)
        identity = self.me.identity
        record = attrs.evolve(record, node=identity.node, generation=identity.generation)
        codec.item(record)
        self.loads.publish(now, record)
        return self._voice.take()

    def update_me(self, now: Now, **facts: Any) -> list[Effect | Fact]:
        """Publish new facts about ourselves (fields of Member), with a higher incarnation.

        Raises LimitError, nothing changed, when the account would be too large for a datagram.
        """
        assert not facts.keys() & {"identity", "liveness"}, "those are not facts that one chooses"
        codec.item(Update(attrs.evolve(self.me, **facts)))
        self._wake(now)
        me = attrs.evolve(self.me, **facts)
        if me != self.me and not self._is_leaving:
            self._myself.say(now, attrs.evolve(me, identity=me.identity.above()))
        return self._voice.take()

    # Deadlines.

    @property
    def _is_leaving(self) -> bool:
        return self._reception.is_leaving

    def _compare(self, now: Now, key: SyncKey | PaceTimer) -> None:
        if (doubtful := self._reconciler.due(now, key, self._detector.quarantined)) is not None:
            self._beliefs.probe(now, doubtful)

    def _metadata_due(self, now: Now, key: MetadataTimer | WantKey | PullKey) -> None:
        self.metadata.due(now, key, self._detector.quarantined)

    def _reunite(self, now: Now, key: ReunionTimer) -> None:
        self._reunion.due(now, key, self._detector.quarantined)
        self.metadata.sweep()

    def _tell_view(self, now: Now, _key: ViewTimer) -> None:
        moved = self.views.due(now)
        if moved is not None:
            self._voice.ask(moved)

    def _gossip(self, now: Now, _key: GossipTimer) -> None:
        if self._voice.rumours > RUMOURS_MANY:
            self._reconciler.urge(now)
        self._voice.gossip_due(now, self._detector.quarantined)

    def _wake(self, now: Now) -> None:
        """Notice that this process was away, before anything that came due meanwhile is believed."""
        if not self._begun:
            self._begun = True
            self._turns.begin(now)
            self._reunion.begin(now)
            self._myself.begin(now)
            self.metadata.begin(now, self._known)
        deadline_at = self._agenda.next_deadline()
        self._lag_s = max(0.0, now.mono - deadline_at) if deadline_at is not None else 0.0
        self._backlog.ran(now.mono, self._lag_s)
        self._detector.ran_late(self._lag_s)
        gap_s = pause_s(deadline_at, now.mono, self._options.pause_tolerance_s)
        if gap_s and not self._is_leaving:
            self._forgive(now, gap_s)

    def _forgive(self, now: Now, gap_s: float) -> None:
        """Shift what was due by the gap and a little more, and tell the mesh that we live, unless it just was told."""
        shift_s = gap_s + FORGIVEN_VERDICTS * self._options.verdict_min_s
        self._tally.pauses += 1
        self._agenda.shift(shift_s)
        self._detector.forgive(shift_s)
        self._beliefs.forgive(now, shift_s)
        self._myself.speak_up(now)
        self._turns.hasten(now)
        self._agenda.set(GossipTimer.GOSSIP, now.mono)
        self._voice.report("paused", gap_s=round(gap_s, 3), incarnation=self.me.identity.incarnation)
        self._beliefs.probe_suspects(now)


_DUE: dict[type, Callable[[Swim, Now, Any], None]] = {
    RoundKey: lambda core, now, key: core._beliefs.weigh(now, core._detector.round_due(now, key.nonce)),
    RelayKey: lambda core, now, key: core._beliefs.weigh(now, core._detector.relay_due(key.nonce)),
    CaseKey: lambda core, now, key: core._beliefs.case_due(now, key.node),
    AskKey: lambda core, now, key: core._beliefs.probe(now, key.node),
    PeriodTimer: lambda core, now, key: core._turns.due(now, key),
    GossipTimer: Swim._gossip,
    EventTimer: lambda core, now, key: core.events.due(now, key, core._detector.quarantined),
    MetadataTimer: Swim._metadata_due,
    WantKey: Swim._metadata_due,
    PullKey: Swim._metadata_due,
    SyncKey: Swim._compare,
    PaceTimer: Swim._compare,
    ReunionTimer: Swim._reunite,
    ViewTimer: Swim._tell_view,
    MyselfTimer: lambda core, now, _key: core._myself.prove_due(now),
}
"""What each deadline means, by its kind of key."""
