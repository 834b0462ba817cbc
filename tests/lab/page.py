"""One run of real processes as one page: faults above throughput, first tokens, membership and moves.

Self-contained, as the simulator's pages: no script, no request to anywhere.
"""

from collections.abc import Iterable, Sequence
from html import escape

from sim.fault import Strike
from sim.page import BELIEF_COLOURS, PAGE_STYLE
from sim.svg import STYLE, Axis, Line, Plot, Row, Span, Timeline, draw
from tests.lab.clients import LabClient
from tests.lab.run import Outcome

WIDTH = 1040
BUCKET_S = 0.25
"""Throughput is counted over so long."""
CLIENTS_MAX = 60
"""Most clients that are drawn, those that moved or ended badly first."""
GAP_SHOWN_S = 0.25
WORST = ("dead", "suspect", "quarantined")
STATES = {
    "quarantined": "quarantined by some",
    "suspect": "suspected by some",
    "dead": "dead to some",
    "alive": "alive",
    "left": "left",
}
WORKER_COLOURS = (2, 0, 6, 5, 1, 4, 3, 7)


def page(outcome: Outcome) -> str:
    """Return the HTML of one run."""
    name = escape(outcome.scenario.name)
    sections = (
        f"<h1>{name}, real processes</h1>{_verdict(outcome)}{_facts(outcome)}",
        _figure(_faults(outcome)),
        _figure(_throughput(outcome)),
        _figure(_first_tokens(outcome)),
        _figure(_members(outcome)),
        _figure(_streams(outcome)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}</title><style>{PAGE_STYLE}{STYLE}</style></head><body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _verdict(outcome: Outcome) -> str:
    if outcome.violation is not None:
        return f'<p class="bad">{escape(str(outcome.violation))}</p>'
    return '<p class="good">every oracle held</p>'


def _facts(outcome: Outcome) -> str:
    facts: dict[str, object] = {
        **{f"ended {name}": count for name, count in outcome.outcomes.items()},
        "moves": outcome.moves,
        "longest gap s": round(outcome.longest_gap_s, 3),
        **{f"hits of {kind}": count for kind, count in outcome.bitten.items()},
        **{f"{name} took s": seconds for name, seconds in outcome.settled_s.items()},
    }
    rows = "".join(
        f"<div><span>{escape(k)}</span><span>{escape(str(v))}</span></div>" for k, v in facts.items()
    )
    return f'<div class="facts">{rows}</div>'


def _figure(figure: Plot | Timeline) -> str:
    return f'<div class="scroll">{draw(figure, standalone=False)}</div>'


def _axis(outcome: Outcome) -> Axis:
    return Axis("seconds", low=0.0, high=outcome.seconds)


def _span(strike: Strike, end: float) -> Span:
    for_s = getattr(strike.fault, "for_s", 0.0)
    return Span(strike.at, min(end, strike.at + for_s), 1, repr(strike.fault))


def _faults(outcome: Outcome) -> Timeline:
    rows: dict[str, list[Span]] = {}
    for strike in outcome.scenario.strikes:
        rows.setdefault(type(strike.fault).__name__, []).append(_span(strike, outcome.seconds))
    return Timeline("Faults", [Row(*row) for row in rows.items()], _axis(outcome), width=WIDTH)


def _shades(outcome: Outcome) -> list[Span]:
    spans = [_span(strike, outcome.seconds) for strike in outcome.scenario.strikes]
    return [span for span in spans if span.end > span.begin]


def _throughput(outcome: Outcome) -> Plot:
    counts = [0] * (int(outcome.seconds / BUCKET_S) + 1)
    for client in outcome.clients:
        for piece in client.pieces:
            counts[min(len(counts) - 1, int(piece.at / BUCKET_S))] += 1
    points = [(place * BUCKET_S, count / BUCKET_S) for place, count in enumerate(counts)]
    line = Line("all clients", points, steps=True)
    return Plot(
        "Tokens that clients got", [line], _axis(outcome), Axis("tokens / s"), _shades(outcome), WIDTH, 220
    )


def _first_tokens(outcome: Outcome) -> Plot:
    points = sorted((c.began_at, c.pieces[0].at - c.began_at) for c in outcome.clients if c.pieces)
    line = Line("by when they asked", points, marks=True)
    return Plot(
        "Time to the first token", [line], _axis(outcome), Axis("seconds"), _shades(outcome), WIDTH, 220
    )


def _members(outcome: Outcome) -> Timeline:
    names = [f"node-{number}" for number in range(outcome.scenario.nodes)]
    rows = [Row(name, list(_believed(outcome, name))) for name in names]
    legend = [(BELIEF_COLOURS[state], state) for state in STATES.values()]
    return Timeline("What the others believe of each node", rows, _axis(outcome), legend, WIDTH)


def _believed(outcome: Outcome, name: str) -> Iterable[Span]:
    """Yield stretches of the worst that any other node believes of one."""
    held: dict[str, str] = {}
    since, state = 0.0, "alive"
    for sample in outcome.samples:
        if sample.observer != name and name in sample.beliefs:
            held[sample.observer] = sample.beliefs[name]
        now = next((bad for bad in WORST if bad in held.values()), "alive")
        if now != state:
            yield _belief(since, sample.at, state)
            since, state = sample.at, now
    yield _belief(since, outcome.seconds, state)


def _belief(begin: float, end: float, state: str) -> Span:
    return Span(begin, end, BELIEF_COLOURS[STATES[state]], STATES[state])


def _streams(outcome: Outcome) -> Timeline:
    workers = sorted({piece.worker for client in outcome.clients for piece in client.pieces})
    colours = {name: WORKER_COLOURS[place % len(WORKER_COLOURS)] for place, name in enumerate(workers)}
    shown = sorted(outcome.clients, key=lambda c: (c.outcome == "done", -c.moves))[:CLIENTS_MAX]
    rows = [
        Row(c.label.removeprefix("client ")[-6:], _served(c, colours))
        for c in sorted(shown, key=lambda c: c.began_at)
    ]
    legend = [(colour, name) for name, colour in colours.items()]
    return Timeline("Who serves each stream; empty where it waits", rows, _axis(outcome), legend, WIDTH, 14)


def _served(client: LabClient, colours: dict[str, int]) -> Sequence[Span]:
    spans: list[Span] = []
    for piece in client.pieces:
        last = spans[-1] if spans else None
        if last and last.text == piece.worker and piece.at - last.end < GAP_SHOWN_S:
            spans[-1] = Span(last.begin, piece.at, last.colour, last.text)
        else:
            spans.append(Span(piece.at, piece.at, colours[piece.worker], piece.worker))
    return spans
