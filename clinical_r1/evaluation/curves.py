"""Training curves for the report, from the metrics.jsonl of a training step (one JSON object a logged step)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from clinical_r1.evaluation.charts import Series, line_chart


class Figure(NamedTuple):
    """One small chart."""

    caption: str
    hint: str
    chart: Markup


class _Curve(NamedTuple):
    caption: str
    hint: str
    css: str
    key: str
    """Name in metrics.jsonl."""
    percent: bool = False


SFT_CURVES = (
    _Curve("SFT loss", "per target token", "sft", "train/loss"),
    _Curve("SFT loss on held-out traces", "per target token", "sft", "eval/loss"),
)
PPO_CURVES = (
    _Curve("PPO reward", "mean of the batch", "ppo", "train/reward"),
    _Curve("KL to the SFT model", "nats per answer", "ppo", "train/kl"),
    _Curve("Reasoning length", "tokens, mean of the batch", "ppo", "train/reasoning_tokens"),
    _Curve("PPO validation accuracy", "greedy, held-out cases", "ppo", "validation/accuracy", True),
    _Curve("Forgetting probe", "multiple choice, not trained on", "ppo", "forgetting/accuracy", True),
)


def read_curves(sft: Path | None, ppo: Path | None) -> list[Figure]:
    """The figures that the two steps' files can fill; a curve that nobody recorded is left out."""
    figures = []
    for folder, curves in ((sft, SFT_CURVES), (ppo, PPO_CURVES)):
        rows = read_metrics(folder / "metrics.jsonl") if folder else []
        for curve in curves:
            series = _series(rows, curve)
            if series is not None:
                chart = line_chart([series], percent=curve.percent)
                figures.append(Figure(curve.caption, curve.hint, chart))
    return figures


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; nothing where the file is missing, and a cut last line is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return [row for row in rows if isinstance(row, dict)]


def _series(rows: list[dict[str, Any]], curve: _Curve) -> Series | None:
    numbered = ((float(row.get("step", index)), row.get(curve.key)) for index, row in enumerate(rows))
    latest = {step: value for step, value in numbered if _is_number(value)}  # a resumed run logs some steps again
    if not latest:
        return None
    xs = sorted(latest)
    return Series(curve.caption, xs, [float(str(latest[x])) for x in xs], curve.css)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
