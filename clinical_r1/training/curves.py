"""Curves of a run as one self-contained SVG: small multiples, a thin line of the values, a thick one smoothed."""

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.training.metrics import series

COLOURS = ("#1f6f8b", "#c8553d", "#5a7d2a", "#7a4e9c")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 210, 52, 12, 30, 30


@dataclass(frozen=True)
class Panel:
    """One small chart."""

    title: str
    keys: tuple[str, ...]
    """Names in metrics.jsonl; a panel none of whose names has values is left out."""
    labels: tuple[str, ...] = ()
    """Shown instead of the names."""


def write_curves(rows: list[dict[str, Any]], panels: list[Panel], path: Path, columns: int = 3) -> None:
    """Draw the panels that have values; an empty run gives a picture that says so."""
    drawn = [panel for panel in panels if any(series(rows, key)[0] for key in panel.keys)]
    columns = max(1, min(columns, len(drawn)))
    lines = math.ceil(len(drawn) / columns) or 1
    body = "".join(
        f'<g transform="translate({index % columns * WIDTH},{index // columns * HEIGHT})">{_panel(rows, panel)}</g>'
        for index, panel in enumerate(drawn)
    )
    if not drawn:
        body = f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no steps recorded</text>'
    title = escape(", ".join(panel.title for panel in drawn) or "no steps recorded")
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * WIDTH} {lines * HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#333"><title>Training curves: {title}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n',
    )


def _panel(rows: list[dict[str, Any]], panel: Panel) -> str:
    lines = [(key, *series(rows, key)) for key in panel.keys]
    xs = [x for _, steps, _ in lines for x in steps]
    ys = [y for _, _, values in lines for y in values]
    low, high = min(ys), max(ys)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<text x="{LEFT}" y="18" font-weight="600">{escape(panel.title)}</text>']
    for tick in _ticks(low, high):
        y = place(first, tick)[1]
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in (first, last):
        x = place(tick, low)[0]
        anchor = "start" if tick == first else "end"
        parts.append(
            f'<text x="{x}" y="{HEIGHT - 12}" text-anchor="{anchor}">{"step " if tick == last else ""}{tick:g}</text>'
        )
    for index, (key, steps, values) in enumerate(lines):
        if not steps:
            continue
        colour = COLOURS[index % len(COLOURS)]
        parts.append(_path([place(x, y) for x, y in zip(steps, values, strict=True)], colour, 1, 0.35))
        smooth = _smooth(values)
        parts.append(_path([place(x, y) for x, y in zip(steps, smooth, strict=True)], colour, 2, 1))
        if len(lines) > 1:
            label = panel.labels[index] if index < len(panel.labels) else key
            x = WIDTH - RIGHT - 84 * (len(lines) - 1 - index)
            parts.append(f'<text x="{x}" y="18" text-anchor="end" fill="{colour}">{escape(label)}</text>')
    return "".join(parts)


def _path(points: list[tuple[float, float]], colour: str, width: float, opacity: float) -> str:
    if len(points) == 1:
        return f'<circle cx="{points[0][0]}" cy="{points[0][1]}" r="3" fill="{colour}"/>'
    data = "M" + "L".join(f"{x} {y}" for x, y in points)
    return f'<path d="{data}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'


def _smooth(values: list[float]) -> list[float]:
    """Centred moving mean over a twentieth of the run; short runs stay as they are."""
    half = len(values) // 40
    return [
        sum(values[max(0, i - half) : i + half + 1]) / len(values[max(0, i - half) : i + half + 1])
        for i in range(len(values))
    ]


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers inside of the range."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= raw)
    start = math.ceil(low / step)
    return [round(step * index, 10) for index in range(start, math.floor(high / step) + 1)]
