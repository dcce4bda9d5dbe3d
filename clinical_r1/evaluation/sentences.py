"""What a comparison or an evaluation says, in one sentence with its interval; in English and Chinese."""

from clinical_r1.evaluation.compare import Comparison
from clinical_r1.evaluation.metrics import Metrics
from clinical_r1.evaluation.page import interval, p_value, percent, points


def answer_sentence(comparison: Comparison, act: str = "names the right diagnosis") -> str:
    """The answer of a comparison in one sentence."""
    overall, verdict = comparison.overall, comparison.verdict
    start = (
        f"On {overall.n:,} unseen cases {comparison.second} {act} in "
        f"{percent(overall.second_accuracy)}, {comparison.first} in {percent(overall.first_accuracy)}: "
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
    return (
        f"在 {overall.n} 个未见病例上，{comparison.second} 的正确率为 {percent(overall.second_accuracy)}，"
        f"{comparison.first} 为 {percent(overall.first_accuracy)}，{word} {points(overall.difference)} 个百分点"
        f"（95% 区间 {points(overall.low)} 至 {points(overall.high)}；McNemar p {p_value(overall.p_exact)}）。"
    )


def second_opinion(comparison: Comparison) -> str:
    """What the independent judge says of the same answers."""
    other = comparison.independent
    if other is not None and other.n == 0:
        return "An independent judge was asked but graded no pair: nothing counts as shown."
    if other is None:
        return "No independent judge was asked: the figures rest on the judge that also paid the reward."
    numbers = f"{points(other.difference)} points, 95% interval {points(other.low)} to {points(other.high)}"
    if comparison.overall.sign == other.sign:
        return f"An independent judge that training never saw agrees ({numbers})."
    return f"An independent judge that training never saw does not confirm this ({numbers}): it counts as not shown."


def model_sentence(metrics: Metrics) -> str:
    """What one evaluation says."""
    overall = metrics.overall
    return (
        f"{metrics.model} is right in {percent(overall.accuracy)} of {overall.n - overall.unscored:,} judged answers "
        f"to {metrics.cases:,} cases of {metrics.benchmark} (95% interval {interval(*overall.interval)})."
    )


def model_sentence_zh(metrics: Metrics) -> str:
    """The same in Chinese."""
    overall = metrics.overall
    return (
        f"{metrics.model} 在 {metrics.benchmark} 的 {metrics.cases} 个病例上作答，"
        f"{overall.n - overall.unscored} 个已评判的答案中"
        f"正确率为 {percent(overall.accuracy)}（95% 区间 {interval(*overall.interval)}）。"
    )
