"""Pages of single results: one model on one benchmark, and two models side by side."""

from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.evaluation.compare import Comparison
from clinical_r1.evaluation.metrics import Metrics
from clinical_r1.evaluation.page import render
from clinical_r1.evaluation.sentences import (
    answer_sentence,
    answer_sentence_zh,
    model_sentence,
    model_sentence_zh,
    second_opinion,
)
from clinical_r1.evaluation.show import outcome_rows

EVALUATION_PAGE = "evaluation.html"
COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.html"


def write_evaluation(metrics: Metrics, out_dir: Path) -> Path:
    """evaluation.html of one model; returns its path."""
    page = render(
        "evaluation.html.j2",
        title=metrics.model,
        metrics=metrics,
        answer=model_sentence(metrics),
        answer_zh=model_sentence_zh(metrics),
        outcomes=outcome_rows(metrics)[0],
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
        answer=answer_sentence(comparison, "is right"),
        answer_zh=answer_sentence_zh(comparison),
        second_opinion=second_opinion(comparison),
        reach=reach_of(comparison),
        outcomes=outcome_rows(*metrics),
    )
    write_text(Path(out_dir) / COMPARISON, comparison.model_dump_json(indent=1) + "\n")
    write_text(Path(out_dir) / COMPARISON_PAGE, page, private=True)
    return Path(out_dir) / COMPARISON_PAGE


def reach_of(comparison: Comparison) -> float:
    """Half-width of the difference axis: the intervals of all larger strata fit, in steps of 10 points."""
    rows = [result for strata in comparison.by.values() for result in strata.values() if result.n >= 20]
    results = [comparison.overall, *rows]
    widest = max(max(abs(result.low), abs(result.high)) for result in results)
    return min(1.0, max(0.1, -(-widest * 10 // 1) / 10))
