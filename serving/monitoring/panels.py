"""The panels of the dashboard (panels.yaml), so that tests can run every query against a real Prometheus."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from serving.metrics import SLO_FIRST_ANSWER, SLO_LATENCY
from serving.monitoring.rules import PSI_LIMIT

Labels = Literal["language", "version", "all"]
_VERSION = 'model_version=~"$model_version"'
LABELS: dict[Labels, str] = {"language": f'{_VERSION},language=~"$language"', "version": _VERSION, "all": ""}
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One panel: a title, what it tells, and its queries as (expression, legend)."""

    title: str
    tells: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["lines", "stack", "stat", "bars"] = "lines"
    unit: str = "short"
    span: int = 8
    limit: float | None = None
    """A threshold to draw."""


def quantiles(of: str, at: Sequence[float], labels: Labels = "language", by: str = "") -> tuple[tuple[str, str], ...]:
    """Quantiles of a histogram."""
    extra = f", {by}" if by else ""
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by (le{extra}) (rate(clinical_r1_{of}_bucket{{{LABELS[labels]}}}[{RATE}])))",
            f"p{q * 100:g}{legend}",
        )
        for q in at
    )


def per_second(of: str, by: str, labels: Labels = "version") -> tuple[str, str]:
    """Rate of a counter by a label."""
    return (f"sum by ({by}) (rate(clinical_r1_{of}_total{{{LABELS[labels]}}}[{RATE}]))", f"{{{{{by}}}}}")


LIMITS = {"slo_first_answer": SLO_FIRST_ANSWER, "slo_latency": SLO_LATENCY, "psi_limit": PSI_LIMIT}


def _panel(row: dict[str, Any]) -> Panel:
    queries = [tuple(query) for query in row.pop("queries", [])]
    if "quantiles" in row:
        queries += quantiles(**row.pop("quantiles"))
    if "per_second" in row:
        queries.append(per_second(**row.pop("per_second")))
    tells, limit = row.pop("tells").format(**LIMITS), LIMITS.get(row.pop("limit", ""))
    return Panel(tells=tells, queries=tuple(queries), limit=limit, **row)


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = tuple(
    (row["row"], tuple(map(_panel, row["panels"])))
    for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
)
PANELS: tuple[Panel, ...] = tuple(panel for _, panels in ROWS for panel in panels)
