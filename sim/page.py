"""One run as one page: timelines, verdicts with their reasons, what clients felt, how to replay it.

The page is self-contained: no script, no request to anywhere (its own policy forbids
both), legible in light and in dark. All words of a run are escaped. Long runs and large
meshes stay readable because what is drawn is bounded: beyond `LINES_MAX` nodes a plot
shows their spread instead of each, and tables name how many rows they leave out.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from sim.fault import Strike
from sim.journal import Journal
from sim.page_verdicts import HEADER, rows
from sim.report import HEADER_BYTES, quantile, report
from sim.report_beliefs import beliefs, totals, truths
from sim.scenario import Result
from sim.svg import STYLE, Axis, Line, Plot, Row, Span, Timeline, draw
from sim.workload import Client

LINES_MAX = 8
"""Most nodes that are drawn as a line each."""
ROWS_MAX = 100
"""Most rows of a table, or of the timeline of clients."""
POINTS_MAX = 600
"""Most points of a line."""
PAUSE_SHOWN_S = 0.25
"""A pause shorter than this is not drawn: nobody notices it in a stream of words."""
TAIL_LINES = 60
WIDTH = 1040

BELIEF_COLOURS = {
    "alive": 2,
    "quarantined by some": 6,
    "suspected by some": 1,
    "dead to some": 4,
    "dead everywhere": 3,
    "left": 5,
}
TRUTH_COLOURS = {"down": 7, "stopped": 0}
BELIEFS = (
    *((colour, state) for state, colour in BELIEF_COLOURS.items()),
    *((colour, f"strip: {state}") for state, colour in TRUTH_COLOURS.items()),
)

PAGE_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--edge:#d8dee4;--soft:#f4f6f8;--bad:#b3134f;
--good:#0f7b45}
@media (prefers-color-scheme:dark){:root{--bg:#0f1419;--fg:#e6edf3;--dim:#9aa5b1;--edge:#2b333c;--soft:#171d24;
--bad:#ff85ab;--good:#56d68f}}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:1060px;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.35rem;margin:0}h2{font-size:1.05rem;margin:2.2rem 0 .5rem}p{margin:.4rem 0}
.dim{color:var(--dim)}.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}
code,pre{font:13px/1.45 ui-monospace,monospace;background:var(--soft);border-radius:4px}code{padding:.1em .35em;
overflow-wrap:anywhere}pre{padding:.7rem;overflow-x:auto}
table{border-collapse:collapse;font-size:13px;width:100%}th,td{text-align:left;padding:.28rem .6rem .28rem 0;
border-bottom:1px solid var(--edge);vertical-align:top;overflow-wrap:anywhere}th{color:var(--dim);font-weight:500}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;padding-right:1rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:0 1.6rem}
.facts div{display:flex;justify-content:space-between;gap:1rem;border-bottom:1px solid var(--edge);padding:.2rem 0}
.facts span:first-child{color:var(--dim)}.scroll{overflow-x:auto}svg.plot{display:block;max-width:100%;height:auto;
margin:.5rem 0}summary{cursor:pointer;color:var(--dim)}
"""


def page(result: Result, journal: Journal, replay: str) -> str:
    """Return the HTML of one run; `replay` is the command that gives it again."""
    figures = report(result, journal, replay)
    names = {host.id: host.name for host in result.world.hosts.values()}
    name = f"{result.scenario.name}, seed {result.scenario.seed}"
    sections = (
        _head(name, result, figures),
        _facts(figures),
        _faults(result, journal),
        _members(result, journal),
        _traffic(result, journal),
        _clients(result),
        _table("Verdicts, and why", HEADER, rows(journal, names)),
        _table(
            "How each crash was noticed",
            (
                "host",
                "at s",
                "out of routing, first",
                "everywhere",
                "dead, first",
                "everywhere",
                "back after",
            ),
            [tuple(map(_cell, found.values())) for found in figures["detections"]],
        ),
        _tail(result),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{PAGE_STYLE}{STYLE}</style></head><body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


# -- words ----------------------------------------------------------------------------------------


def _head(name: str, result: Result, figures: dict[str, Any]) -> str:
    found = result.violation
    verdict = (
        f'<p class="bad">{escape(found.check)}: {escape(found.message)}</p>'
        if found
        else '<p class="good">every check held</p>'
    )
    return (
        f"<h1>{escape(name)}</h1>{verdict}"
        f'<p class="dim">{figures["nodes"]} nodes, {figures["workers"]} with an engine;'
        f" {escape(figures['configuration'])}; {'sealed' if figures['sealed'] else 'clear'} datagrams;"
        f" {figures['virtual_s']:g} virtual seconds</p>"
        f"<p>replay: <code>{escape(figures['replay'])}</code></p>"
        f'<p class="dim">trace digest <code>{figures["trace_digest"]}</code></p>'
    )


def _facts(figures: dict[str, Any]) -> str:
    members, clients, traffic = figures["membership"], figures["clients"], figures["traffic"]
    facts = {
        "crashes": members["crashes"],
        "dead everywhere after, p50 s": members["dead_everywhere_s"]["p50"],
        "out of routing after, p50 s": members["out_of_routing_everywhere_s"]["p50"],
        "held dead though running": members["false_deaths"],
        "quarantined though running": members["false_quarantines"],
        "suspicions": members["suspicions"],
        "refutations": members["refutations"],
        "clients": clients["count"],
        "moved streams": clients["moves"],
        "longest pause s": clients["longest_pause_s"]["max"],
        "first token, p99 s": clients["first_token_s"]["p99"],
        "datagrams / node / s": traffic["datagrams_per_node_s"],
        "gossip bytes / node / s": traffic["bytes_per_node_s"],
        **{f"ended {outcome}": count for outcome, count in clients["outcomes"].items()},
        **{f"{name} took s": seconds for name, seconds in figures["settled_s"].items()},
    }
    rows = "".join(
        f"<div><span>{escape(name)}</span><span>{escape(_cell(value))}</span></div>"
        for name, value in facts.items()
    )
    return f'<h2>Figures</h2><div class="facts">{rows}</div>'


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[:ROWS_MAX]
    )
    more = f'<p class="dim">and {len(rows) - ROWS_MAX} more</p>' if len(rows) > ROWS_MAX else ""
    return f'<h2>{escape(title)}</h2><div class="scroll"><table><tr>{head}</tr>{body}</table></div>{more}'


