"""The failure detector of one node: its probe rounds, its helpers' work, its quarantine.

Theory of operation. Any number of rounds (`mesh.probe`) run side by side, at most one per
member, so that mass failure is noticed in parallel. What a round finds moves this node's own
verdict on a member, which is nobody else's business and is never gossiped:

    trusted      --  a round failed, or the link layer saw the peer go  -->  quarantined
    quarantined  --  one answer, or any traffic from it                 -->  trusted

Whether the mesh believes a member dead is another matter, decided in `mesh.swim`. The
detector neither encodes nor applies accounts: it returns what to say, and what it found.
"""

import random

import attrs

from mesh.agenda import Agenda
from mesh.effects import Address
from mesh.facts import Quarantined, QuarantineLifted
from mesh.health import LocalHealth
from mesh.hot import hot
from mesh.identity import Identity
from mesh.member import Member
from mesh.members import Members
from mesh.messages import Ack, Message, Nack, Ping, PingRequest
from mesh.now import Now
from mesh.probe import Phase, Probe, RoundTrip, timeout_s
from mesh.swim_options import SwimOptions

NACK_SHARE = 0.8
"""Part of the asker's patience after which a helper says nack (Lifeguard section IV-A)."""
RELAY_TIMEOUT_MAX_S = 10.0
"""Longest that a helper works for one request, whatever the asker claims."""


@hot
class Say:
    """Send a message to a member; what is believed of `to` rides along (Lifeguard's buddy system)."""

    address: Address
    message: Message
    to: str
    reliable: bool = False


@attrs.frozen
class RoundFailed:
    """No path to the target answered in time."""

    target: Identity


@hot
class RoundAnswered:
    """The target, or a helper for it, has answered."""

    target: Identity


@hot
class RoundKey:
    """Agenda key: the deadline of a round."""

    nonce: int


@attrs.frozen
class RelayKey:
    """Agenda key: time to send a nack."""

    nonce: int


@attrs.frozen
class _Relay:
    asker: str
    address: Address
    nonce: int
    target: str


Finding = Say | RoundFailed | RoundAnswered | Quarantined | QuarantineLifted


