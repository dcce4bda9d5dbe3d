"""The chain analysis as one self-contained HTML page: tables, effect sizes as a forest plot. No record text."""

from html import escape
from pathlib import Path

import jinja2

from clinical_r1.synthesis.analysis import Comparison, Row, Section

TEMPLATE = Path(__file__).parent / "analysis.html.j2"
WIDTH, ROW, LABEL, REACH = 820, 24, 300, 2.0
"""Forest plot: width and row height in px, px kept for labels, effects beyond ±REACH are drawn at the edge."""


def render_html(comparison: Comparison) -> str:
    """The page."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    environment.filters |= {"amount": amount, "forest": forest, "bars": bars, "p": p_text}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(c=comparison)


def amount(value: float, row: Row) -> str:
    """A value as the measure is read: shares in percent."""
    return f"{100 * value:.1f}%" if row.share else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def p_text(value: float) -> str:
    """A p-value without false precision."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _x(effect: float) -> float:
    inside = max(-REACH, min(REACH, effect))
    return LABEL + (WIDTH - LABEL - 20) * (inside + REACH) / (2 * REACH)


def forest(section: Section) -> str:
    """Effect sizes with their intervals as inline SVG."""
    height = ROW * (len(section.rows) + 2)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="effect sizes" class="forest">']
    for tick in (-2, -1, 0, 1, 2):
        kind = "zero" if tick == 0 else "tick"
        parts.append(f'<line class="{kind}" x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="6" y2="{height - ROW:.0f}"/>')
        parts.append(f'<text class="axis" x="{_x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick}</text>')
    for number, row in enumerate(section.rows):
        y = ROW * (number + 0.8)
        clear = "clear" if row.p_holm < 0.05 else "unclear"
        parts.append(
            f'<text class="label" x="{LABEL - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(row.title)}</text>'
        )
        if row.effect is None or row.effect_interval is None:
            continue
        low, high = row.effect_interval
        parts.append(f'<line class="{clear}" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="{clear}" cx="{_x(row.effect):.1f}" cy="{y:.1f}" r="4"/>')
    return "".join([*parts, "</svg>"])


def bars(pairs: dict[str, tuple[float, float]]) -> str:
    """Two bars a name, as inline SVG; scaled to the largest."""
    most = max((value for pair in pairs.values() for value in pair), default=0) or 1
    height = 30 * len(pairs) + 6
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="bars" class="bars">']
    for number, (name, pair) in enumerate(pairs.items()):
        y = 30 * number + 4
        parts.append(f'<text class="label" x="{LABEL - 12}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for side, value in zip("ab", pair, strict=True):
            top = y + (0 if side == "a" else 12)
            long = (WIDTH - LABEL - 90) * value / most
            shown = f"{100 * value:.1f}%" if most <= 1 else f"{value:.0f}"
            parts.append(f'<rect class="{side}" x="{LABEL}" y="{top}" width="{long:.1f}" height="10"/>')
            parts.append(f'<text class="axis" x="{LABEL + long + 6:.1f}" y="{top + 9}">{shown}</text>')
    return "".join([*parts, "</svg>"])