def _tail(result: Result) -> str:
    lines = escape("\n".join(result.world.trace.tail(TAIL_LINES)))
    return (
        f"<h2>The end of the trace</h2><details><summary>its last lines</summary><pre>{lines}</pre></details>"
    )


# -- timelines ------------------------------------------------------------------------------------


def _figure(figure: Plot | Timeline) -> str:
    return f'<div class="scroll">{draw(figure, standalone=False)}</div>'


def _time(result: Result) -> Axis:
    return Axis("virtual seconds", low=0.0, high=result.world.time)


def _span(strike: Strike, end: float, colour: int = 7) -> Span:
    for_s = getattr(strike.fault, "for_s", 0.0)
    until = min(end, strike.at + (for_s if isinstance(for_s, float | int) else 0.0))
    return Span(strike.at, max(strike.at, until), colour, repr(strike.fault))


def _struck(result: Result) -> list[Strike]:
    return [strike for strike in result.scenario.strikes if strike.at <= result.world.time]


def _faults(result: Result, journal: Journal) -> str:
    strikes, end = _struck(result), result.world.time
    if not strikes:
        return "<h2>Faults</h2><p class=dim>none</p>"
    by_kind: dict[str, list[Span]] = {}
    for strike in strikes:
        by_kind.setdefault(type(strike.fault).__name__, []).append(_span(strike, end, 1))
    rows = [Row(kind, spans) for kind, spans in sorted(by_kind.items())]
    healed = f"Healed at {journal.healed_at:.1f} s." if journal.healed_at is not None else "Never healed."
    drawn = _figure(Timeline("Faults", rows, _time(result), width=WIDTH))
    return f'<h2>Faults</h2><p class="dim">{healed} Point at a box to read what it is.</p>{drawn}'


def _members(result: Result, journal: Journal) -> str:
    hosts, end = tuple(result.world.hosts), result.world.time
    believed, true = beliefs(journal, hosts, end), truths(journal, hosts, end)
    rows = [
        Row(
            name,
            [
                Span(s.begin, s.end, BELIEF_COLOURS[s.state], f"{s.state} {s.note}".strip())
                for s in believed[name]
                if s.state in BELIEF_COLOURS
            ],
            [Span(s.begin, s.end, TRUTH_COLOURS[s.state], s.state) for s in true[name]],
        )
        for name in hosts
    ]
    height = 20 if len(hosts) <= 20 else 12 if len(hosts) <= 120 else 6
    title = "What the mesh believed of each node (strip: what was true)"
    counts = [(at, *map(float, held)) for at, *held in totals(journal)]
    names = ("quarantines held", "suspicions held", "deaths held")
    lines = [
        Line(
            name,
            _thin([(0.0, 0.0), *((row[0], row[place]) for row in counts), (end, counts[-1][place])]),
            steps=True,
        )
        for place, name in enumerate(names, start=1)
        if counts
    ]
    plot = Plot(
        "Judgements held, over all pairs of nodes",
        lines,
        _time(result),
        Axis("pairs"),
        _shades(result),
        WIDTH,
        220,
    )
    return (
        "<h2>Membership</h2>"
        + _figure(Timeline(title, rows, _time(result), BELIEFS, WIDTH, height))
        + (_figure(plot) if lines else "")
    )