class Detector:
    """Rounds, relays, round trips and quarantine. Bounded by the table of members and by options."""

    def __init__(
        self, me: str, options: SwimOptions, members: Members, agenda: Agenda, rng: random.Random
    ) -> None:
        self._me = me
        self._options = options
        self._members = members
        self._agenda = agenda
        self._rng = rng
        self._rounds: dict[int, Probe] = {}
        self._nonces: dict[str, int] = {}
        self._relays: dict[int, _Relay] = {}
        self._round_trips: dict[str, RoundTrip] = {}
        self._heard_at: dict[str, float] = {}
        self._quarantined: dict[str, str] = {}
        self.health = LocalHealth(options.health_max, options.health_counts_nacks)
        self.heard_anybody_at: float | None = None
        self.rounds_started = 0
        self.rounds_failed = 0
        self.relays_refused = 0

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Ids of the quarantined, longest first."""
        return tuple(self._quarantined)

    @property
    def open_rounds(self) -> int:
        """How many rounds are under way."""
        return len(self._rounds)

    def is_quarantined(self, node: str) -> bool:
        """Whether this node has stopped trusting `node` to answer."""
        return node in self._quarantined

    def round_trip(self, node: str) -> RoundTrip | None:
        """The measured round trip to `node`, if any."""
        return self._round_trips.get(node)

    def start(self, now: Now, target: Member, lag_s: float = 0.0) -> list[Finding]:
        """Begin a round, unless one is open. `lag_s`: what the target says of its own loop."""
        if target.node in self._nonces:
            return []
        probe = self._new_round(now, target, lag_s)
        self._rounds[probe.nonce] = probe
        self._nonces[target.node] = probe.nonce
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        self.rounds_started += 1
        return [Say(target.address, Ping(self._me, probe.nonce, target.node), target.node)]

    def round_due(self, now: Now, nonce: int) -> list[Finding]:
        """A round's deadline has passed."""
        probe = self._rounds[nonce]
        phase = probe.timed_out(self._heard_at.get(probe.target.node))
        if phase is Phase.INDIRECT:
            return self._ask_around(now, probe)
        if phase is Phase.ANSWERED:
            return self._answered(probe)
        return self._failed(probe)

    def acked(self, now: Now, ack: Ack, reliable: bool) -> list[Finding]:
        """An ack arrived: for one of our rounds, for one we relay, or for nothing that is open."""
        relay = self._relays.get(ack.nonce)
        if relay is not None and relay.target == ack.source:
            self._end_relay(ack.nonce)
            return [Say(relay.address, Ack(self._me, relay.nonce, self._members.digest()), relay.asker)]
        probe = self._rounds.get(ack.nonce)
        if probe is None or not probe.acked(ack.source):
            return []
        self._measure(probe, probe.round_trip_s(now.mono, ack.source, reliable))
        return self._answered(probe)

    def nacked(self, nack: Nack) -> None:
        """A helper of ours got no answer."""
        probe = self._rounds.get(nack.nonce)
        if probe is not None:
            probe.nacked(nack.source)

    def asked(self, now: Now, request: PingRequest, reply_to: Address) -> list[Finding]:
        """Another node asks us to ping its target."""
        if len(self._relays) >= self._options.relays_max:
            self.relays_refused += 1
            return []
        nonce = self._new_nonce()
        self._relays[nonce] = _Relay(request.source, reply_to, request.nonce, request.target)
        patience_s = min(RELAY_TIMEOUT_MAX_S, request.timeout_ms / 1000)
        self._agenda.set(RelayKey(nonce), now.mono + NACK_SHARE * patience_s)
        known = self._members.get(request.target)
        address = known.address if known is not None else request.address
        return [Say(address, Ping(self._me, nonce, request.target), request.target)]

    def relay_due(self, nonce: int) -> list[Finding]:
        """A relayed ping was not answered."""
        relay = self._relays.pop(nonce)
        return [Say(relay.address, Nack(self._me, relay.nonce), relay.asker)] if self._options.nacks else []

    def heard(self, now: Now, node: str) -> list[Finding]:
        """Something authentic came from `node`."""
        self.heard_anybody_at = now.mono
        row = self._members.get(node)
        if row is None or not row.is_live or not self._options.traffic_counts:
            return []
        self._heard_at[node] = now.mono
        return [QuarantineLifted(node)] if self._quarantined.pop(node, None) is not None else []

    def evidence(self, node: str, reason: str) -> list[Finding]:
        """The link layer saw `node` go: what was heard before no longer counts."""
        self._heard_at.pop(node, None)
        return self._quarantine(node, reason)

    def renew(self, node: str) -> None:
        """The member has a new life: what was asked of the old one and measured on it is void."""
        nonce = self._nonces.get(node)
        if nonce is not None:
            self._end(self._rounds[nonce])
        self._round_trips.pop(node, None)
        self._heard_at.pop(node, None)

    def forget(self, node: str) -> None:
        """The member is gone, and with it its quarantine."""
        self.renew(node)
        self._quarantined.pop(node, None)

    def forgive(self, gap_s: float) -> None:
        """This process was away for `gap_s`; the agenda has been shifted by as much."""
        for probe in self._rounds.values():
            probe.forgive(gap_s)

    def verdict_s(self, node: str, lag_s: float = 0.0) -> float:
        """Seconds that a round with `node` takes to fail."""
        return self._verdict_s(self._timeout_s(node), lag_s)

    def _verdict_s(self, timeout_s: float, lag_s: float) -> float:
        options = self._options
        lag_s = min(lag_s, options.lag_max_s)
        least_s = max(options.verdict_min_s, options.verdict_timeouts * timeout_s, 4 * lag_s)
        return least_s * self.health.multiplier

    def _timeout_s(self, node: str) -> float:
        options = self._options
        return timeout_s(
            self._round_trips.get(node),
            options.probe_timeout_initial_s,
            options.probe_timeout_min_s,
            options.probe_timeout_max_s,
        )

    def _new_round(self, now: Now, target: Member, lag_s: float) -> Probe:
        timeout_s = self._timeout_s(target.node)
        patience_s = timeout_s * self.health.multiplier
        verdict_s = self._verdict_s(timeout_s, lag_s)
        return Probe(target.identity, self._new_nonce(), now.mono, patience_s, verdict_s)

    def _new_nonce(self) -> int:
        return self._rng.getrandbits(48)

    def _ask_around(self, now: Now, probe: Probe) -> list[Finding]:
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        target = self._members.get(probe.target.node)
        assert target is not None, "a round ends before its member is forgotten"
        helpers = self._members.sample(self._options.helpers, (target.node, *self._quarantined))
        probe.helpers = tuple(helper.node for helper in helpers)
        patience_ms = round(max(0.0, probe.deadline_at - now.mono) * 1000)
        request = PingRequest(self._me, probe.nonce, target.node, target.address, patience_ms)
        ping = Ping(self._me, probe.nonce, target.node)
        asks: list[Finding] = [Say(helper.address, request, helper.node) for helper in helpers]
        return [*asks, Say(target.address, ping, target.node, reliable=True)]

    def _answered(self, probe: Probe) -> list[Finding]:
        self._end(probe)
        self.health.round_answered()
        lifted = self._quarantined.pop(probe.target.node, None) is not None
        found: list[Finding] = [RoundAnswered(probe.target)]
        return [QuarantineLifted(probe.target.node), *found] if lifted else found

    def _failed(self, probe: Probe) -> list[Finding]:
        self._end(probe)
        self.rounds_failed += 1
        self.health.round_failed(len(probe.helpers), len(probe.nackers))
        failed = RoundFailed(probe.target)
        if not self._options.two_verdicts:
            return [failed]
        return [*self._quarantine(probe.target.node, "no answer"), failed]

    def _quarantine(self, node: str, reason: str) -> list[Finding]:
        if node in self._quarantined:
            return []
        self._quarantined[node] = reason
        return [Quarantined(node, reason)]

    def _measure(self, probe: Probe, sample_s: float | None) -> None:
        if sample_s is None:
            return
        node = probe.target.node
        known = self._round_trips.get(node)
        self._round_trips[node] = known.observe(sample_s) if known is not None else RoundTrip.first(sample_s)

    def _end(self, probe: Probe) -> None:
        self._agenda.cancel(RoundKey(probe.nonce))
        del self._rounds[probe.nonce]
        del self._nonces[probe.target.node]

    def _end_relay(self, nonce: int) -> None:
        self._agenda.cancel(RelayKey(nonce))
        del self._relays[nonce]
