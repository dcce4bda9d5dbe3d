"""The Grafana dashboard, from Python: `python -m serving.monitoring.dashboard` writes dashboard.json.

The panels are those of `panels.yaml`, read apart so that tests can run every query against a real Prometheus; `build`
gives them Grafana's form with grafana-foundation-sdk.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clinical_r1.atomic import read_table, write_text
from serving.metrics import SLO_FIRST_ANSWER, SLO_LATENCY
from serving.monitoring.rules import PSI_LIMIT

DASHBOARD_FILE = Path(__file__).parent / "dashboard.json"
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


def _read(row: dict[str, Any]) -> Panel:
    queries = [tuple(query) for query in row.pop("queries", [])]
    if "quantiles" in row:
        queries += quantiles(**row.pop("quantiles"))
    if "per_second" in row:
        queries.append(per_second(**row.pop("per_second")))
    tells, limit = row.pop("tells").format(**LIMITS), LIMITS.get(row.pop("limit", ""))
    return Panel(tells=tells, queries=tuple(queries), limit=limit, **row)


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = tuple(
    (row["row"], tuple(map(_read, row["panels"]))) for row in read_table(Path(__file__).with_name("panels.yaml"))
)
PANELS: tuple[Panel, ...] = tuple(panel for _, panels in ROWS for panel in panels)


def build() -> dict[str, Any]:
    """Grafana's JSON as a dict."""
    from grafana_foundation_sdk.builders import dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import VariableRefresh

    board = (
        dashboard.Dashboard("ClinicalGPT-R1: reasoning and latency")
        .uid("clinical-r1")
        .description(
            "Does the model think, for how long, and when does the answer start? Research use; no patient text."
        )
        .tags(["clinical-r1", "llm"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name, label in (("model_version", "Model version"), ("language", "Language")):
        board.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .query(f"label_values(clinical_r1_answers_total, {name})")
            .datasource(_source())
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for title, panels in ROWS:
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(_panel(panel))
    data: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder, sort_keys=True))
    return data


def _source() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid="${datasource}")


def _panel(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
    from grafana_foundation_sdk.models.common import BigValueGraphMode, GraphTresholdsStyleMode, StackingMode
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    builder: Any
    if panel.kind == "stat":
        builder = stat.Panel().graph_mode(BigValueGraphMode.AREA)
    elif panel.kind == "bars":
        builder = bargauge.Panel()
    else:
        builder = timeseries.Panel().fill_opacity(30 if panel.kind == "stack" else 5).line_width(2)
        if panel.kind == "stack":
            builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
        if panel.limit is not None:
            builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE))
    builder.title(panel.title).description(panel.tells).unit(panel.unit).datasource(_source())
    builder.span(panel.span).height(5 if panel.kind == "stat" else 8)
    if panel.limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.limit, color="red")]
        builder.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for number, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        if panel.kind == "bars":
            query.instant()
        elif "histogram_quantile" in expression:
            query.exemplar(True)
        builder.with_target(query)
    return builder


def render() -> str:
    """The committed text."""
    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    write_text(DASHBOARD_FILE, render())
    print(DASHBOARD_FILE, file=sys.stderr)
