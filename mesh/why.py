"""Why a member was quarantined, or held dead: a bounded memory of verdicts and what they rested on.

Each verdict of this node keeps the evidence of its moment: the round that failed (helpers asked and what they
said, asks, patience, TCP), who else accused, and how well this node itself was (health, loss, lag), which is
what one wants to know of an accuser. Verdicts of other nodes are asked of them: each explains its own.

Bounds: `VERDICTS_MAX` verdicts, the oldest go first; one remembered round per member.
"""

from collections import deque

import attrs

from mesh.probe import Phase, Probe, RoundTrip

VERDICTS_MAX = 256
"""Verdicts remembered. A crash makes two or three, so this is some hundred crashes."""
ROUNDS_MAX = 4096


@attrs.frozen
class RoundSummary:
    """The last probe round with a member that went wrong."""

    outcome: str
    """`failed`: no path answered; `spared`: it lives, but did not answer us."""
    asks: int
    """Direct pings that were sent."""
    helpers: tuple[str, ...]
    """Who was asked to ping it."""
    nackers: tuple[str, ...]
    """Which of them said that they got no answer: these heard us."""
    tcp: str
    """`refused`: its machine said that nobody listens; `silent`: no answer; `unasked`."""
    timeout_s: float
    """Patience with the direct answer."""
    lasted_s: float
    """From the first ping to the verdict."""


@attrs.frozen
class Verdict:
    """One verdict of this node on another, and what it rested on."""

    at_s: float
    """Monotonic seconds of this node."""
    node: str
    verdict: str
    """`quarantined`, `trusted`, `suspect` or `dead`."""
    reason: str
    accusers: tuple[str, ...]
    """Whose rounds had failed, as far as known."""
    round: RoundSummary | None
    """The last round that went wrong; None where the link layer, or a rumour, came first."""
    round_trip_s: float | None
    """Smoothed, to the member; None if it was never measured."""
    health: int
    """Our own Lifeguard score: 0 is well."""
    loss: float
    """Share of our pings that get no answer in time, 0 to 1."""
    lag_s: float
    """How late our own timers ran."""
    echoed_s_ago: float | None
    """Since a ping of ours to anybody was last answered at once."""


@attrs.define
class Why:
    """The memory of one node."""

    _verdicts: deque[Verdict] = attrs.field(factory=lambda: deque(maxlen=VERDICTS_MAX), init=False)
    _rounds: dict[str, RoundSummary] = attrs.field(factory=dict, init=False)

    def round_ended(self, now_s: float, probe: Probe) -> None:
        """A round has gone wrong."""
        asked = probe.helpers or probe.phase is not Phase.DIRECT
        tcp = "refused" if probe.refused else "silent" if asked else "unasked"
        self._rounds.pop(probe.target.node, None)
        self._rounds[probe.target.node] = RoundSummary(
            probe.phase.value,
            probe.asked,
            probe.helpers,
            probe.nackers,
            tcp,
            round(probe.timeout_s, 4),
            round(now_s - probe.started_at, 4),
        )
        if len(self._rounds) > ROUNDS_MAX:
            del self._rounds[next(iter(self._rounds))]

    def note(
        self,
        now_s: float,
        node: str,
        verdict: str,
        reason: str,
        accusers: tuple[str, ...],
        round_trip: RoundTrip | None,
        ourselves: tuple[int, float, float, float | None],
    ) -> None:
        """Remember a verdict. `ourselves` is health, loss, lag and when we last echoed."""
        health, loss, lag_s, echoed_at = ourselves
        self._verdicts.append(
            Verdict(
                now_s,
                node,
                verdict,
                reason,
                accusers,
                self._rounds.get(node),
                round_trip.smoothed_s if round_trip is not None else None,
                health,
                round(loss, 4),
                round(lag_s, 4),
                round(now_s - echoed_at, 4) if echoed_at is not None else None,
            )
        )

    def explain(self, node: str | None = None) -> tuple[Verdict, ...]:
        """What was decided about a member, or about all, oldest first."""
        return tuple(verdict for verdict in self._verdicts if node in (None, verdict.node))
