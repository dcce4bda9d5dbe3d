"""Small SVG charts for the reports, and the curves of a run's metrics.jsonl as a sheet of them.

Colours come from the page's CSS (light and dark).
Strips (bars, intervals, shares) use percentages and stretch with their table cell; line charts have a view box.
No figure carries a meaning by colour alone: every series is also named in text.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError

WIDTH, HEIGHT = 360, 190
"""Of a line chart, in px."""


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
    half = span // 2
    return [
        sum(values[max(0, i - half) : i + half + 1]) / len(values[max(0, i - half) : i + half + 1])
        for i in range(len(values))
    ]


def line_chart(series: Sequence[Series], unit: str = "", percent: bool = False, x_label: str = "step") -> Markup:
    """Curves over steps: long ones faint as measured and strong as a moving average, short ones with their points."""
    series = [_finite(one) for one in series]
    series = [one for one in series if one.y]
    if not series:
        return Markup('<p class="none">not recorded</p>')
    width, height, left, right, top, bottom = WIDTH, HEIGHT, 44, 10, 10, 30
    y_ticks = ticks(min(min(s.y) for s in series), max(max(s.y) for s in series))
    x_low, x_high = min(min(s.x) for s in series), max(max(s.x) for s in series)
    x_span, y_span = (x_high - x_low) or 1.0, y_ticks[-1] - y_ticks[0]

    def px(x: float) -> float:
        return left + (x - x_low) / x_span * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y_ticks[0]) / y_span * (height - top - bottom)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">']
    parts.append(f"<title>{escape(', '.join(s.label for s in series))} by {escape(x_label)}</title>")
    for tick in y_ticks:
        text = f"{tick * 100:.4g}%" if percent else number(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{py(tick) + 4:.1f}">{text}</text>')
    for tick in [t for t in ticks(x_low, x_high) if x_low <= t <= x_high]:
        parts.append(f'<text class="tick mid" x="{px(tick):.1f}" y="{height - 12}">{number(tick)}</text>')
    parts.append(f'<text class="tick end" x="{width - right}" y="{height - 1}">{escape(x_label)}</text>')
    for place, one in enumerate(series):
        parts += _curve(one, px, py)
        parts.append(_last_value(one, px, py, percent, unit))
        if len(series) > 1:
            x = width - right - 84 * (len(series) - 1 - place)
            style = f"fill: var(--{one.css})"
            parts.append(f'<text class="tick end" style="{style}" x="{x}" y="{top - 1}">{escape(one.label)}</text>')
    return Markup("".join(parts) + "</svg>")


def sheet(charts: Sequence[tuple[str, Markup]], columns: int = 3) -> str:
    """Line charts under their titles as one SVG file that stands alone: small multiples on white."""
    columns, step = min(columns, len(charts)), HEIGHT + 24
    body = "".join(
        f'<g transform="translate({WIDTH * (place % columns)},{step * (place // columns)})">'
        f'<text class="value" x="44" y="14">{escape(title)}</text><g transform="translate(0,20)">{_sized(chart)}</g>'
        "</g>"
        for place, (title, chart) in enumerate(charts)
    )
    size = f"0 0 {WIDTH * columns} {step * -(-len(charts) // columns)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img" font-family="system-ui, sans-serif">'
        f'<style>{_ALONE}</style><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _sized(chart: Markup) -> str:
    """A nested picture needs its size; where nothing was recorded, the words alone."""
    if not chart.startswith("<svg"):
        return '<text class="tick" x="44" y="60">not recorded</text>'
    return str(chart).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1)


_ALONE = (
    ".grid{stroke:#e3e3e3}.tick{fill:#666;font-size:11px}.end{text-anchor:end}.mid{text-anchor:middle}"
    "svg{overflow:visible;--ppo:#0b7a75;--sft:#8494aa}.value{font-size:12px;font-weight:600;fill:#333}.dot.ppo{fill:#0b7a75}.dot.sft{fill:#8494aa}"
    "polyline{fill:none}.raw{opacity:.3}polyline.ppo{stroke:#0b7a75}polyline.sft{stroke:#8494aa}.line{stroke-width:2}"
)
"""What the pages' style says of a line chart, in its light colours."""


def _finite(series: Series) -> Series:
    kept = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(y)]
    return series._replace(x=[x for x, _ in kept], y=[y for _, y in kept])


