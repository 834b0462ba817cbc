"""The node as one core: membership, links, flights, relay and engines, composed.

`NodeCore` holds no policy of its own. Each input goes to the sub-core whose it is;
what comes back is settled in order: effects go to the driver, frames become bytes
of a link or pass between this node's own entry and worker, and facts go, by
`_tell`, to the siblings that must know. The same class runs under the trio driver
and in the simulator.
"""

import random
from typing import TYPE_CHECKING, Any

import attrs

from mesh import records_wire
from mesh.attempt import Attempt
from mesh.claims import Claim, ClaimOptions, Claims
from mesh.custody import KINDS as CUSTODY_KINDS
from mesh.custody import Custody, CustodyOptions, Finding
from mesh.effects import (
    Address,
    Effect,
    LinkId,
    Report,
)
from mesh.errors import DecodeError
from mesh.flight import Flight
from mesh.forward import Forwarder, ForwardOptions
from mesh.frames import Frame, Hello, Kind
from mesh.link import PROTOCOL
from mesh.links import LinkOptions, Links, format_address
from mesh.load import LoadRecord
from mesh.member import Member
from mesh.now import Now
from mesh.relay import Relay
from mesh.replication import Replication
from mesh.replication_options import ReplicationOptions
from mesh.route import Candidate
from mesh.share import SMALL_BYTES, Worth
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from node.errors import RequestError
from node.policy.capacity import candidates_of, cards_of, load_record
from node.policy.engine_links import EngineLinks
from node.policy.engines import EngineOptions, Engines, EngineState, Replica
from node.policy.heirs import healthy, reopened
from node.policy.publication import Publication
from node.switchboard import Output, Switchboard

if TYPE_CHECKING:
    from mesh.keyring import Keyring
    from mesh.seal import Seal

ENTRY_KINDS = frozenset((Kind.OPEN, Kind.CANCEL))
"""Frames that an entry sends; all other flight verbs come from workers."""


@attrs.frozen
class NodeOptions:
    """What the composed cores need to know."""

    swim: SwimOptions
    links: LinkOptions = LinkOptions()
    forward: ForwardOptions = ForwardOptions()
    engines: EngineOptions = EngineOptions()
    records: ReplicationOptions = ReplicationOptions()
    claims: ClaimOptions = ClaimOptions()
    custody: CustodyOptions = CustodyOptions()
    flights_max: int = 1024
    """Most flights that this entry holds; a further request is refused with 429."""
    publish_s: float = 2.0
    """How often the node's own load figures are renewed when nothing changes."""
    publish_min_s: float = 0.25
    """How soon after one another changes of load are told: a quarter of a second is fresh beside a
    service time of seconds."""


