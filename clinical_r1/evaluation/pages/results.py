"""Pages of single results: one model on one benchmark, and two models side by side."""

from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.charts import reach
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics
from clinical_r1.evaluation.pages.parts import outcome_rows
from clinical_r1.evaluation.thinking import Curve
from clinical_r1.page import interval, p_value, percent, points, render

EVALUATION_PAGE = "evaluation.html"
COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.html"


def write_evaluation(metrics: Metrics, out_dir: Path, curve: Curve | None = None) -> Path:
    """evaluation.html of one model; returns its path."""
    page = render(
        "evaluation.html.j2",
        title=metrics.model,
        metrics=metrics,
        answer=model_sentence(metrics),
        answer_zh=model_sentence_zh(metrics),
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
    """Half-width of the difference axis: the intervals of all larger strata fit."""
    rows = [result for strata in comparison.by.values() for result in strata.values() if result.n >= 20]
    return reach([(result.low, result.high) for result in [comparison.overall, *rows]])


def answer_sentence(comparison: Comparison, act: str = "names the right diagnosis") -> str:
    """The answer of a comparison in one sentence."""
    overall, verdict = comparison.overall, comparison.verdict
    least = "at least " if overall.undecided else ""
    start = (
        f"On {overall.n:,} unseen cases {comparison.second} {act} in "
        f"{least}{percent(overall.second_accuracy)}, {comparison.first} in {least}{percent(overall.first_accuracy)}"
        f"{_bounds_only(overall)}: "
    )
    bounds = f"95% interval {points(overall.low)} to {points(overall.high)}; McNemar p {p_value(overall.p_exact)}"
    if verdict == "gain":
        return f"{start}a gain of {points(overall.difference)} points ({bounds})."
    if verdict == "loss":
        return f"{start}a loss of {points(overall.difference)} points ({bounds})."
    return f"{start}a gain is not shown ({points(overall.difference)} points; {bounds})."


def answer_sentence_zh(comparison: Comparison) -> str:
    """The same in Chinese."""
    overall = comparison.overall
    word = {"gain": "提高", "loss": "下降", "not shown": "未显示出确切差异："}[comparison.verdict]
    rate = "正确率的下限" if overall.undecided else "正确率"
    left = f"（规则无法判定 {percent(overall.undecided / (overall.n or 1))} 的病例对）" if overall.undecided else ""
    return (
        f"在 {overall.n} 个未见病例上，{comparison.second} 的{rate}为 {percent(overall.second_accuracy)}，"
        f"{comparison.first} 为 {percent(overall.first_accuracy)}{left}，{word} {points(overall.difference)} 个百分点"
        f"（95% 区间 {points(overall.low)} 至 {points(overall.high)}；McNemar p {p_value(overall.p_exact)}）。"
    )


def _bounds_only(overall: PairedResult) -> str:
    if not overall.undecided:
        return ""
    share = percent(overall.undecided / (overall.n or 1))
    return f" (lower bounds: the rules left {share} of the pairs undecided, and no judge was asked)"


def undecided_sentence(*models: Metrics) -> str:
    """That figures are lower bounds, and how much is undecided; empty where they are accuracies."""
    parts = [
        f"{percent(rate.undecided_share)} of the answers of {metrics.model}{judge}"
        for metrics in models
        for rate, judge in ((metrics.overall, ""), (metrics.overall.independent, " under the independent judge"))
        if rate is not None and rate.undecided
    ]
    if not parts:
        return ""
    return (
        f"The rules could not read {', '.join(parts)}, and no judge was asked about them. They count as not right, so "
        "what rests on them is a lower bound of the share of right answers, not that share."
    )


def second_opinion(comparison: Comparison) -> str:
    """What the independent judge says of the same answers."""
    other = comparison.independent
    if other is not None and other.n == 0:
        return "An independent judge was asked but graded no pair: nothing counts as shown."
    if other is None:
        return "No independent judge was asked: the figures rest on the judge that also paid the reward."
    numbers = f"{points(other.difference)} points, 95% interval {points(other.low)} to {points(other.high)}"
    if other.undecided:
        numbers += f"; of lower bounds, {percent(other.undecided / (other.n or 1))} of the pairs undecided"
    if comparison.overall.sign == other.sign:
        return f"An independent judge that training never saw agrees ({numbers})."
    return f"An independent judge that training never saw does not confirm this ({numbers}): it counts as not shown."


def model_sentence(metrics: Metrics) -> str:
    """What one evaluation says."""
    overall = metrics.overall
    if metrics.points_alone:
        return _points_sentence(metrics)
    least = "at least " if overall.undecided else ""
    sentence = (
        f"{metrics.model} is right in {least}{percent(overall.share)} of {overall.n - overall.unscored:,} judged "
        f"answers to {metrics.cases:,} cases of {metrics.benchmark} (95% interval {interval(*overall.interval)})."
    )
    return f"{sentence} {_lower_bound(overall)}".rstrip()


def _points_sentence(metrics: Metrics) -> str:
    rubric = metrics.rubric
    assert rubric is not None
    failed = f"; {rubric.unscored} could not be graded" if rubric.unscored else ""
    return (
        f"{metrics.model} earns {percent(rubric.mean)} of the points of the rubrics of {metrics.benchmark} (95% "
        f"interval {interval(rubric.low, rubric.high)}; {rubric.n:,} answers to {metrics.cases:,} cases, graded by a "
        f"model{failed})."
    )


def _lower_bound(overall: Accuracy) -> str:
    if not overall.undecided:
        return ""
    share = percent(overall.undecided_share)
    return f"That is a lower bound: the rules left {share} of the answers undecided, and no judge was asked."


def model_sentence_zh(metrics: Metrics) -> str:
    """The same in Chinese."""
    overall = metrics.overall
    if (rubric := metrics.rubric) is not None and metrics.points_alone:
        return (
            f"{metrics.model} 在 {metrics.benchmark} 的 {metrics.cases} 个病例上作答，"
            f"按评分细则得到 {percent(rubric.mean)} 的分数"
            f"（95% 区间 {interval(rubric.low, rubric.high)}；{rubric.n} 个答案由模型评分，"
            f"{rubric.unscored} 个未能评分）。"
        )
    return (
        f"{metrics.model} 在 {metrics.benchmark} 的 {metrics.cases} 个病例上作答，"
        f"{overall.n - overall.unscored} 个已评判的答案中"
        f"{'正确率的下限' if overall.undecided else '正确率'}为 {percent(overall.share)}"
        f"（95% 区间 {interval(*overall.interval)}）。"
        + (f"规则无法判定其中 {percent(overall.undecided_share)}，且未询问评判模型。" if overall.undecided else "")
    )
