"""Verdicts of a run as rows of a table: what was decided of whom, by whom, why, and whether it was so.

In a large mesh one crash is a verdict of everybody within a second. Those alike (the same
verdict, of the same node, as right or as wrong) are one row within `TOGETHER_S`, with the
reason of the first; those that were wrong come first, since they are what is looked for.
"""

from collections.abc import Iterable
from typing import Any

import attrs

from mesh.why import Verdict
from sim.journal import Event, Journal
from sim.trace import line_of

TOGETHER_S = 1.0
HEADER = ("from s", "to s", "verdict", "of", "by", "why (of the first)", "was it so?")
WHY = " " * 24 + "because  "
"""Begins a line that explains the one above."""
VERDICTS = {"member_dead": "dead", "quarantined": "quarantine", "refuted": "refuted"}


@attrs.define
class Group:
    """Verdicts that are alike."""

    first: Event
    last_at: float
    by: list[str]


def groups(journal: Journal) -> list[Group]:
    """Return the verdicts, those alike together, in the order of their first."""
    found: list[Group] = []
    latest: dict[tuple[str, str, bool], Group] = {}
    for event in journal.events:
        if event.event not in VERDICTS:
            continue
        key = (event.event, event.subject or event.who, event.is_false)
        group = latest.get(key)
        if group is None or event.at > group.first.at + TOGETHER_S or event.event == "refuted":
            group = latest[key] = Group(event, event.at, [])
            found.append(group)
        group.last_at = event.at
        if event.who not in group.by:
            group.by.append(event.who)
    return found


def rows(journal: Journal, names: dict[str, str]) -> list[tuple[str, ...]]:
    """Return the rows; `names` are the names of nodes by id."""
    ordered = sorted(groups(journal), key=lambda group: (not group.first.is_false, group.first.at))
    return [_row(group, names) for group in ordered]


def told(journal: Journal) -> list[dict[str, Any]]:
    """Return the verdicts as plain values for JSON: each with the evidence of who decided first."""
    return [
        {
            "from_s": group.first.at,
            "to_s": group.last_at,
            "verdict": VERDICTS[group.first.event],
            "of": group.first.subject or group.first.who,
            "by": group.by,
            "is_false": group.first.is_false,
            "why": dict(group.first.fields),
            "evidence": attrs.asdict(group.first.why) if group.first.why is not None else None,
        }
        for group in groups(journal)
    ]


def explained(lines: Iterable[str], journal: Journal, names: dict[str, str]) -> Iterable[str]:
    """Yield the lines of a trace, below each verdict what it rested on."""
    why = {
        line_of(event.at, event.who, event.event, event.fields): event.why
        for event in journal.events
        if event.event in VERDICTS and event.why is not None
    }
    for line in lines:
        yield line
        if line in why:
            yield WHY + "; ".join(evidence(why[line], names))


def _row(group: Group, names: dict[str, str]) -> tuple[str, ...]:
    event, fields = group.first, dict(group.first.fields)
    times = f"{event.at:.3f}", f"{group.last_at:.3f}"
    if event.event == "refuted":
        return (*times, "refuted", event.who, event.who, f"it was held {fields.get('rumour', '?')}", "–")
    by = event.who if len(group.by) == 1 else f"{event.who} and {len(group.by) - 1} more"
    so = "no: it ran" if event.is_false else "yes"
    why = "; ".join((*reasons(fields, names), *evidence(event.why, names)))
    return (*times, VERDICTS[event.event], event.subject, by, why, so)


def evidence(verdict: Verdict | None, names: dict[str, str]) -> Iterable[str]:
    """Yield what a node remembers of its verdict: the round that failed, and how well it was itself."""
    if verdict is None:
        return
    if verdict.round is not None:
        asked = verdict.round
        yield f"{asked.asks} pings, patience {asked.timeout_s:g} s, TCP {asked.tcp}"
        helpers = ", ".join(names.get(node, node) for node in asked.helpers)
        yield f"helpers {helpers or 'none'}, of whom {len(asked.nackers)} heard us and not it"
    if verdict.round_trip_s is not None:
        yield f"round trip {verdict.round_trip_s * 1000:.1f} ms"
    yield f"its own health {verdict.health}, loss {verdict.loss:.0%}, lag {verdict.lag_s:g} s"


def reasons(fields: dict[str, object], names: dict[str, str]) -> Iterable[str]:
    """Yield what a verdict rests on, by the line in which it was reported."""
    for key, value in fields.items():
        if key == "accusers":
            said = [names.get(node, node) for node in str(value).split(",") if node]
            yield f"accused by {', '.join(said) or 'nobody'}"
        elif key not in ("node", "name", "state", "was"):
            yield str(value) if key == "reason" else f"{key} {value}"
