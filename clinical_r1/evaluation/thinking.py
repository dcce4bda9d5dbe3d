"""Accuracy against the thinking budget: how much thought do right answers need?

One pass: the answers are there, each with its whole thought. For a budget, longer thoughts are closed there, as the
gateway closes them (`Splitter.close`), and only the answer is generated again; shorter ones keep their answer and
verdict. So all points of the curve are of the same cases and paired, and a point differs from the whole thoughts only
where it cut. What is measured is this model with less of its own thought, not one trained to think less.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any, Literal

from markupsafe import Markup

from clinical_r1.charts import Series, line_chart
from clinical_r1.evaluation.answer import LocalAnswerer, Made, asked, generated
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import sample_of
from clinical_r1.evaluation.judging.judge import judge_predictions
from clinical_r1.evaluation.measure.compare import PairedResult, paired
from clinical_r1.evaluation.measure.metrics import Accuracy, rated, strata
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction
from clinical_r1.strict import Strict

GROUPS = ("language", "specialty")
LEAST = 20
"""Thoughts below which there is no curve."""
MARGIN = 0.02
"""A budget is recommended where the interval excludes a loss of more than this, overall and in no group shown."""


class Point(Strict):
    """The answers under one budget."""

    budget: int | None
    """Tokens that a thought may have; None: whole thoughts."""
    cut: float
    """Share of thoughts that reach the budget: without an answer asked for behind them, so many would be unclosed."""
    unanswered: float
    """Share without an answer, all the same."""
    mean_tokens: float
    """Of the thoughts."""
    overall: Accuracy
    by: dict[str, dict[str, Accuracy]]
    """Axis (language, specialty) -> stratum -> accuracy."""
    difference: PairedResult | None = None
    """This budget against whole thoughts; None for those themselves."""


class Curve(Strict):
    """Accuracy over the thinking budget on one set of cases, under the reward judge."""

    cases: int
    median: int
    """Tokens of the middle thought."""
    points: list[Point]
    """By growing budget; the last one is of the whole thoughts."""
    half: PairedResult
    """Whole thoughts against the same ones closed at half of the median."""
    recommended: int | None = None
    """The smallest budget that is shown to lose no more than MARGIN; None: none is."""

    @property
    def claim(self) -> Literal["shown", "not shown", "reversed"]:
        """What this says of the paper's claim that longer reasoning gives better diagnoses."""
        return "shown" if self.half.sign > 0 else "reversed" if self.half.sign else "not shown"

    def summary(self) -> dict[str, Any]:
        """For machines: the claim, and each point with its interval."""
        return {
            "claim": self.claim,
            "points_for_longer": 100 * self.half.difference,
            "low": 100 * self.half.low,
            "high": 100 * self.half.high,
            "cases": self.cases,
            "median_tokens": self.median,
            "recommended_budget": self.recommended,
            "budgets": [
                point.model_dump(include={"budget", "cut", "unanswered"})
                | {"all": _rate(point.overall)}
                | {axis: {name: _rate(rate) for name, rate in point.by[axis].items()} for axis in GROUPS}
                for point in self.points
            ],
        }

    def chart(self) -> Markup:
        """Accuracy over the budget, of all and of each language, and the share of thoughts cut."""
        shown = self.points
        last = max(point.budget or 0 for point in shown) * 1.15
        xs = [last if point.budget is None else float(point.budget) for point in shown]
        series = [Series("all", xs, [point.overall.share for point in shown], "accent")]
        languages = shown[-1].by["language"]
        for name, css in zip(languages if len(languages) > 1 else (), ("sft", "ppo"), strict=False):
            series.append(Series(name, xs, [point.by["language"][name].share for point in shown], css))
        return line_chart(series, percent=True, x_label="tokens of thought; last point: whole thoughts")


def _rate(rate: Accuracy) -> dict[str, float]:
    return {rate.kind.replace(" ", "_"): rate.share, "low": rate.interval.low, "high": rate.interval.high, "n": rate.n}


def budgets_of(lengths: Sequence[int]) -> list[int]:
    """Where to look: no thought, half of the median, and the quantiles of the lengths, so that each point cuts a known
    share."""
    quarters = quantiles(lengths, n=100, method="inclusive")
    at = [0, int(median(lengths) / 2), *(int(quarters[share - 1]) for share in (25, 50, 75, 90, 98))]
    return sorted({budget for budget in at if budget < max(lengths)})


