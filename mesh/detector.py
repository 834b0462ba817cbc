"""The failure detector of one node: its probe rounds, its helpers' work, its quarantine.

Theory of operation. Any number of rounds (`mesh.probe`) run side by side, at most one per
member, so that mass failure is noticed in parallel. What a round finds moves this node's own
verdict on a member (`mesh.trust`), which is nobody else's business and is never gossiped:

    trusted      --  a round without an echo, or the link layer saw the peer go  -->  quarantined
    quarantined  --  an echo of our own ping, for as long as its past demands    -->  trusted

Mere traffic lifts nothing, since it proves one direction only: it makes us ask at once.

Whether the mesh believes a member dead is another matter, decided in `mesh.beliefs`. The
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
from mesh.loss import LossMeter
from mesh.member import Member
from mesh.members import Members
from mesh.messages import Ack, Message, Nack, Ping, PingRequest
from mesh.now import Now
from mesh.probe import Phase, Probe
from mesh.round_trips import RoundTrips
from mesh.swim_options import SwimOptions
from mesh.trust import Trust
from mesh.why import Why

NACK_SHARE = 0.8
"""Part of the asker's patience after which a helper says nack (Lifeguard section IV-A)."""
RELAY_TIMEOUT_MAX_S = 10.0
"""Longest that a helper works for one request, whatever the asker claims."""
REFUSED = "refused"
"""How the link layer begins its reason when the other machine answers that nobody listens."""
SPACINGS = 10
"""A round without loss lasts so many times the time between two asks."""
LAG_DECAY = 0.9
LAG_LEAST_S = 1e-3
ASK_AGAIN_MIN_S = 0.1
ASKS_OF_PROBATION = 8
"""One on probation is asked so often in the course of it."""


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
    refused: bool = False
    """Whether its machine said that nobody listens there: the path works, the process is gone."""


@hot
class RoundLate:
    """The target has not answered in time; helpers and TCP are asked now."""

    target: Identity


@hot
class RoundAnswered:
    """The target lives: it has answered us, or a helper, or sent something else meanwhile."""

    target: Identity
    answered: bool = True
    """Whether it has answered a ping, ours or a helper's: who says goodbye still sends, and answers none."""


@hot
class Echoed:
    """A ping of ours was answered at once: this node sends and hears, as of `sent_at`."""

    node: str
    sent_at: float


@hot
class RoundKey:
    """Agenda key: the deadline of a round."""

    nonce: int


@attrs.frozen
class RelayKey:
    """Agenda key: time to send a nack."""

    nonce: int


@attrs.frozen
class AskKey:
    """Agenda key: one on probation is asked again."""

    node: str


@attrs.frozen
class _Relay:
    asker: str
    address: Address
    nonce: int
    target: str


