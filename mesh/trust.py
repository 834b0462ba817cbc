"""Whom this node trusts to answer: its quarantine, and how long a peer that flaps stays in it.

Theory of operation. Quarantine is this node's own verdict, for routing alone, never gossiped:

    trusted      --  a round without an answer to us, or a lost link     -->  quarantined
    quarantined  --  an answer to our own ping, kept up for a probation  -->  trusted

Only an echo of our own nonce counts: whose packets arrive while ours do not would else be let back in by each
of them (a one-way cut). The probation is how long each ping must be answered in a row:

    outage                                                        probation
    the first in `memory_s`, or one shorter than `counts_s`        none: the first echo lifts it
    again within `relapse_s` of being lifted: the same outage      at least `relapse_probation_s`
    the 2nd, 3rd, ... in `memory_s`                                probation_s * 1, 2, 4, ... up to a bound

A peer that is cut off every 20 s is so lost once, not for ever and again; one that was stopped and resumed many
times in a row is back as soon as it stays. Where more than half of the peers are quarantined there is no
probation: then the network is ill and not the peer, and somebody must be asked.
"""

import attrs

PANIC_SHARE = 0.5
"""Part of the live peers in quarantine above which nobody is on probation."""
PAST_MAX = 4096
"""Peers whose outages are remembered; beyond, the one whose last ended longest ago is forgiven."""


@attrs.frozen
class TrustOptions:
    """What a flap costs. Seconds."""

    counts_s: float = 0.5
    """Shorter outages are forgotten, unless they ended in death: a link that is replaced is none."""
    relapse_s: float = 2.0
    """Lost again so soon, it never was well. Longer: slow flapping counts as one outage."""
    relapse_probation_s: float = 0.4
    """What one that never was well must show. Below a second, so that who resumes is soon back."""
    probation_s: float = 30.0
    """What the second outage costs; doubles with each. Longer than the flap that it is to stop."""
    probation_max_s: float = 600.0
    memory_s: float = 600.0
    """An outage is forgotten so long after its end."""


@attrs.frozen
class _Outage:
    reason: str
    since: float
    probation_s: float
    clean_since: float | None = None
    lost_at: float | None = None
    """When it was last lost; None if it has come back from the dead and not been lost since."""


@attrs.frozen
class _Past:
    outages: int
    probation_s: float
    ended_at: float


@attrs.define
class Trust:
    """Open outages and past ones, by node. Times are monotonic seconds."""

    options: TrustOptions = TrustOptions()
    _open: dict[str, _Outage] = attrs.field(factory=dict, init=False)
    _past: dict[str, _Past] = attrs.field(factory=dict, init=False)

    def __contains__(self, node: str) -> bool:
        return node in self._open

    def __len__(self) -> int:
        return len(self._open)

    @property
    def lost(self) -> tuple[str, ...]:
        """Who is quarantined, longest first."""
        return tuple(self._open)

    def on_probation(self, node: str) -> bool:
        """Whether it answers again, and must go on doing so."""
        outage = self._open.get(node)
        return outage is not None and outage.clean_since is not None

    def probation_s(self, node: str) -> float:
        """For how long it must go on answering, once it does."""
        outage = self._open.get(node)
        return outage.probation_s if outage is not None else 0.0

    def lose(self, now_s: float, node: str, reason: str) -> bool:
        """Quarantine a peer; returns whether it was trusted."""
        outage = self._open.get(node)
        if outage is not None:
            again = outage.lost_at is None or outage.clean_since is not None
            self._open[node] = attrs.evolve(
                outage, clean_since=None, lost_at=now_s if again else outage.lost_at
            )
            return False
        self._open[node] = _Outage(reason, now_s, self._sentence_s(now_s, node), lost_at=now_s)
        return True

    def echoed(self, now_s: float, node: str, live: int) -> bool:
        """It has answered us; `live` is how many peers there are. Returns whether that lifts its quarantine."""
        outage = self._open.get(node)
        if outage is None:
            return False
        clean_since = now_s if outage.clean_since is None else outage.clean_since
        if len(self._open) <= PANIC_SHARE * live and now_s - clean_since < outage.probation_s:
            self._open[node] = attrs.evolve(outage, clean_since=clean_since)
            return False
        self._close(now_s, node)
        return True

    def died(self, now_s: float, node: str) -> None:
        """The mesh holds it dead: the outage has ended, and is remembered."""
        if node in self._open:
            self._close(now_s, node, died=True)

    def returned(self, now_s: float, node: str) -> bool:
        """The mesh holds it alive again. Returns whether it stays quarantined here, since it flaps."""
        past = self._past.get(node)
        flaps = past is not None and past.probation_s > 0 and now_s - past.ended_at <= self.options.memory_s
        if past is not None:
            self._past[node] = attrs.evolve(past, ended_at=now_s)
        if flaps:
            self._open[node] = _Outage("flapping", now_s, past.probation_s)
        return flaps

    def forget(self, node: str) -> None:
        """It has left, or begun a new life."""
        self._open.pop(node, None)
        self._past.pop(node, None)

    def _close(self, now_s: float, node: str, died: bool = False) -> None:
        outage, past, options = self._open.pop(node), self._past.get(node), self.options
        recent = past is not None and outage.since - past.ended_at <= options.memory_s
        outages = past.outages if recent else 0
        lost_at = outage.since if outage.lost_at is None else outage.lost_at
        relapse = past is not None and lost_at - past.ended_at <= options.relapse_s
        if died or now_s - outage.since >= options.counts_s:
            outages = max(1, outages + (not relapse))
        self._past.pop(node, None)
        if outages:
            self._past[node] = _Past(outages, outage.probation_s, now_s)
        if len(self._past) > PAST_MAX:
            del self._past[next(iter(self._past))]

    def _sentence_s(self, now_s: float, node: str) -> float:
        options, past = self.options, self._past.get(node)
        if past is None or now_s - past.ended_at > options.memory_s:
            return 0.0
        if now_s - past.ended_at <= options.relapse_s:
            return max(past.probation_s, options.relapse_probation_s)
        return min(options.probation_max_s, options.probation_s * 2.0 ** min(past.outages - 1, 16))
