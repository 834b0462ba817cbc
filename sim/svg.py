"""Small plots as SVG text: lines with bands, bars, timelines. Pure, and nothing else is needed.

A plot is a value (`Plot`, `Bars`, `Timeline`) and `draw` turns it into one `<svg>`
element whose bytes depend on nothing but the value, so that a plot in the docs can be
compared with what its command writes. Colours come from classes `c0` to `c7`, which
`STYLE` defines for light and for dark; lines also differ in their dashes, so that
nothing is told by colour alone. A standalone file carries `STYLE` itself; a page that
embeds several includes it once and draws with `standalone=False`.

    draw(Plot("Detection", (Line("p99", points),), x=Axis("nodes", log=True), y=Axis("seconds")))

All text is escaped. Points beyond `VALUE_MAX`, and those not above zero on a logarithmic axis, are left out.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

import attrs

Point = tuple[float, float]
BandPoint = tuple[float, float, float]
"""(x, low, high)."""

VALUE_MAX = 1e30
"""Beyond this, and on a logarithmic axis below its inverse, nothing is drawn: no figure of ours is."""

COLOURS = 8
DASHES = ("", "6 3", "2 3", "8 3 2 3")
LEFT, RIGHT, TOP, BOTTOM = 76, 28, 34, 46
LEGEND_ROW = 18
LEGEND_COLUMN = 215
ROW_HEIGHT = 18
LABELLED_ROW = 10
"""Rows lower than this have no room for their label."""
LABEL_WIDTH = 120
LABEL_CHARACTERS = 17
CHARACTER = 6.6
"""Width of a digit at the size of the labels."""

STYLE = """
svg.plot{--bg:#fff;--fg:#1b1f24;--dim:#57606a;--grid:#d8dee4;--c0:#0b62c4;--c1:#c2410c;--c2:#0f7b45;--c3:#8b2fc9;
--c4:#b3134f;--c5:#0e7490;--c6:#7a5b00;--c7:#57606a;font:12px system-ui,sans-serif;background:var(--bg)}
@media (prefers-color-scheme:dark){svg.plot{--bg:#0f1419;--fg:#e6edf3;--dim:#9aa5b1;--grid:#2b333c;--c0:#6cb2ff;
--c1:#ff9a5c;--c2:#56d68f;--c3:#cf9bff;--c4:#ff85ab;--c5:#5cd3ea;--c6:#e3c04d;--c7:#9aa5b1}}
svg.plot .bg{fill:var(--bg)}svg.plot text{fill:var(--fg)}svg.plot .dim{fill:var(--dim)}
svg.plot .title{font-weight:600;font-size:13px}svg.plot .grid{stroke:var(--grid);fill:none}
svg.plot .axis{stroke:var(--dim);fill:none}svg.plot .line{fill:none;stroke-width:1.8}
svg.plot .band{stroke:none;opacity:.18}svg.plot .cell{stroke:var(--bg);stroke-width:.5}
svg.plot .small{font-size:10px}svg.plot .inside{fill:var(--bg);font-size:11px;font-weight:600}
""" + "".join(
    f"svg.plot .c{index}{{stroke:var(--c{index});fill:var(--c{index})}}"
    f"svg.plot .line.c{index}{{fill:none}}svg.plot .band.c{index},svg.plot .cell.c{index}{{stroke:none}}"
    for index in range(COLOURS)
)


@attrs.frozen
class Axis:
    """One axis. Ends that are not given come from what is drawn."""

    label: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None


@attrs.frozen
class Line:
    """Points that are joined, with an optional band of low and high values behind them."""

    label: str
    points: Sequence[Point]
    band: Sequence[BandPoint] = ()
    marks: bool = False
    """Whether each point gets a dot."""
    steps: bool = False
    """Whether a value holds until the next point."""


@attrs.frozen
class Plot:
    """Lines over two axes."""

    title: str
    lines: Sequence[Line]
    x: Axis = Axis()
    y: Axis = Axis()
    spans: Sequence["Span"] = ()
    """Stretches of the x axis that are shaded behind the lines."""
    width: int = 720
    height: int = 300


@attrs.frozen
class Bars:
    """Bars in groups: for each category one bar of each series."""

    title: str
    categories: Sequence[str]
    series: Sequence[tuple[str, Sequence[float]]]
    """(label, a value for each category)."""
    y: Axis = Axis()
    width: int = 720
    height: int = 300


@attrs.frozen
class Span:
    """A stretch of time in one row of a timeline."""

    begin: float
    end: float
    colour: int = 0
    text: str = ""
    """Shown inside where it fits, and whole when pointed at."""


@attrs.frozen
class Row:
    """One row of a timeline."""

    label: str
    spans: Sequence[Span]
    under: Sequence[Span] = ()
    """Drawn as a thin strip below the others."""


@attrs.frozen
class Timeline:
    """Rows of spans over one axis of time."""

    title: str
    rows: Sequence[Row]
    x: Axis = Axis("seconds")
    legend: Sequence[tuple[int, str]] = ()
    """(colour, what it means)."""
    width: int = 720
    row_height: int = ROW_HEIGHT


def draw(figure: Plot | Bars | Timeline, standalone: bool = True) -> str:
    """Return one `<svg>` element; `standalone` ones carry their style and are files of their own."""
    match figure:
        case Plot():
            body, height = _plot(figure)
        case Bars():
            body, height = _bars(figure)
        case Timeline():
            body, height = _timeline(figure)
    size = f'viewBox="0 0 {figure.width} {height}" width="{figure.width}" height="{height}"'
    style = f"<style>{STYLE}</style>" if standalone else ""
    title = escape(figure.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-label="{title}" {size}>'
        f"{style}<title>{title}</title>"
        f'<rect class="bg" width="{figure.width}" height="{height}"/>'
        f'<text class="title" x="8" y="18">{title}</text>{body}</svg>\n'
    )


# -- scales ---------------------------------------------------------------------------------------


@attrs.frozen
class Scale:
    """Maps values to pixels. `low` and `high` are values, `start` and `end` pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value, within the axis."""
        low, high = self._bend(self.low), self._bend(self.high)
        share = (self._bend(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def _bend(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def shows(self, value: float) -> bool:
        """Whether a value can be drawn at all."""
        return drawable(value, self.log)


def drawable(value: float, log: bool) -> bool:
    """Whether an axis can show a value; NaN and infinities never."""
    return abs(value) <= VALUE_MAX and (not log or value >= 1 / VALUE_MAX)


def scale(axis: Axis, values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale for values, widened to round numbers where the axis does not fix its ends."""
    shown = [value for value in values if drawable(value, axis.log)]
    low, high = (min(shown), max(shown)) if shown else (1.0, 10.0)
    if axis.log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    else:
        low = min(low, 0.0)
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    if high - low <= max(abs(low), abs(high)) * 1e-9 + 1 / VALUE_MAX:
        high = low * 10 if axis.log else low + max(1.0, abs(low))
    if not axis.log and axis.high is None:
        step = _step(high - low)
        high = math.ceil(high / step - 1e-9) * step
    return Scale(low, high, start, end, axis.log)


def ticks(of: Scale) -> list[float]:
    """Return the values at which an axis is labelled: round ones, four to ten of them."""
    if of.log:
        return _decades(of.low, of.high)
    step = _step(of.high - of.low)
    first = math.ceil(of.low / step - 1e-9)
    return [step * n for n in range(first, first + 12) if step * n <= of.high + step * 1e-9]


def _step(width: float) -> float:
    rough = width / 6
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first + 7) // 8)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    values = [10.0**power * factor for power in range(first, last + 1, every) for factor in factors]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def number(value: float) -> str:
    """Return a value as an axis says it: `0.05`, `20`, `1,000`, `2e6`."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    text = f"{value:,.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


# -- parts ----------------------------------------------------------------------------------------


def _pixel(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _label(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    cls = f' class="{kind}"' if kind else ""
    return f'<text x="{_pixel(x)}" y="{_pixel(y)}" text-anchor="{anchor}"{cls}>{escape(text)}</text>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{_pixel(x1)} {_pixel(y1)}L{_pixel(x2)} {_pixel(y2)}"/>'


def _box(kind: str, x: float, y: float, width: float, height: float, says: str = "") -> str:
    size = f'x="{_pixel(x)}" y="{_pixel(y)}" width="{_pixel(width)}" height="{_pixel(height)}"'
    title = f"<title>{escape(says)}</title>" if says else ""
    return f'<rect class="{kind}" {size}>{title}</rect>' if title else f'<rect class="{kind}" {size}/>'


def _across(of: Scale, top: float, bottom: float, label: str) -> list[str]:
    """Draw the x axis: grid, numbers, name."""
    parts = []
    for value in ticks(of):
        x = of.at(value)
        parts.append(_segment("grid", x, top, x, bottom))
        parts.append(_label(x, bottom + 15, number(value), "middle", "dim"))
    parts.append(_segment("axis", of.start, bottom, of.end, bottom))
    parts.append(_label((of.start + of.end) / 2, bottom + 32, label, "middle", "dim"))
    return parts


def _up(of: Scale, left: float, right: float, label: str) -> list[str]:
    """Draw the y axis: grid, numbers, name."""
    parts = []
    for value in ticks(of):
        y = of.at(value)
        parts.append(_segment("grid", left, y, right, y))
        parts.append(_label(left - 6, y + 4, number(value), "end", "dim"))
    middle = (of.start + of.end) / 2
    turned = f'transform="rotate(-90 14 {_pixel(middle)})"'
    parts.append(
        f'<text class="dim" x="14" y="{_pixel(middle)}" text-anchor="middle" {turned}>{escape(label)}</text>'
    )
    return parts


def _legend(entries: Sequence[tuple[int, str]], width: int, top: float, dashed: bool = False) -> list[str]:
    """Draw a legend in columns; `dashed` shows lines, else patches of colour."""
    columns = max(1, (width - LEFT) // LEGEND_COLUMN)
    parts = []
    for place, (colour, text) in enumerate(entries):
        x, y = LEFT + place % columns * LEGEND_COLUMN, top + place // columns * LEGEND_ROW
        kind = f"c{colour % COLOURS}"
        if dashed:
            parts.append(f'<path class="line {kind}" {_dash(colour)}d="M{x} {_pixel(y - 4)}h24"/>')
        else:
            parts.append(_box(f"cell {kind}", x + 8, y - 10, 12, 12))
        parts.append(_label(x + 30, y, text))
    return parts


def _legend_height(entries: int, width: int) -> int:
    columns = max(1, (width - LEFT) // LEGEND_COLUMN)
    return -(-entries // columns) * LEGEND_ROW


def _dash(colour: int) -> str:
    dash = DASHES[colour % len(DASHES)]
    return f'stroke-dasharray="{dash}" ' if dash else ""


# -- lines ----------------------------------------------------------------------------------------


def _plot(plot: Plot) -> tuple[str, int]:
    legend_px = _legend_height(len(plot.lines), plot.width) if len(plot.lines) > 1 else 0
    height = plot.height + legend_px
    bottom = plot.height - BOTTOM
    xs = [x for line in plot.lines for x, *_ in (*line.points, *line.band)]
    ys = [y for line in plot.lines for _, *rest in (*line.points, *line.band) for y in rest]
    x = scale(_tight(plot.x, xs), xs, LEFT, plot.width - RIGHT)
    y = scale(plot.y, ys, bottom, TOP)
    parts = [
        *(_shade(span, x, TOP, bottom) for span in plot.spans),
        *_across(x, TOP, bottom, plot.x.label),
        *_up(y, LEFT, plot.width - RIGHT, plot.y.label),
        *(_band(line, colour, x, y) for colour, line in enumerate(plot.lines)),
        *(_line(line, colour, x, y) for colour, line in enumerate(plot.lines)),
    ]
    if legend_px:
        entries = [(colour, line.label) for colour, line in enumerate(plot.lines)]
        parts += _legend(entries, plot.width, plot.height + 4, dashed=True)
    return "".join(parts), height


def _tight(axis: Axis, values: Sequence[float]) -> Axis:
    """Let the x axis begin and end with its values."""
    shown = [value for value in values if drawable(value, axis.log)]
    if not shown:
        return axis
    low = min(shown) if axis.low is None else axis.low
    high = max(shown) if axis.high is None else axis.high
    return attrs.evolve(axis, low=low, high=high)


def _shade(span: Span, x: Scale, top: float, bottom: float) -> str:
    begin, end = x.at(span.begin), x.at(span.end)
    return _box(f"band c{span.colour % COLOURS}", begin, top, max(1.0, end - begin), bottom - top, span.text)


def _shown(points: Iterable[Point], x: Scale, y: Scale) -> list[Point]:
    return [(x.at(px), y.at(py)) for px, py in points if x.shows(px) and y.shows(py)]


def _line(line: Line, colour: int, x: Scale, y: Scale) -> str:
    points = _shown(line.points, x, y)
    if not points:
        return ""
    kind = f"c{colour % COLOURS}"
    path = f'<path class="line {kind}" {_dash(colour)}d="{_path(points, line.steps)}"/>'
    dots = "".join(
        f'<circle class="{kind}" cx="{_pixel(px)}" cy="{_pixel(py)}" r="2.6"/>' for px, py in points
    )
    return path + (dots if line.marks or len(points) == 1 else "")


def _path(points: Sequence[Point], steps: bool) -> str:
    first, *rest = points
    path = [f"M{_pixel(first[0])} {_pixel(first[1])}"]
    for px, py in rest:
        path.append(f"H{_pixel(px)}V{_pixel(py)}" if steps else f"L{_pixel(px)} {_pixel(py)}")
    return "".join(path)


def _band(line: Line, colour: int, x: Scale, y: Scale) -> str:
    low = _shown(((px, a) for px, a, _ in line.band), x, y)
    high = _shown(((px, b) for px, _, b in line.band), x, y)
    if not low or not high:
        return ""
    return f'<path class="band c{colour % COLOURS}" d="{_path([*low, *reversed(high)], False)}Z"/>'


# -- bars -----------------------------------------------------------------------------------------


def _bars(bars: Bars) -> tuple[str, int]:
    legend_px = _legend_height(len(bars.series), bars.width) if len(bars.series) > 1 else 0
    bottom = bars.height - BOTTOM
    y = scale(bars.y, [value for _, values in bars.series for value in values], bottom, TOP)
    slot = (bars.width - RIGHT - LEFT) / max(1, len(bars.categories))
    parts = _up(y, LEFT, bars.width - RIGHT, bars.y.label)
    for place, category in enumerate(bars.categories):
        left = LEFT + place * slot
        parts += _group(bars, place, y, left + slot * 0.1, slot * 0.8 / max(1, len(bars.series)))
        parts.append(_label(left + slot / 2, bottom + 15, category, "middle", "dim"))
    parts.append(_segment("axis", LEFT, bottom, bars.width - RIGHT, bottom))
    if legend_px:
        entries = [(colour, label) for colour, (label, _) in enumerate(bars.series)]
        parts += _legend(entries, bars.width, bars.height - 4)
    return "".join(parts), bars.height + legend_px


def _group(bars: Bars, place: int, y: Scale, left: float, width: float) -> list[str]:
    parts = []
    for colour, (label, values) in enumerate(bars.series):
        value = values[place]
        if y.shows(value):
            top, floor = y.at(value), y.at(max(0.0, y.low))
            said = f"{bars.categories[place]}, {label}: {number(value)}"
            box = (left + colour * width, min(top, floor), width * 0.92, abs(floor - top))
            parts.append(_box(f"cell c{colour % COLOURS}", *box, said))
            parts.append(_label(box[0] + box[2] / 2, box[1] - 3, number(value), "middle", "dim"))
    return parts


# -- timelines ------------------------------------------------------------------------------------


def _timeline(timeline: Timeline) -> tuple[str, int]:
    bottom = TOP + len(timeline.rows) * timeline.row_height
    times = [time for row in timeline.rows for span in row.spans for time in (span.begin, span.end)]
    x = scale(_tight(timeline.x, times), times, LABEL_WIDTH, timeline.width - RIGHT)
    parts = _across(x, TOP, bottom, timeline.x.label)
    for place, row in enumerate(timeline.rows):
        top = TOP + place * timeline.row_height
        text_y = top + timeline.row_height / 2 + 4
        if timeline.row_height >= LABELLED_ROW:
            kind = "dim" if timeline.row_height >= ROW_HEIGHT else "dim small"
            parts.append(_label(LABEL_WIDTH - 6, text_y, row.label[:LABEL_CHARACTERS], "end", kind))
        parts += (_cell(span, x, top, timeline.row_height) for span in row.spans)
        strip = max(2, timeline.row_height // 4)
        parts += (_cell(span, x, top + timeline.row_height - strip - 1, strip + 2) for span in row.under)
    height = bottom + BOTTOM
    if timeline.legend:
        parts += _legend(timeline.legend, timeline.width, height + 4)
        height += _legend_height(len(timeline.legend), timeline.width)
    return "".join(parts), height


def _cell(span: Span, x: Scale, top: float, row_height: int) -> str:
    begin, width = x.at(span.begin), max(1.5, x.at(span.end) - x.at(span.begin))
    box = _box(f"cell c{span.colour % COLOURS}", begin, top + 1, width, row_height - 2, span.text)
    if span.text and row_height >= 14 and width > len(span.text) * CHARACTER + 4:
        return box + _label(begin + 4, top + row_height / 2 + 4, span.text, kind="inside")
    return box