Finding = Say | RoundFailed | RoundLate | RoundAnswered | Echoed | Quarantined | QuarantineLifted


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
        self._heard_at: dict[str, float] = {}
        self._answered_at: dict[str, float] = {}
        self.round_trips = RoundTrips(options, rng)
        self.trust = Trust(options.trust)
        self.loss = LossMeter()
        self.why = Why()
        self.health = LocalHealth(options.health_max, options.health_counts_nacks)
        self.own_lag_s = 0.0
        """How late this process runs its timers, of late."""
        self.heard_anybody_at: float | None = None
        self.echoed_at: float | None = None
        """When the last ping that was answered within its timeout was sent."""
        self._deprived_at = float("-inf")
        self.rounds_started = 0
        self.rounds_failed = 0
        self.relays_refused = 0

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Ids of the quarantined, longest first."""
        return self.trust.lost

    @property
    def open_rounds(self) -> int:
        """How many rounds are under way."""
        return len(self._rounds)

    def is_quarantined(self, node: str) -> bool:
        """Whether this node has stopped trusting `node` to answer."""
        return node in self.trust

    def round_with(self, node: str) -> Probe | None:
        """The open round with `node`, if any."""
        nonce = self._nonces.get(node)
        return self._rounds[nonce] if nonce is not None else None

    def is_late(self, node: str) -> bool:
        """Whether an open round with `node` has had no answer in time."""
        probe = self.round_with(node)
        return probe is not None and probe.phase is Phase.INDIRECT

    def heard_since(self, node: str, since: float) -> bool:
        """Whether anything has come from `node` after `since`."""
        heard_at = self._heard_at.get(node)
        return heard_at is not None and heard_at > since

    def answered_since(self, node: str, since: float) -> bool:
        """Whether `node` has answered a ping of ours after `since`: both directions work."""
        answered_at = self._answered_at.get(node)
        return answered_at is not None and answered_at > since

    def start(
        self, now: Now, target: Member, lag_s: float = 0.0, asks: int = 1, regular: bool = False
    ) -> list[Finding]:
        """Begin a round, unless one is open.

        Args:
            now: the time.
            target: whom to ask.
            lag_s: what the target says of its own loop.
            asks: direct pings, at least.
            regular: whether the target came up in turn: such a round measures the loss.

        """
        if target.node in self._nonces:
            return []
        probe = self._new_round(now, target, lag_s, asks, regular)
        self._rounds[probe.nonce] = probe
        self._nonces[target.node] = probe.nonce
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        self.rounds_started += 1
        return [self._ping(probe, target)]

    def insist(self, now: Now, target: Member, lag_s: float, asks: int) -> list[Finding]:
        """Begin a round of `asks` asks, or let the open one go on for as many.

        Our own health does not stretch it: whether we hear is proved before and after (`mesh.inquest`).
        """
        found = self.start(now, target, lag_s, asks)
        probe = self.round_with(target.node)
        assert probe is not None, "a round is open now"
        probe.insist(now.mono, asks, self.verdict_s(target.node, lag_s, asks) / self.health.multiplier)
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        return found

    def round_due(self, now: Now, nonce: int) -> list[Finding]:
        """A round's deadline has passed."""
        probe = self._rounds[nonce]
        was = probe.phase
        phase = probe.timed_out(self._heard_at.get(probe.target.node))
        if was is Phase.DIRECT:
            self._sample(probe, lost=True)
            return self._ask_around(now, probe)
        if phase is Phase.INDIRECT:
            return self._ask_again(probe)
        if phase is Phase.FAILED:
            return self._failed(now, probe)
        return self._spared(now, probe, answered=was is Phase.VOUCHED)

    def acked(self, now: Now, ack: Ack, reliable: bool) -> list[Finding]:
        """An ack arrived: for one of our rounds, for one we relay, or for nothing that is open."""
        relay = self._relays.get(ack.nonce)
        if relay is not None and relay.target == ack.source:
            self._end_relay(ack.nonce)
            return [Say(relay.address, Ack(self._me, relay.nonce, self._members.digest()), relay.asker)]
        probe = self._rounds.get(ack.nonce)
        if probe is None:
            return []
        was = probe.phase
        if not probe.acked(ack.source, self._options.two_verdicts):
            if probe.phase is not was:
                self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
            return []
        self.round_trips.told(ack.source, ack.coordinate)
        sample_s = probe.round_trip_s(now.mono, ack.source, reliable)
        if sample_s is not None:
            self.round_trips.measure(probe.target.node, sample_s)
        if was is Phase.DIRECT:
            self._sample(probe, lost=False)
        return self._echoed(now, probe, not reliable and now.mono <= self._prompt_until(probe))

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
        """Something authentic came from `node`. One in quarantine is asked whether it hears us too."""
        self.heard_anybody_at = now.mono
        row = self._members.get(node)
        if row is None or not row.is_live or not self._options.traffic_counts:
            return []
        self._heard_at[node] = now.mono
        return self.start(now, row) if node in self.trust and not self.trust.on_probation(node) else []

    def evidence(self, now: Now, node: str, reason: str) -> list[Finding]:
        """The link layer saw `node` go: what was heard before no longer counts.

        A refusal also proves that our packets reach its machine and come back.
        """
        self._heard_at.pop(node, None)
        probe = self.round_with(node)
        found = self._quarantine(now, node, reason)
        if probe is not None and reason.startswith(REFUSED):
            probe.refused = True
        return found

    def died(self, now: Now, node: str) -> None:
        """The mesh holds the member dead."""
        self._forget(node)
        self.trust.died(now.mono, node)

    def returned(self, now: Now, node: str) -> list[Finding]:
        """The mesh holds the member alive again: one that flaps must show that it stays."""
        if not self.trust.returned(now.mono, node):
            return []
        self.note(now, node, "quarantined", "flapping")
        return [Quarantined(node, "flapping")]

    def ran_late(self, lag_s: float) -> None:
        """Timers of this process came `lag_s` late: its own rounds wait for that too, and ever less again."""
        self.own_lag_s = (
            max(lag_s, LAG_DECAY * self.own_lag_s) if lag_s or self.own_lag_s > LAG_LEAST_S else 0.0
        )

    def lost_input(self, now: Now) -> None:
        """Our own machine drops datagrams: we are less fit to judge, and open rounds go on for a verdict more."""
        if now.mono - self._deprived_at >= self._options.probe_period_s:
            self._deprived_at = now.mono
            self.health.deprived()
        for probe in self._rounds.values():
            if probe.hold(now.mono, self.verdict_s(probe.target.node)):
                self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)

    def note(self, now: Now, node: str, verdict: str, reason: str, accusers: tuple[str, ...] = ()) -> None:
        """Remember a verdict with its evidence, and how well we ourselves are."""
        ourselves = (self.health.score, self.loss.share, self.own_lag_s, self.echoed_at)
        round_trip = self.round_trips.get(node)
        self.why.note(now.mono, node, verdict, reason, accusers, round_trip, ourselves)

    def renew(self, node: str) -> None:
        """The member has left or has a new life: what was asked of the old one and measured on it is void."""
        self._forget(node)
        self.trust.forget(node)

    def forgive(self, gap_s: float) -> None:
        """This process was away for `gap_s`; the agenda has been shifted by as much."""
        for probe in self._rounds.values():
            probe.forgive(gap_s)

    def verdict_s(self, node: str, lag_s: float = 0.0, asks: int = 1) -> float:
        """Seconds that a round with `node` takes to fail."""
        return self._verdict_s(self.round_trips.timeout_s(node), lag_s, asks)

    def _verdict_s(self, timeout_s: float, lag_s: float, asks: int) -> float:
        options = self._options
        lag_s = min(max(lag_s, self.own_lag_s), options.lag_max_s)
        least_s = max(options.verdict_min_s, options.verdict_timeouts * timeout_s, 4 * lag_s)
        if asks > 1:
            least_s = max(least_s, 2 * timeout_s + asks * self._spacing_s)
        return least_s * self.health.multiplier

    @property
    def _spacing_s(self) -> float:
        """Between two asks of a round: far below its verdict, so that the dead are not long about it."""
        return max(self._options.probe_timeout_min_s, self._options.verdict_min_s / SPACINGS)

    def _new_round(self, now: Now, target: Member, lag_s: float, asks: int, regular: bool) -> Probe:
        asks = max(asks, self.loss.round_asks) if self._options.loss_scaling else 1
        timeout_s, nonce = self.round_trips.timeout_s(target.node), self._new_nonce()
        patience_s = timeout_s * self.health.multiplier
        verdict_s = self._verdict_s(timeout_s, lag_s, asks)
        spacing_s = max(self._spacing_s, (verdict_s - 2 * patience_s) / asks)
        return Probe(target.identity, nonce, now.mono, patience_s, verdict_s, asks, spacing_s, regular)

    def _new_nonce(self) -> int:
        return self._rng.getrandbits(48)

    def _ping(self, probe: Probe, target: Member, reliable: bool = False) -> Say:
        ping = Ping(self._me, probe.nonce, target.node, self.round_trips.mine)
        return Say(target.address, ping, target.node, reliable)

    def _target(self, probe: Probe) -> Member:
        target = self._members.get(probe.target.node)
        assert target is not None, "a round ends before its member is forgotten"
        return target

    def _ask_around(self, now: Now, probe: Probe) -> list[Finding]:
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        target = self._target(probe)
        helpers = self._members.sample(self._options.helpers, (target.node, *self.trust.lost))
        probe.helpers = tuple(helper.node for helper in helpers)
        patience_ms = round(max(0.0, probe.started_at + probe.verdict_s - now.mono) * 1000)
        request = PingRequest(self._me, probe.nonce, target.node, target.address, patience_ms)
        asks: list[Finding] = [Say(helper.address, request, helper.node) for helper in helpers]
        return [*asks, self._ping(probe, target, reliable=True), RoundLate(probe.target)]

    def _ask_again(self, probe: Probe) -> list[Finding]:
        self._agenda.set(RoundKey(probe.nonce), probe.deadline_at)
        return [self._ping(probe, self._target(probe))]

    def _echoed(self, now: Now, probe: Probe, prompt: bool) -> list[Finding]:
        self._end(probe)
        if probe.regular:
            self.health.round_answered()
        node = probe.target.node
        self._answered_at[node] = now.mono
        found: list[Finding] = []
        if prompt:
            self.echoed_at = max(probe.sent_at, self.echoed_at or 0.0)
            self.loss.echoed()
            found.append(Echoed(node, probe.sent_at))
        if node in self.trust:
            found = [*self._trusted(now, node), *found]
        return [*found, RoundAnswered(probe.target)]

    def _prompt_until(self, probe: Probe) -> float:
        """Until when an echo is prompt: within the first timeout, and as many asks as loss demands."""
        more = self.loss.round_asks - 1 if self._options.loss_scaling else 0
        return probe.sent_at + probe.timeout_s + more * probe.spacing_s

    def _trusted(self, now: Now, node: str) -> list[Finding]:
        if self.trust.echoed(now.mono, node, self._members.live - 1):
            self._agenda.cancel(AskKey(node))
            self.note(now, node, "trusted", "it answers")
            return [QuarantineLifted(node)]
        wait_s = max(ASK_AGAIN_MIN_S, self.trust.probation_s(node) / ASKS_OF_PROBATION)
        self._agenda.set(AskKey(node), now.mono + wait_s)
        return []

    def _spared(self, now: Now, probe: Probe, answered: bool) -> list[Finding]:
        """It lives, but it has not answered us: it is no suspect, and no peer to send requests to."""
        self._end(probe)
        self.why.round_ended(now.mono, probe)
        return [*self._quarantine(now, probe.target.node, "no echo"), RoundAnswered(probe.target, answered)]

    def _failed(self, now: Now, probe: Probe) -> list[Finding]:
        self._end(probe)
        self.why.round_ended(now.mono, probe)
        self.rounds_failed += 1
        if probe.regular:
            self.health.round_failed(len(probe.helpers), len(probe.nackers))
        failed = RoundFailed(probe.target, probe.refused)
        if not self._options.two_verdicts:
            return [failed]
        return [*self._quarantine(now, probe.target.node, "no answer"), failed]

    def _quarantine(self, now: Now, node: str, reason: str) -> list[Finding]:
        if not self.trust.lose(now.mono, node, reason):
            return []
        self.note(now, node, "quarantined", reason)
        return [Quarantined(node, reason)]

    def _sample(self, probe: Probe, lost: bool) -> None:
        """Pings to those in quarantine, or in doubt, measure them and not the network."""
        if probe.regular and probe.target.node not in self.trust:
            self.loss.sample(lost)

    def _forget(self, node: str) -> None:
        probe = self.round_with(node)
        if probe is not None:
            self._end(probe)
        self.round_trips.forget(node)
        self._heard_at.pop(node, None)
        self._answered_at.pop(node, None)
        self._agenda.cancel(AskKey(node))

    def _end(self, probe: Probe) -> None:
        self._agenda.cancel(RoundKey(probe.nonce))
        del self._rounds[probe.nonce]
        del self._nonces[probe.target.node]

    def _end_relay(self, nonce: int) -> None:
        self._agenda.cancel(RelayKey(nonce))
        del self._relays[nonce]
