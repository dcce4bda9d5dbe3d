"""Draws the dashboard's panels from Prometheus data, without Grafana: one HTML page of SVG charts to look at."""

import html
from typing import Any

from serving.monitoring.dashboard import Panel

COLOURS = ("#0b6e6e", "#c2571a", "#5b4bb5", "#2f7d32", "#a11d5b", "#7a6a00", "#31659c", "#8c4a2f")
WIDTH, HEIGHT = 420, 170


def named(legend: str, labels: dict[str, str]) -> str:
    for key, value in labels.items():
        legend = legend.replace("{{" + key + "}}", value)
    return legend


def lines_of(queries: list[tuple[str, list[dict[str, Any]]]]) -> list[tuple[str, list[tuple[float, float]]]]:
    return [
        (named(legend, row["metric"]), [(float(t), float(v)) for t, v in row["values"] if v not in ("NaN", "+Inf")])
        for legend, rows in queries
        for row in rows
    ]


def chart(panel: Panel, queries: list[tuple[str, list[dict[str, Any]]]]) -> str:
    lines = [(name, points) for name, points in lines_of(queries) if points]
    if panel.kind == "stat":
        shown = ", ".join(f"{name}: <b>{points[-1][1]:.3g}</b>" for name, points in lines)
        return f"<p class=stat>{shown}</p>"
    top = max([v for _, points in lines for _, v in points] + [panel.limit or 0.0]) or 1.0
    if panel.kind == "bars":
        bars = "".join(
            f"<tr><td>{html.escape(name)}<td><div style='width:{max(points[-1][1], 0) / top * 180:.0f}px'></div>"
            f"<td>{points[-1][1]:.3f}"
            for name, points in lines
            if points[-1][1] > 0.001
        )
        return f"<table>{bars}</table>"
    start = min(points[0][0] for _, points in lines)
    end = max(max(points[-1][0] for _, points in lines), start + 1)
    drawn, legend = "", ""
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        xy = " ".join(f"{(t - start) / (end - start) * WIDTH:.1f},{HEIGHT - v / top * HEIGHT:.1f}" for t, v in points)
        drawn += f"<polyline points='{xy}' fill='none' stroke='{colour}' stroke-width='2'/>"
        legend += f"<span style='color:{colour}'>■ {html.escape(name)} {points[-1][1]:.3g}</span> "
    if panel.limit is not None:
        y = HEIGHT - panel.limit / top * HEIGHT
        drawn += f"<line x1=0 x2={WIDTH} y1={y:.1f} y2={y:.1f} stroke='red' stroke-dasharray='4'/>"
    return f"<svg width={WIDTH} height={HEIGHT}>{drawn}</svg><p class=legend>max {top:.3g} {panel.unit}<br>{legend}</p>"


def draw(data: list[tuple[Panel, list[tuple[str, list[dict[str, Any]]]]]]) -> str:
    """The page."""
    cells = "".join(
        f"<div><h3>{html.escape(panel.title)}</h3><p>{html.escape(panel.tells)}</p>{chart(panel, queries)}</div>"
        for panel, queries in data
    )
    style = (
        "body{font:12px sans-serif;display:grid;grid-template-columns:repeat(3,1fr);gap:10px}"
        "div>div,body>div{border:1px solid #ccc;padding:8px}td div{background:#0b6e6e;height:8px;padding:0;border:0}"
        "h3{margin:0}p{margin:2px 0;color:#555}.stat{font-size:18px;color:#000}svg{background:#f6f8f9}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{cells}"
