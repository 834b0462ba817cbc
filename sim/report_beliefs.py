"""What the mesh believed of each host over time, beside what was true.

A host's belief at a time is the worst that anybody who then ran held of it: dead
everywhere, dead to some, suspected, quarantined by some, alive. A sweep over the
journal's events; O(events + changes of life * hosts).
"""

from collections.abc import Iterator

import attrs

from sim.journal import Event, Journal

STATES = (
    "alive",
    "quarantined by some",
    "suspected by some",
    "dead to some",
    "dead everywhere",
    "left",
    "unknown",
)
"""From the best to the worst that is believed of somebody; then what is no judgement."""


@attrs.frozen
class Stretch:
    """A time through which one thing held."""

    begin: float
    end: float
    state: str
    note: str = ""


@attrs.define
class Views:
    """Who holds what of whom, at one time."""

    stopped: set[str] = attrs.Factory(set)
    """Who is stopped: what they hold counts for nothing until they go on."""
    held: dict[str, dict[str, str]] = attrs.Factory(dict)
    """Subject -> observer -> liveness."""
    quarantined: dict[str, set[str]] = attrs.Factory(dict)
    """Subject -> observers."""

    def take(self, event: Event) -> bool:
        """Take an event; return whether it changes what is held of others than its subject."""
        match event.event:
            case "paused":
                self.stopped.add(event.who)
            case "resumed":
                self.stopped.discard(event.who)
            case "crashed":
                self.stopped.discard(event.who)
                for views in self.held.values():
                    views.pop(event.who, None)
                for observers in self.quarantined.values():
                    observers.discard(event.who)
            case "member":
                self.held.setdefault(event.subject, {})[event.who] = event.state
                if event.state in ("dead", "left"):
                    self.quarantined.get(event.subject, set()).discard(event.who)
                return False
            case "quarantined":
                self.quarantined.setdefault(event.subject, set()).add(event.who)
                return False
            case "quarantine_lifted":
                self.quarantined.get(event.subject, set()).discard(event.who)
                return False
        return True

    def others(self, subject: str) -> dict[str, str]:
        """Return what each other host that runs holds of a subject; what it holds of its own past is no judgement."""
        held = self.held.get(subject, {})
        return {who: state for who, state in held.items() if who != subject and who not in self.stopped}

    def count(self, subject: str, state: str) -> int:
        """Return how many others hold this of a subject."""
        return sum(held == state for held in self.others(subject).values())

    def totals(self) -> tuple[int, int, int]:
        """Return how many pairs hold each other quarantined, suspect and dead."""
        out = sum(len(observers - {subject}) for subject, observers in self.quarantined.items())
        suspect = sum(self.count(subject, "suspect") for subject in self.held)
        return out, suspect, sum(self.count(subject, "dead") for subject in self.held)

    def of(self, subject: str) -> tuple[str, str]:
        """Return (state, note) of a subject."""
        views = self.others(subject)
        if not views:
            return "unknown", ""
        dead, suspect = self.count(subject, "dead"), self.count(subject, "suspect")
        out = len(self.quarantined.get(subject, set()) & set(views))
        if dead:
            return ("dead everywhere" if dead == len(views) else "dead to some"), f"{dead} of {len(views)}"
        if suspect:
            return "suspected by some", f"{suspect} of {len(views)}"
        if self.count(subject, "left"):
            return "left", ""
        return ("quarantined by some", f"{out} of {len(views)}") if out else ("alive", "")


def beliefs(journal: Journal, hosts: tuple[str, ...], end: float) -> dict[str, list[Stretch]]:
    """Return what was believed of each host, without gaps, from its first mention to the end."""
    views = Views()
    open_: dict[str, tuple[float, str, str]] = {}
    found: dict[str, list[Stretch]] = {name: [] for name in hosts}
    for event in journal.events:
        for name in hosts if views.take(event) else (event.subject,):
            if name in found:
                _turn(found[name], open_, name, event.at, views.of(name))
    for name, (begin, state, note) in open_.items():
        found[name].append(Stretch(begin, max(begin, end), state, note))
    return found


def _turn(
    done: list[Stretch], open_: dict[str, tuple[float, str, str]], name: str, at: float, now: tuple[str, str]
) -> None:
    before = open_.get(name)
    if before is None or before[1] != now[0]:
        if before is not None and at > before[0]:
            done.append(Stretch(before[0], at, before[1], before[2]))
        open_[name] = (at, *now)
    else:
        open_[name] = (before[0], before[1], max(before[2], now[1], key=_held_by))


def _held_by(note: str) -> int:
    """How many hold it, by a note."""
    return int(note.split()[0]) if note else 0


def truths(journal: Journal, hosts: tuple[str, ...], end: float) -> dict[str, list[Stretch]]:
    """Return when each host was down or stopped."""
    begun: dict[str, tuple[float, str]] = {}
    found: dict[str, list[Stretch]] = {name: [] for name in hosts}
    for event in journal.events:
        if event.who in found and event.event in ("started", "crashed", "paused", "resumed"):
            if event.who in begun:
                at, state = begun.pop(event.who)
                found[event.who].append(Stretch(at, event.at, state))
            if event.event in ("crashed", "paused"):
                begun[event.who] = (event.at, "down" if event.event == "crashed" else "stopped")
    for name, (at, state) in begun.items():
        found[name].append(Stretch(at, max(at, end), state))
    return found


def totals(journal: Journal) -> Iterator[tuple[float, int, int, int]]:
    """Yield (time, quarantines, suspicions, deaths) that are held, whenever they may have changed."""
    views = Views()
    for event in journal.events:
        views.take(event)
        yield event.at, *views.totals()
