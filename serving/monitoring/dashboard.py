"""The Grafana dashboard, from Python: `python -m serving.monitoring.dashboard` writes dashboard.json.

The panels are those of `panels.yaml`; `build` gives them Grafana's form with grafana-foundation-sdk.
"""

import json
import sys
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from serving.monitoring.panels import ROWS, Panel

DASHBOARD_FILE = Path(__file__).parent / "dashboard.json"


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
