"""Pages of single results: one model on one benchmark, and two models side by side."""

from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.charts import reach
from clinical_r1.evaluation.measure.compare import Comparison
from clinical_r1.evaluation.measure.metrics import Metrics
from clinical_r1.evaluation.pages.parts import outcome_rows
from clinical_r1.evaluation.thinking import Curve
from clinical_r1.page import render, sentence

EVALUATION_PAGE = "evaluation.html"
COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.html"


def write_evaluation(metrics: Metrics, out_dir: Path, curve: Curve | None = None) -> Path:
    """evaluation.html of one model; returns its path."""
    page = render(
        "evaluation.html.j2",
        title=metrics.model,
        metrics=metrics,
        answer=sentence("model", metrics=metrics),
        answer_zh=sentence("model_zh", metrics=metrics),
        outcomes=outcome_rows(metrics)[0],
        curves=[(metrics.model, curve)] if curve else [],
    )
    write_text(Path(out_dir) / EVALUATION_PAGE, page, private=True)
    return Path(out_dir) / EVALUATION_PAGE


def write_comparison(
    comparison: Comparison, metrics: tuple[Metrics, Metrics], out_dir: Path, benchmark: str = "", biased: str = ""
) -> Path:
    """comparison.json and comparison.html; returns the page's path. `biased` says why the comparison would mislead."""
    page = render(
        "comparison.html.j2",
        title=f"{comparison.second} against {comparison.first}",
        comparison=comparison,
        benchmark=benchmark,
        biased=biased,
        answer=sentence("answer", comparison=comparison, act="is right"),
        answer_zh=sentence("answer_zh", comparison=comparison),
        second_opinion=sentence("second_opinion", comparison=comparison),
        reach=reach_of(comparison),
        outcomes=outcome_rows(*metrics),
    )
    write_text(Path(out_dir) / COMPARISON, comparison.model_dump_json(indent=1) + "\n")
    write_text(Path(out_dir) / COMPARISON_PAGE, page, private=True)
    return Path(out_dir) / COMPARISON_PAGE


def reach_of(comparison: Comparison) -> float:
    """Half-width of the difference axis: the intervals of all larger strata fit."""
    rows = [result for strata in comparison.by.values() for result in strata.values() if result.n >= 20]
    return reach([(result.low, result.high) for result in [comparison.overall, *rows]])