class NodeCore:
    """One node. Construct it, call `start`, then feed it inputs; every method returns effects."""

    def __init__(
        self,
        me: Member,
        models: dict[str, str],
        options: NodeOptions,
        rng: random.Random,
        seal: "Seal | None" = None,
    ) -> None:
        """`models` maps each replica's name to the model it serves. With a `seal`, no datagram is clear."""
        self.options = options
        self.swim = Swim(options.swim, me, random.Random(rng.getrandbits(64)))
        self.links = Links(_hello(me), options.links, self._is_in_use)
        self.forwarder = Forwarder(self.candidates, random.Random(rng.getrandbits(64)), options.forward)
        self.claims = Claims(self._log_bytes, options.claims)
        self.custody = Custody(self.claims, self._peers, self.flights.get, options.custody)
        self.engines = Engines(
            {name: Replica(name, model) for name, model in models.items()}, options.engines
        )
        self.relay = Relay(self._place)
        self.records = Replication(me.node, options.records, random.Random(rng.getrandbits(64)))
        """The replicated records: read them here, write them through this core."""
        self.draining = False
        self._publication = Publication(options.publish_s, options.publish_min_s)
        self._engine_links = EngineLinks(self.engines, self._publication.changed)
        self._switchboard = Switchboard(
            self.swim,
            self.links,
            self.forwarder,
            self.relay,
            self._engine_links,
            self.records,
            self.custody,
            self._publish,
            seal,
        )
        self.seal = seal
        self._settle = self._switchboard.settle
        self.decode_errors = 0
        """Frames of peers whose bodies meant nothing; dropped."""

    # -- who we are -------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This node's own word about itself."""
        return self.swim.me

    @property
    def name(self) -> str:
        """This node's label."""
        return self.me.name

    @property
    def flights(self) -> dict[int, Flight]:
        """The flights whose entry this node is."""
        return self.forwarder.flights

    # -- life -------------------------------------------------------------------------------------

    def start(self, now: Now, seeds: tuple[Address, ...]) -> list[Effect]:
        """Start the engines and join the mesh."""
        outputs: list[Output] = []
        for replica in self.engines.replicas.values():
            outputs += self._start_engine(now, replica)
        if seeds:
            outputs += self.swim.join(now, seeds)
        return self._settle(now, outputs)

    def join(self, now: Now, seeds: tuple[Address, ...]) -> list[Effect]:
        """Ask these seeds from now on, instead of any before."""
        return self._settle(now, self.swim.join(now, seeds))

    def drain(self, now: Now) -> list[Effect]:
        """Take no new requests, tell the mesh, and let what runs end."""
        if self.draining:
            return []
        self.draining = True
        report = Report("draining", (("flights", self.active), ("attempts", len(self.relay.tickets))))
        return self._settle(now, [report, *self.swim.update_me(now, draining=True), *self._publish(now)])

    def ask_unlike(self, now: Now) -> tuple[list[str], list[Effect]]:
        """Ask peers for their view digests; return the ids of the live ones who have not said that theirs is ours."""
        unlike, outputs = self.swim.ask_unlike(now)
        return unlike, self._settle(now, outputs)

    def forget(self, now: Now, node: str) -> tuple[bool, list[Effect]]:
        """Let the mesh forget this life of a member; return whether there is one to forget."""
        known = node != self.me.node and self.swim.member(node) is not None
        return known, self._settle(now, self.swim.forget(now, node))

    @property
    def active(self) -> int:
        """Flights of this entry that have not ended."""
        return self.forwarder.active

    @property
    def is_idle(self) -> bool:
        """Whether nothing is computed here, and no client is being served."""
        return len(self.flights) == self.claims.waiting_flights and not self.relay.tickets

    def leave(self, now: Now) -> list[Effect]:
        """Say goodbye to the mesh; engines that end from now on are not started again."""
        self.engines.stop()
        return self._settle(now, self.swim.leave(now))

    # -- clients ----------------------------------------------------------------------------------

    def submit(
        self, now: Now, request: Attempt, timeout_s: float | None, id: int = 0
    ) -> tuple[int, list[Effect]]:
        """Begin a flight, under `id` unless that is 0; return its id.

        Raises RequestError, with nothing kept, if it cannot be admitted.
        """
        self._admit(now, request)
        flight, outputs = self.forwarder.submit(now, request, timeout_s, id)
        return flight, self._settle(now, outputs)

    def _admit(self, now: Now, request: Attempt, flights: int = 1) -> None:
        if self.draining:
            raise RequestError("draining", f"node `{self.name}` is draining", retry_after_ms=1000)
        if self.active + flights > self.options.flights_max:
            message = f"this node already holds {self.options.flights_max} requests, its `flights_max`"
            raise RequestError("too_many_requests", message, retry_after_ms=1000)
        if self._publication.known_models.had(now, request.model):
            return
        names = [card[0] for card in self.models(now)]
        if request.model not in names:
            known = ", ".join(f"`{name}`" for name in names) or "none"
            raise RequestError(
                "model_not_found", f"no model `{request.model}`; the mesh has {known}", "model"
            )

    def cancel(self, now: Now, flight: int) -> list[Effect]:
        """End a flight because its client has gone."""
        return self._settle(now, self.forwarder.cancel(now, flight))

    def release(self, now: Now, flight: int) -> list[Effect]:
        """Forget a flight whose client has been served."""
        return self._settle(now, self.forwarder.release(now, flight))

    # -- clients that may come back ---------------------------------------------------------------

    def claim(self, now: Now, claim: Claim) -> list[Effect]:
        """Keep the flights of a request for their client, who may go and come back; it reads them now."""
        self.claims.add(claim)
        return self._settle(now, self.custody.entrust(now, claim.id, 1))

    def attach(self, now: Now, id: int) -> tuple[Claim | None, list[Effect]]:
        """Somebody reads a claim from now on; None if it is not held here."""
        return self.claims.attach(id), []

    def detach(self, now: Now, claim: Claim) -> list[Effect]:
        """Somebody no longer reads a claim; without readers it is kept for a while."""
        return self._settle(now, self.claims.detach(now, claim))

    def seek(self, now: Now, id: int) -> list[Effect]:
        """Ask the mesh for a claim; a Wake of its id says that `custody.finding` knows."""
        return self._settle(now, self.custody.seek(now, id))

    def reopen(
        self, now: Now, id: int, finding: Finding, attempts: list[Attempt]
    ) -> tuple[Claim, list[Effect]]:
        """Become the entry of a claim that was found, whose note yields these attempts; its reader reads it now.

        Raises RequestError, nothing changed, if it cannot be admitted.
        """
        self._admit(now, attempts[0], len(attempts))
        claim, outputs = reopened(now, self.forwarder, id, finding, attempts)
        self.claims.add(claim)
        outputs += self.custody.entrust(now, id, finding.tenure + 1)
        return claim, self._settle(now, [*outputs, *self.custody.take_over(id, finding)])

    def _peers(self) -> list[str]:
        return healthy(self.swim, self.me.node)

    def _log_bytes(self, flight: int) -> int:
        return self.flights[flight].log_bytes

    # -- records ----------------------------------------------------------------------------------

    def put_record(self, now: Now, namespace: str, id: str, value: bytes) -> list[Effect]:
        """Write a record for the whole mesh. Raises LimitError, RevokedError or ClockError, nothing changed."""
        return self._settle(now, self.records.put(now, namespace, id, value))

    def delete_record(self, now: Now, namespace: str, id: str) -> list[Effect]:
        """Delete a record; nothing happens if it is not known here. Raises LimitError or ClockError."""
        return self._settle(now, self.records.delete(now, namespace, id))

    def revoke_record(self, now: Now, namespace: str, id: str, until_s: float) -> list[Effect]:
        """Delete a record for good, and remember so until `until_s`, wall time in seconds. Raises as `put_record`."""
        return self._settle(now, self.records.revoke(now, namespace, id, until_s))

    # -- events -----------------------------------------------------------------------------------

    def announce(self, now: Now, name: str, payload: bytes) -> list[Effect]:
        """Tell every node a user event. Raises LimitError, nothing changed."""
        return self._settle(now, self.swim.announce(now, name, payload))

    def publish_metadata(self, now: Now, value: bytes) -> list[Effect]:
        """Let every node hold this about us. Raises LimitError, nothing changed."""
        return self._settle(now, self.swim.publish_metadata(now, value))

    # -- what is known ----------------------------------------------------------------------------

    def models(self, now: Now) -> list[tuple[str, str, int, bool, tuple[str, ...]]]:
        """Return (name, digest, context_max, ready, node labels) of every model in the mesh, by name."""
        return cards_of(self._loads(now))

    def candidates(self, now: Now, model: str) -> tuple[Candidate, ...]:
        """Return the workers that could be asked for a model now."""
        return candidates_of(model, self._loads(now), self.me.node, self._is_trusted)

    def _loads(self, now: Now) -> list[tuple[Member, LoadRecord]]:
        me = self.me
        loads = [(me, self._my_load())]
        for member in self.swim.members():
            if member.node == me.node or not member.is_live:
                continue
            load = self.swim.loads.get(now, member.node)
            if load is not None:
                loads.append((member, load))
        return loads

    def load_of(self, now: Now, node: str) -> LoadRecord | None:
        """Return the newest load figures of a node, with their age."""
        return self._my_load() if node == self.me.node else self.swim.loads.get(now, node)

    def statistics(self) -> dict[str, Any]:
        """Return an immutable snapshot of counters and gauges, by part and name."""
        return {
            "swim": attrs.asdict(self.swim.statistics()),
            "forward": attrs.asdict(self.forwarder.statistics),
            "flights": {"active": self.active},
            "claims": attrs.asdict(self.claims.statistics),
            "custody": attrs.asdict(self.custody.statistics),
            "trustee": attrs.asdict(self.custody.trustee.statistics),
            "relay": {"tickets": len(self.relay.tickets)},
            "links": {"open": len(self.links), "lag_s": self.links.lag_s},
            "records": attrs.asdict(self.records.statistics()),
            "frames": {"decode_errors": self.decode_errors + self._engine_links.nonsense},
            "seal": self.seal.snapshot() if self.seal is not None else {},
            "engines": {r.name: _engine_statistics(r) for r in self.engines.replicas.values()},
        }

    def _is_trusted(self, node: str) -> bool:
        return node == self.me.node or not self.swim.is_quarantined(node)

    def is_ready(self, now: Now) -> tuple[bool, str]:
        """Whether a model can answer here or anywhere in the mesh; if not, why."""
        if self.draining:
            return False, "draining"
        if any(self.candidates(now, card[0]) for card in self.models(now)):
            return True, "ready"
        reasons = [f"{r.model}: {r.reason}" for r in self.engines.replicas.values() if r.reason]
        return False, "; ".join(reasons) or "no node of the mesh has a model that is ready"

    # -- datagrams and links ----------------------------------------------------------------------

    def receive(self, now: Now, data: bytes, source: Address) -> list[Effect]:
        """Take a datagram."""
        if self.seal is None:
            return self._settle(now, self._hear(now, data, source))
        packet, source, effects = self.seal.receive(now, data, source)
        if packet is None:
            return effects
        return effects + self._settle(now, self._hear(now, packet, source))

    def _hear(self, now: Now, packet: bytes, source: Address, reliable: bool = False) -> list[Output]:
        if records_wire.is_of_records(packet):
            return self.records.receive(now, packet)
        return self.swim.receive(now, packet, source, reliable)

    def worth(self, data: bytes) -> Worth:
        """Say what a datagram is worth, by its look: what to shed last when there are too many."""
        if self.seal is not None and not self.seal.knows(data):
            return Worth.STRANGER
        return Worth.VITAL if len(data) <= SMALL_BYTES else Worth.BULK

    def rekey(self, now: Now, keyring: "Keyring") -> list[Effect]:
        """Seal and open with other keys from now on. Only a node that seals can."""
        assert self.seal is not None
        self.seal.rekey(now, keyring)
        return [Report("rekeyed", (("keys", ", ".join(str(key.id) for key in keyring.keys)),))]

    def link_accepted(self, now: Now) -> tuple[LinkId, list[Effect]]:
        """A peer has connected; return the link's name."""
        link, outputs = self.links.accepted(now)
        return link, self._settle(now, outputs)

    def link_verified(self, now: Now, link: LinkId, node: str) -> list[Effect]:
        """The peer's certificate names a node; say so before anything of the link is read."""
        self.links.verified(link, node)
        return []

    def link_opened(self, now: Now, link: LinkId) -> list[Effect]:
        """A dial has succeeded."""
        return self._settle(now, self.links.opened(now, link))

    def link_lost(self, now: Now, link: LinkId, reason: str) -> list[Effect]:
        """A dial has failed, or a connection is gone."""
        if link in self._engine_links:
            return []
        return self._settle(now, self.links.lost(now, link, reason))

    def link_output(self, link: LinkId, bytes_max: int) -> bytes:
        """Take the next bytes to write on a link; empty if none wait."""
        links = self._engine_links if link in self._engine_links else self.links
        return links.output(link, bytes_max)

    def link_data(self, now: Now, link: LinkId, data: bytes) -> list[Effect]:
        """Take bytes that were read from a link."""
        if link in self._engine_links:
            return self._settle(now, self._engine_data(now, link, data))
        frames, outputs = self.links.input(now, link, data)
        node = self.links.node_of(link)
        if node:
            outputs = [*self.swim.heard(now, node), *outputs]
        effects = self._settle(now, outputs)
        for frame in frames:
            effects += self._settle(now, self._peer_frame(now, link, node, frame))
        return effects

    def _peer_frame(self, now: Now, link: LinkId, node: str, frame: Frame) -> list[Output]:
        try:
            if frame.kind == Kind.GOSSIP:
                return self._gossip(now, link, frame)
            if frame.kind in ENTRY_KINDS:
                return self.relay.receive(link, node, frame)
            if frame.kind in CUSTODY_KINDS:
                return self.custody.receive(now, node, frame)
            return self.forwarder.receive(now, node, frame)
        except DecodeError as error:
            self.decode_errors += 1
            return [Report("frame_refused", (("node", node), ("error", str(error))))]

    def _gossip(self, now: Now, link: LinkId, frame: Frame) -> list[Output]:
        address = self.links.gossip_address(link)
        return self._hear(now, frame.body, address, reliable=True) if address else []

    # -- engines ----------------------------------------------------------------------------------

    def _start_engine(self, now: Now, replica: Replica) -> list[Output]:
        return self._engine_links.start(now, replica, self.links.new_id(), _hello(self.me))

    def engine_started(self, now: Now, replica: str, pid: int) -> list[Effect]:
        """An engine's process runs and its link carries bytes."""
        return self._settle(now, self._engine_links.started(replica, pid))

    def engine_exited(self, now: Now, replica: str, reason: str) -> list[Effect]:
        """An engine's process is gone, and every byte it wrote has been handed over."""
        return self._settle(now, self._engine_links.exited(now, replica, reason))

    def is_at_work(self, replica: str) -> bool:
        """Whether an engine has something to do: attempts, or its model to load."""
        return self.relay.holds(replica) or self.engines.replicas[replica].state is EngineState.STARTING

    def engine_progress(self, now: Now, replica: str, layers: int, cpu_s: float) -> list[Effect]:
        """Take a sample of an engine's progress counter and processor time."""
        has_work = self.relay.holds(replica)
        return self._settle(now, self.engines.progress(now, replica, layers, cpu_s, has_work))

    def _engine_data(self, now: Now, link: LinkId, data: bytes) -> list[Output]:
        frames, outputs = self._engine_links.input(now, link, data)
        answers = [answer for frame in frames for answer in self.relay.answer(frame)]
        return [*answers, *outputs]

    def _place(self, model: str) -> str | None:
        serving = self.engines.serving(model)
        return min(serving, key=_held_tokens).name if serving else None

    def _is_in_use(self, link: LinkId, node: str) -> bool:
        return self.relay.serves(link) or self.forwarder.is_served_by(node)

    # -- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When `tick` must be called, at the latest."""
        parts = (self.swim, self.links, self.forwarder, self.claims, self.custody, self.engines, self.records)
        deadlines = [deadline for part in parts if (deadline := part.next_deadline()) is not None]
        return min([self._publication.due_at, *deadlines])

    def lost_input(self, now: Now, count: int) -> list[Effect]:
        """So many datagrams were dropped on this machine since the last tick; to be told before the next one."""
        return self._settle(now, self.swim.lost_input(now, count))

    def tick(self, now: Now) -> list[Effect]:
        """Carry out what is due."""
        outputs: list[Output] = [*self.swim.tick(now), *self.links.tick(now), *self.forwarder.tick(now)]
        outputs += self.records.tick(now)
        outputs += self.claims.tick(now)
        outputs += self.custody.tick(now)
        for replica in self.engines.due(now):
            outputs += self._start_engine(now, replica)
        if now.mono >= self._publication.due_at:
            outputs += self._publish(now)
        return self._settle(now, outputs)

    def _publish(self, now: Now) -> list[Output]:
        return self._publication.publish(now, self.swim, self._my_load())

    def _my_load(self) -> LoadRecord:
        return load_record(self.me, self.engines, self.draining, self.links.lag_s)


def _hello(me: Member) -> Hello:
    return Hello(PROTOCOL, me.node, me.identity.generation, me.name, format_address(me.address))


def _held_tokens(replica: Replica) -> int:
    return replica.status.queued_tokens if replica.status else 0


def _engine_statistics(replica: Replica) -> dict[str, Any]:
    told = {"state": replica.state.value, "deaths": replica.deaths}
    counted = ("guessed", "guesses_held", "text_worker_deaths")
    return (
        told if replica.status is None else told | {name: getattr(replica.status, name) for name in counted}
    )
