"""Small SVG charts for the reports, and the curves of a run's metrics.jsonl as a sheet of them.

Colours come from the page's CSS (light and dark). Line charts have a view box; the strips that stretch with their table
cell are in templates/strips.html.j2. No figure carries a meaning by colour alone: every series is also named in text.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError

WIDTH, HEIGHT = 360, 190
"""Of a line chart, in px."""
NOT_RECORDED = Markup('<p class="none">not recorded</p>')


class Series(NamedTuple):
    """A curve: aligned x and y, drawn in the CSS class `name`."""

    label: str
    x: list[float]
    y: list[float]
    css: str = "accent"


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover [low, high]."""
    if not math.isfinite(low) or not math.isfinite(high) or low == high == 0:
        return [0.0, 1.0]
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick or value label: at most three significant digits, no exponent in the usual range."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10000 or size < 0.001:
        return f"{value:.1e}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Centred moving average; the ends use what there is."""
    windows = [values[max(0, i - span // 2) : i + span // 2 + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


class _Axes:
    """A plot's place in its picture: data in, pixels out."""

    left, right, bottom = 44, 10, 30

    def __init__(self, size: tuple[int, int], top: int, x_range: tuple[float, float], y_ticks: list[float]) -> None:
        self.width, self.height = size
        self.top, self.x_range, self.y_ticks = top, x_range, y_ticks

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))

    def drawn(self, x_label: str, x_ticks: int, percent: bool) -> Iterator[str]:
        """Grid, ticks and the name of the x axis."""
        end = self.width - self.right
        for tick in self.y_ticks:
            text, y = f"{tick * 100:.4g}%" if percent else number(tick), self.y(tick)
            yield f'<line class="grid" x1="{self.left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick end" x="{self.left - 6}" y="{y + 4:.1f}">{text}</text>'
        for tick in ticks(*self.x_range, x_ticks):
            if self.x_range[0] <= tick <= self.x_range[1]:
                yield f'<text class="tick mid" x="{self.x(tick):.1f}" y="{self.height - 12}">{number(tick)}</text>'
        yield f'<text class="tick end" x="{end}" y="{self.height - 1}">{escape(x_label)}</text>'


def line_chart(series: Sequence[Series], percent: bool = False, x_label: str = "step") -> Markup:
    """Curves over steps: long ones faint as measured and strong as a moving average, short ones with their points."""
    curves = []
    for one in series:
        known = [(x, y) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(y)]
        if known:
            curves.append(one._replace(x=[x for x, _ in known], y=[y for _, y in known]))
    if not curves:
        return NOT_RECORDED
    all_x, all_y = [x for one in curves for x in one.x], [y for one in curves for y in one.y]
    axes = _Axes((WIDTH, HEIGHT), 10, (min(all_x), max(all_x)), ticks(min(all_y), max(all_y)))
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    parts.append(f"<title>{escape(', '.join(one.label for one in curves))} by {escape(x_label)}</title>")
    parts += axes.drawn(x_label, 4, percent)
    for place, one in enumerate(curves):
        xs, ys = one.x, one.y
        strong = ys if len(ys) <= 24 else smooth(ys, max(3, len(ys) // 12 | 1))
        if strong is not ys:
            parts.append(f'<polyline class="raw {one.css}" points="{axes.path(xs, ys)}"/>')
        parts.append(f'<polyline class="line {one.css}" points="{axes.path(xs, strong)}"/>')
        for x, y in zip(xs, ys, strict=True) if strong is ys else ():
            parts.append(f'<circle class="dot {one.css}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.6"/>')
        last = axes.y(strong[-1])
        text = f"{strong[-1] * 100:.1f}%" if percent else number(strong[-1])
        y = last - 8 if last >= 24 else last + 16
        parts.append(f'<text class="value end {one.css}" x="{axes.x(xs[-1]):.1f}" y="{y:.1f}">{text}</text>')
        if len(curves) > 1:
            x, style = WIDTH - axes.right - 84 * (len(curves) - 1 - place), f"fill: var(--{one.css})"
            parts.append(
                f'<text class="tick end" style="{style}" x="{x}" y="{axes.top - 1}">{escape(one.label)}</text>'
            )
    return Markup("".join(parts) + "</svg>")


def sheet(charts: Sequence[tuple[str, Markup]]) -> str:
    """Line charts under their titles as one SVG file that stands alone: small multiples on white."""
    columns, step = min(3, len(charts)), HEIGHT + 24
    body = ""
    for place, (title, chart) in enumerate(charts):
        # A nested picture needs its size; where nothing was recorded, the words alone.
        sized = str(chart).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1)
        if chart == NOT_RECORDED:
            sized = '<text class="tick" x="44" y="60">not recorded</text>'
        body += (
            f'<g transform="translate({WIDTH * (place % columns)},{step * (place // columns)})">'
            f'<text class="value" x="44" y="14">{escape(title)}</text><g transform="translate(0,20)">{sized}</g></g>'
        )
    style = (Path(__file__).parent / "templates" / "curves.css").read_text(encoding="utf-8")
    size = f"0 0 {WIDTH * columns} {step * -(-len(charts) // columns)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img" font-family="system-ui, sans-serif">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def reach(intervals: Iterable[tuple[float, float]]) -> float:
    """Half-width of a `difference` axis that holds the intervals, in steps of 10 points."""
    widest = max((max(abs(low), abs(high)) for low, high in intervals), default=0.1)
    return min(1.0, max(0.1, -(-widest * 10 // 1) / 10))


def histogram(groups: Sequence[tuple[str, Sequence[float], str]]) -> Markup:
    """Overlaid outlines of two or more distributions of token counts on common bins: (label, values, css)."""
    values = sorted(v for _, group, _ in groups for v in group)
    if not values:
        return NOT_RECORDED
    edges = ticks(0, max(values[min(len(values) - 1, int(0.995 * len(values)))], 1), about=20)
    step = edges[1] - edges[0]
    outlines = []
    for _, group, _ in groups:
        counts = [0] * len(edges)
        for value in group:
            counts[min(len(edges) - 1, int(value // step))] += 1
        outlines.append([0.0, *(count / (len(group) or 1) for count in counts for _ in range(2))])
    xs = [0.0, *(edge * step for i in range(len(edges)) for edge in (i, i + 1))]
    y_ticks = ticks(0, max(map(max, outlines)))
    axes = _Axes((720, 200), 22, (0, xs[-1]), y_ticks)
    parts = ['<svg class="chart wide" viewBox="0 0 720 200" role="img"><title>Reasoning length</title>']
    parts += axes.drawn("tokens", 8, percent=True)
    floor = axes.y(0)
    for (label, group, css), ys in zip(groups, outlines, strict=True):
        mean = sum(group) / (len(group) or 1)
        x = f"{axes.x(mean):.1f}"
        parts.append(f'<polygon class="area {css}" points="{axes.path(xs, ys)} {axes.x(xs[-1]):.1f},{floor:.1f}"/>')
        parts.append(f'<line class="mean {css}" x1="{x}" x2="{x}" y1="{axes.top - 6}" y2="{floor:.1f}"/>')
        parts.append(f"<desc>{escape(label)} mean {mean:.1f}</desc>")
    return Markup("".join(parts) + "</svg>")


class Panel(NamedTuple):
    """One small chart."""

    title: str
    keys: tuple[str, ...]
    """Names in metrics.jsonl; a panel none of whose names has values is left out."""
    labels: tuple[str, ...] = ()
    """Shown instead of the names."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; a line that was cut by a crash is dropped."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the metrics.jsonl of a training run")
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):  # text may hold other ends of line
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one name."""
    points = {float(row["step"]): float(row[key]) for row in rows if key in row}  # a resumed run logs some steps again
    return list(points), list(points.values())


def write_curves(rows: list[dict[str, Any]], panels: list[Panel], path: Path) -> None:
    """Draw the panels that have values; an empty run gives a picture that says so."""
    drawn = []
    for title, keys, labels in panels:
        named = zip(keys, [*labels, *keys[len(labels) :]], ("ppo", "sft"), strict=False)
        chart = line_chart([Series(label, *series(rows, key), css) for key, label, css in named])
        if chart != NOT_RECORDED:
            drawn.append((title, chart))
    write_text(path, sheet(drawn or [("no steps recorded", NOT_RECORDED)]))