def _curve(one: Series, px, py) -> list[str]:
    def path(values: Sequence[float]) -> str:
        return " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(one.x, values, strict=True))

    if len(one.y) > 24:
        span = max(3, len(one.y) // 12 | 1)
        return [
            f'<polyline class="raw {one.css}" points="{path(one.y)}"/>',
            f'<polyline class="line {one.css}" points="{path(smooth(one.y, span))}"/>',
        ]
    dots = [
        f'<circle class="dot {one.css}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6"/>'
        for x, y in zip(one.x, one.y, strict=True)
    ]
    return [f'<polyline class="line {one.css}" points="{path(one.y)}"/>', *dots]


def _last_value(one: Series, px, py, percent: bool, unit: str) -> str:
    value = one.y[-1] if len(one.y) <= 24 else smooth(one.y, max(3, len(one.y) // 12 | 1))[-1]
    text = f"{value * 100:.1f}%" if percent else number(value) + unit
    y = py(value) - 8
    if y < 16:
        y = py(value) + 16
    return f'<text class="value end {one.css}" x="{px(one.x[-1]):.1f}" y="{y:.1f}">{escape(text)}</text>'


def bar(value: float, low: float, high: float, css: str, label: str = "") -> Markup:
    """A horizontal bar of a share with its interval as a whisker; stretches with its cell."""
    return Markup(
        '<svg class="strip" height="16" role="img"><title>{}</title>'
        '<rect class="rail" x="0" y="2" width="100%" height="12" rx="2"/>'
        '<rect class="bar {}" x="0" y="2" width="{}%" height="12" rx="2"/>'
        '<line class="whisker" x1="{}%" x2="{}%" y1="8" y2="8"/>'
        '<line class="whisker" x1="{}%" x2="{}%" y1="4" y2="12"/>'
        '<line class="whisker" x1="{}%" x2="{}%" y1="4" y2="12"/>'
        "</svg>"
    ).format(label, css, *(f"{100 * x:.2f}" for x in (value, low, high, low, low, high, high)))


def difference(value: float, low: float, high: float, reach: float, shown: bool, label: str = "") -> Markup:
    """A difference with its interval around zero, on a scale of -reach..reach; coloured where it is `shown`."""

    def at(x: float) -> str:
        return f"{50 + 50 * max(-1.0, min(1.0, x / reach)):.2f}"

    css = ("up" if value > 0 else "down") if shown else "flat"
    return Markup(
        '<svg class="strip" height="18" role="img"><title>{}</title>'
        '<line class="zero" x1="50%" x2="50%" y1="0" y2="18"/>'
        '<line class="reach {}" x1="{}%" x2="{}%" y1="9" y2="9"/><circle class="{}" cx="{}%" cy="9" r="4.5"/></svg>'
    ).format(label, css, at(low), at(high), css, at(value))


def reach(intervals: Iterable[tuple[float, float]]) -> float:
    """Half-width of a `difference` axis that holds the intervals, in steps of 10 points."""
    widest = max((max(abs(low), abs(high)) for low, high in intervals), default=0.1)
    return min(1.0, max(0.1, -(-widest * 10 // 1) / 10))


def stacked(shares: Sequence[tuple[str, float, str]]) -> Markup:
    """Shares of a whole, one after the other: (name, share, css)."""
    parts, start = ['<svg class="strip" height="22" role="img"><title>'], 0.0
    parts.append(str(escape(", ".join(f"{name} {share:.1%}" for name, share, _ in shares if share))) + "</title>")
    for _, share, css in shares:
        if share <= 0:
            continue
        parts.append(f'<rect class="{css}" x="{100 * start:.2f}%" y="1" width="{100 * share:.2f}%" height="20"/>')
        if share > 0.09:
            middle = 100 * (start + share / 2)
            parts.append(f'<text class="inside" x="{middle:.2f}%" y="15.5">{share:.0%}</text>')
        start += share
    return Markup("".join(parts) + "</svg>")


def histogram(groups: Sequence[tuple[str, Sequence[float], str]], unit: str = "tokens") -> Markup:
    """Overlaid outlines of two or more distributions on common bins: (label, values, css)."""
    values = sorted(v for _, group, _ in groups for v in group)
    if not values:
        return Markup('<p class="none">not recorded</p>')
    top = values[min(len(values) - 1, int(0.995 * len(values)))]
    edges = ticks(0, max(top, 1), about=20)
    step = edges[1] - edges[0]
    series = []
    for label, group, css in groups:
        counts = [0] * len(edges)
        for value in group:
            counts[min(len(edges) - 1, int(value // step))] += 1
        share = [count / (len(group) or 1) for count in counts]
        xs, ys = [0.0], [0.0]
        for i, height in enumerate(share):
            xs += [i * step, (i + 1) * step]
            ys += [height, height]
        series.append((label, xs, ys, css, sum(group) / (len(group) or 1)))
    return _outlines(series, unit)


def _outlines(series: Sequence[tuple[str, list[float], list[float], str, float]], unit: str) -> Markup:
    width, height, left, right, top, bottom = 720, 200, 44, 10, 22, 30
    x_high = max(max(xs) for _, xs, *_ in series)
    y_ticks = ticks(0, max(max(ys) for _, _, ys, *_ in series))

    def px(x: float) -> float:
        return left + x / x_high * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - y / y_ticks[-1] * (height - top - bottom)

    parts = [f'<svg class="chart wide" viewBox="0 0 {width} {height}" role="img"><title>Reasoning length</title>']
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{py(tick) + 4:.1f}">{tick:.0%}</text>')
    for tick in [t for t in ticks(0, x_high, 8) if t <= x_high]:
        parts.append(f'<text class="tick mid" x="{px(tick):.1f}" y="{height - 12}">{number(tick)}</text>')
    parts.append(f'<text class="tick end" x="{width - right}" y="{height}">{escape(unit)}</text>')
    for label, xs, ys, css, mean in series:
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polygon class="area {css}" points="{points} {px(xs[-1]):.1f},{py(0):.1f}"/>')
        parts.append(
            f'<line class="mean {css}" x1="{px(mean):.1f}" x2="{px(mean):.1f}" y1="{top - 6}" y2="{py(0):.1f}"/>'
        )
        parts.append(f"<desc>{escape(label)} mean {mean:.1f}</desc>")
    return Markup("".join(parts) + "</svg>")


@dataclass(frozen=True)
class Panel:
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
    for panel in panels:
        names = [*panel.labels, *panel.keys[len(panel.labels) :]]
        curves = [Series(name, *series(rows, key), css) for name, key, css in zip(names, panel.keys, CSS, strict=False)]
        if any(math.isfinite(y) for curve in curves for y in curve.y):
            drawn.append((panel.title, line_chart(curves)))
    write_text(path, sheet(drawn or [("no steps recorded", line_chart([]))]))


CSS = ("ppo", "sft")
"""Of the first and the second curve of a panel."""
