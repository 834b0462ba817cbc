"""What a run is remembered by: who lived when, who believed what of whom, what was sent, who worked.

A journal listens to a world's trace and looks at each host after each input. It changes
nothing, so a run with a journal has the digest of one without. `sim.report` makes
figures of it, `sim.page` a page.
"""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect, SendDatagram
from mesh.why import Verdict
from sim.trace import Fields

if TYPE_CHECKING:
    from sim.world import World

SAMPLE_S = 0.25
"""Virtual time between two samples of load and traffic."""

SAMPLES_MAX = 4096
"""Beyond so many, a run is sampled half as often from then on."""

EVENTS_MAX = 200_000
"""Events of membership that are kept; the rest are only counted."""

MEMBERSHIP = frozenset(
    "started crashed paused resumed member:alive member:suspect member:dead member:left member_dead"
    " quarantined quarantine_lifted refuted".split()
)


@attrs.frozen
class Event:
    """One line of the trace that tells of membership, in parts."""

    at: float
    who: str
    event: str
    fields: Fields = ()
    subject: str = ""
    """Of whom it tells, if not of `who`."""
    state: str = ""
    """What `who` now believes of the subject: alive, suspect, dead, left."""
    why: Verdict | None = None
    """What a death or a quarantine rested on, by the memory of who decided it."""
    is_false: bool = False
    """Whether it was believed dead, or quarantined, although that very life ran and was not stopped."""


@attrs.frozen
class Sample:
    """The state of one host at one time. Counters are since the run began."""

    datagrams: int
    bytes: int
    attempts: int
    """Attempts that it computes."""
    flights: int
    """Requests that entered here and go on."""


@attrs.define
class Journal:
    """What was seen of one world."""

    events: list[Event] = attrs.Factory(list)
    faults: list[tuple[float, str]] = attrs.Factory(list)
    """(time, what)."""
    counts: dict[str, int] = attrs.Factory(dict)
    """How often each event was told, `member` by the state that was reached."""
    times: list[float] = attrs.Factory(list)
    samples: dict[str, list[Sample]] = attrs.Factory(dict)
    """Of each host, one for each of `times`."""
    healed_at: float | None = None
    _world: "World | None" = attrs.field(init=False, default=None)
    _sent: dict[str, list[int]] = attrs.field(init=False, factory=dict)
    _every_s: float = attrs.field(init=False, default=SAMPLE_S)
    _due_at: float = attrs.field(init=False, default=0.0)

    def attach(self, world: "World") -> None:
        """Begin to listen."""
        self._world = world
        world.trace.listener = self.heard
        world.checks = (*world.checks, self)

    # -- the trace --------------------------------------------------------------------------------

    def heard(self, at: float, who: str, event: str, fields: Fields) -> None:
        """Take a line of the trace."""
        values = dict(fields)
        if who == "fault":
            self.faults.append((at, event))
            return
        key = _key(event, values)
        self.counts[key] = self.counts.get(key, 0) + 1
        if who == "network" and event == "healed":
            self.healed_at = at
        elif key in MEMBERSHIP and len(self.events) < EVENTS_MAX:
            self.events.append(self._event(at, who, event, fields, values))

    def _event(self, at: float, who: str, event: str, fields: Fields, values: dict[str, object]) -> Event:
        subject = (
            str(values.get("name", values.get("node", ""))) if event not in ("started", "crashed") else ""
        )
        state = str(values.get("state", ""))
        accused = state == "dead" or event in ("quarantined", "member_dead")
        if not accused:
            return Event(at, who, event, fields, subject, state)
        return Event(
            at, who, event, fields, subject, state, self._why(who, subject), self._runs(who, subject)
        )

    def _why(self, observer: str, subject: str) -> Verdict | None:
        """Return the last verdict of a node on another."""
        host, watcher = self._world.hosts.get(subject), self._world.hosts.get(observer)
        if host is None or watcher is None or watcher.core is None:
            return None
        verdicts = watcher.core.swim.explain(host.id)
        return verdicts[-1] if verdicts else None

    def _runs(self, observer: str, subject: str) -> bool:
        """Whether the life of the subject that the observer knows runs, and is not stopped."""
        hosts = self._world.hosts
        host, watcher = hosts.get(subject), hosts.get(observer)
        if host is None or host.core is None or host.paused or watcher is None or watcher.core is None:
            return False
        row = watcher.core.swim.member(host.id)
        return row is not None and row.identity.generation == host.core.me.identity.generation

    # -- the hosts --------------------------------------------------------------------------------

    def after(self, host: object, effects: list[Effect]) -> None:
        """Count what a host sends, and sample all of them when it is time."""
        for effect in effects:
            if isinstance(effect, SendDatagram):
                sent = self._sent.setdefault(host.name, [0, 0])
                sent[0] += 1
                sent[1] += len(effect.data)
        if self._world.time >= self._due_at:
            self._sample()

    def _sample(self) -> None:
        time = self._world.time
        self.times.append(time)
        for host in self._world.hosts.values():
            self.samples.setdefault(host.name, [Sample(0, 0, 0, 0)] * (len(self.times) - 1)).append(
                self._of(host)
            )
        if len(self.times) % SAMPLES_MAX == 0:
            self._every_s *= 2
        self._due_at = time + self._every_s

    def _of(self, host: object) -> Sample:
        datagrams, size = self._sent.get(host.name, (0, 0))
        if host.core is None:
            return Sample(datagrams, size, 0, 0)
        return Sample(datagrams, size, len(host.core.relay.tickets), host.core.active)


def _key(event: str, values: dict[str, object]) -> str:
    """Return what an event is counted as."""
    if event == "member":
        return f"member:{values['state']}"
    return "pause_noticed" if "gap_s" in values else event