def _shades(result: Result) -> list[Span]:
    end = result.world.time
    return [span for strike in _struck(result) if (span := _span(strike, end)).end > span.begin]


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Keep at most `POINTS_MAX` points, first and last among them."""
    if len(points) <= POINTS_MAX:
        return points
    every = -(-len(points) // (POINTS_MAX - 1))
    return [*points[::every], points[-1]]


def _traffic(result: Result, journal: Journal) -> str:
    if len(journal.times) < 2:
        return ""
    samples = journal.samples
    load = {name: [float(s.attempts) for s in seen] for name, seen in samples.items()}
    load = {name: seen for name, seen in load.items() if any(seen)}
    sent = {name: _rates(journal.times, [s.datagrams for s in seen]) for name, seen in samples.items()}
    size = {
        name: _rates(journal.times, [s.bytes + HEADER_BYTES * s.datagrams for s in seen])
        for name, seen in samples.items()
    }
    flights = {
        "all entries": [float(sum(s.flights for s in row)) for row in zip(*samples.values(), strict=True)]
    }
    return "<h2>Load and traffic</h2>" + "".join(
        _each(result, title, label, journal.times, values)
        for title, label, values in (
            ("Attempts that each node computes", "attempts", load),
            ("Requests under way, by entry all together", "requests", flights),
            ("Gossip datagrams sent by each node", "datagrams / s", sent),
            ("Gossip bytes sent by each node, headers included", "bytes / s", size),
        )
        if values
    )


def _rates(times: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Return increases per second; the first sample has none."""
    return [0.0] + [
        max(0, counts[i] - counts[i - 1]) / max(1e-9, times[i] - times[i - 1]) for i in range(1, len(counts))
    ]


def _each(
    result: Result, title: str, label: str, times: Sequence[float], values: dict[str, list[float]]
) -> str:
    if len(values) <= LINES_MAX:
        lines = [Line(name, _thin([*zip(times, seen, strict=True)])) for name, seen in values.items()]
    else:
        lines = _spread(times, list(values.values()))
        title = f"{title}: spread over {len(values)} nodes"
    return _figure(Plot(title, lines, _time(result), Axis(label), _shades(result), WIDTH, 220))


def _spread(times: Sequence[float], values: Sequence[Sequence[float]]) -> list[Line]:
    columns = [*zip(*values, strict=True)]
    middle = [(at, quantile(column, 0.5) or 0.0) for at, column in zip(times, columns, strict=True)]
    band = [
        (at, quantile(column, 0.1) or 0.0, quantile(column, 0.9) or 0.0)
        for at, column in zip(times, columns, strict=True)
    ]
    most = [(at, max(column)) for at, column in zip(times, columns, strict=True)]
    return [Line("median, and 10 % to 90 %", _thin(middle), _thin(band)), Line("the most", _thin(most))]


# -- clients --------------------------------------------------------------------------------------


def _clients(result: Result) -> str:
    clients = result.world.clients
    if not clients:
        return ""
    shown = sorted(clients, key=_importance)[:ROWS_MAX]
    rows = [Row(_short(client), _spans(client, result.world.time)) for client in sorted(shown, key=_begin)]
    legend = (
        (7, "waits for the first piece"),
        (0, "reads"),
        (1, f"longest pause, from {PAUSE_SHOWN_S:g} s"),
        (4, "ended badly"),
    )
    height = 14 if len(rows) <= 40 else 8
    left = f" {len(clients) - len(shown)} that went well are left out." if len(clients) > len(shown) else ""
    drawn = Timeline("Clients", rows, _time(result), legend, WIDTH, height)
    worst = sorted(clients, key=lambda client: -client.longest_pause_s)[:10]
    return f'<h2>Clients</h2><p class="dim">{len(clients)} requests.{left}</p>{_figure(drawn)}' + _table(
        "The longest pauses",
        ("client", "entry", "asked at s", "pause s", "ended at s", "moves", "outcome"),
        [
            (
                client.label,
                client.request.entry,
                _cell(client.request.at),
                _cell(client.longest_pause_s),
                _cell(client.longest_ended_at),
                str(client.moves),
                client.outcome or "goes on",
            )
            for client in worst
        ],
    )


def _short(client: Client) -> str:
    return f"{client.request.seed & 0xFFFFFF:06x} {client.request.entry}"


def _begin(client: Client) -> float:
    return client.request.at


def _importance(client: Client) -> tuple[bool, bool, float]:
    """Order clients: those that ended badly first, then those that moved, then the longest pauses."""
    return client.outcome in ("done", "cancelled"), client.moves == 0, -client.longest_pause_s


def _spans(client: Client, end: float) -> list[Span]:
    begin = client.request.at
    first = client.first_at
    until = client.ended_at if client.outcome else end
    spans = [Span(begin, first if first is not None else until, 7, f"{client.label} waits")]
    if first is not None:
        spans.append(Span(first, until, 0, f"{client.label} reads, {client.moves} moves"))
    if client.longest_pause_s >= PAUSE_SHOWN_S and client.longest_ended_at:
        paused = client.longest_ended_at - client.longest_pause_s
        spans.append(Span(paused, client.longest_ended_at, 1, f"pause of {client.longest_pause_s:.2f} s"))
    if client.outcome not in ("", "done", "cancelled"):
        spans.append(Span(until, until, 4, client.outcome))
    return spans
