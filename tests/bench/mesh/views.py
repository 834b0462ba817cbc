"""What the nodes of a mesh say of one another, as events, and what each believes by them."""

import enum
from collections.abc import Iterable, Iterator

import attrs


class Kind(enum.Enum):
    """What an observer has learnt of a subject."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"
    DOUBTED = "doubted"
    """A probe of the observer's own has failed; what it believes may stay as it was."""
    QUARANTINED = "quarantined"
    LIFTED = "quarantine lifted"


BELIEFS = frozenset((Kind.ALIVE, Kind.SUSPECT, Kind.DEAD, Kind.LEFT))
"""Kinds that replace one another; doubt and quarantine stand beside them."""

ROUTABLE = frozenset((Kind.ALIVE, Kind.SUSPECT))
"""Beliefs under which a request may still be sent to the subject."""


@attrs.frozen
class Event:
    """One line of one node's log, stamped when this process read it."""

    at: float
    """Monotonic seconds."""
    observer: str
    subject: str
    kind: Kind


@attrs.define
class Views:
    """Every node's belief about every other, and the events that led there."""

    events: list[Event] = attrs.Factory(list)
    _beliefs: dict[str, dict[str, Kind]] = attrs.Factory(dict)
    _quarantined: set[tuple[str, str]] = attrs.Factory(set)

    def feed(self, event: Event) -> None:
        """Take the next event; a node's word about itself says nothing."""
        if event.observer == event.subject:
            return
        self.events.append(event)
        pair = (event.observer, event.subject)
        if event.kind in BELIEFS:
            self._beliefs.setdefault(event.observer, {})[event.subject] = event.kind
        if event.kind is Kind.QUARANTINED:
            self._quarantined.add(pair)
        elif event.kind in (Kind.LIFTED, Kind.DEAD, Kind.LEFT):
            self._quarantined.discard(pair)

    def belief(self, observer: str, subject: str) -> Kind | None:
        """What the observer last said of the subject; None if it never did."""
        return self._beliefs.get(observer, {}).get(subject)

    def routes(self, observer: str, subject: str) -> bool:
        """Whether the observer would send a request to the subject."""
        trusted = (observer, subject) not in self._quarantined
        return trusted and self.belief(observer, subject) in ROUTABLE

    def is_complete(self, observer: str, names: Iterable[str]) -> bool:
        """Whether the observer holds all these nodes, itself apart, alive and fit for requests."""
        return all(
            self.belief(observer, name) is Kind.ALIVE and self.routes(observer, name)
            for name in names
            if name != observer
        )

    def all_complete(self, names: Iterable[str]) -> bool:
        """Whether every one of these nodes sees all of them."""
        names = tuple(names)
        return all(self.is_complete(name, names) for name in names)

    def since(self, mark: int, *kinds: Kind) -> Iterator[Event]:
        """Yield the events of these kinds from number `mark` on."""
        return (event for event in self.events[mark:] if event.kind in kinds)

    @property
    def mark(self) -> int:
        """How many events there were so far: an argument for `since`."""
        return len(self.events)


def completed_at(events: Iterable[Event], names: Iterable[str]) -> dict[str, float]:
    """When each of these nodes came to see all of them, for good, by the whole story of their mesh.

    A node that does not at the end is left out.
    """
    names = tuple(names)
    views, since = Views(), dict[str, float]()
    for event in events:
        views.feed(event)
        if event.observer not in names:
            continue
        if views.is_complete(event.observer, names):
            since.setdefault(event.observer, event.at)
        else:
            since.pop(event.observer, None)
    return since


def routed_at(events: Iterable[Event]) -> dict[tuple[str, str], float]:
    """When each (observer, subject) came to stand in the observer's choice, for good; left out if it does not."""
    views, since = Views(), dict[tuple[str, str], float]()
    for event in events:
        views.feed(event)
        pair = (event.observer, event.subject)
        if views.routes(*pair):
            since.setdefault(pair, event.at)
        else:
            since.pop(pair, None)
    return since