def thinking_curve(
    config: EvaluationConfig,
    model_folder: Path,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    state_dir: Path,
) -> Curve | None:
    """The curve on at most `config.budget_cases` of the cases; None where too few of them think.

    `predictions` are judged. What was generated and judged before an interruption is not done again.
    """
    drawn = sample_of([case for case in cases if not case.rubric], config.budget_cases, config.seed)
    first = {row.case_id: row for row in predictions if row.sample == 0}
    whole = [first[case.id] for case in drawn]
    lengths = [row.reasoning_tokens for row in whole if row.thinking]
    if len(lengths) < LEAST:
        return None
    budgets, middle = budgets_of(lengths), median(lengths)
    cuts = [(case, row, b) for b in budgets for case, row in zip(drawn, whole, strict=True) if _reaches(row, b)]
    answers = _judged(config, drawn, cuts, _answered(config, model_folder, cuts, state_dir), state_dir)
    under = {b: [answers.get((row.case_id, b), row) for row in whole] for b in budgets}
    found = [_point(drawn, rows, budget, whole) for budget, rows in under.items()]
    harm = [(point.budget, point.difference) for point in found]
    return Curve(
        cases=len(drawn),
        median=int(middle),
        points=[*found, _point(drawn, whole, None, whole)],
        half=paired(drawn, under[max(budget for budget in budgets if budget <= middle / 2)], whole),
        recommended=next((budget for budget, d in harm if d and d.low > -MARGIN and not d.undecided), None),
    )


Cut = tuple[Case, Prediction, int]
"""A thought to be closed, and after how many tokens."""


def _answered(config: EvaluationConfig, model_folder: Path, cuts: Sequence[Cut], state_dir: Path) -> list[Prediction]:
    known = [config.weights, config.decoding.fields(), config.seed]

    def go_on(answerer: LocalAnswerer, batch: list[int]) -> list[Made]:
        return answerer.go_on([cuts[i][0] for i in batch], [cuts[i][1] for i in batch], cuts[batch[0]][2])

    requests = [([*known, asked(config, case), row.output], budget, case.unit) for case, row, budget in cuts]
    label = "answers behind cut thoughts"
    return generated(config, model_folder, label, "cut-thought-1", requests, go_on, state_dir, lambda i: cuts[i][2])


def _judged(
    config: EvaluationConfig, cases: Sequence[Case], cuts: Sequence[Cut], made: Sequence[Prediction], state_dir: Path
) -> dict[tuple[str, int], Prediction]:
    """The answers by case and budget, under the reward judge; one that is the whole thought's to the letter has its
    verdict."""
    same = [row.verdict if new.response == row.response else None for (_, row, _), new in zip(cuts, made, strict=True)]
    new = [prediction for prediction, verdict in zip(made, same, strict=True) if verdict is None]
    label = "verdicts behind cut thoughts"
    verdicts = iter(judge_predictions(config.reward_judge, cases, new, state_dir, config.judge_concurrency, label))
    return {
        (row.case_id, row.sample): row.model_copy(update={"verdict": verdict or next(verdicts), "sample": 0})
        for row, verdict in zip(made, same, strict=True)
    }


def _point(cases: Sequence[Case], rows: Sequence[Prediction], budget: int | None, whole: Sequence[Prediction]) -> Point:
    return Point(
        budget=budget,
        cut=fmean(row.outcome is Outcome.UNCLOSED if budget is None else _reaches(row, budget) for row in whole),
        unanswered=fmean(not row.response for row in rows),
        mean_tokens=fmean(row.reasoning_tokens for row in rows),
        overall=rated(rows, cases),
        by={
            axis: {name: rated([rows[i] for i in own], [cases[i] for i in own]) for name, own in groups.items()}
            for axis, groups in strata(cases, GROUPS).items()
        },
        difference=None if budget is None else paired(cases, whole, rows),
    )


def _reaches(row: Prediction, budget: int) -> bool:
    return bool(row.thinking) and row.reasoning_tokens > budget
