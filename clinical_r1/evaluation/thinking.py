"""Accuracy against the thinking budget: how much thought do right answers need?

One pass: the answers are there, each with its whole thought. For a budget, longer thoughts are closed there, as the
gateway closes them (`Splitter.close`), and only the answer is generated again; shorter ones keep their answer and
verdict. So all points of the curve are of the same cases and paired, and a point differs from the whole thoughts only
where it cut. What is measured is this model with less of its own thought, not one trained to think less.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from clinical_r1.charts import Series, line_chart
from clinical_r1.errors import Strict
from clinical_r1.evaluation.answer import LocalAnswerer, asked
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import sample_of
from clinical_r1.evaluation.judging.judge import judge_predictions
from clinical_r1.evaluation.measure.compare import PairedResult, paired
from clinical_r1.evaluation.measure.metrics import AXES, Accuracy, rated
from clinical_r1.llm.journal import Entry, open_journal
from clinical_r1.page import interval, percent, points
from clinical_r1.progress import progress
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Usage

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
        verdicts: tuple[Literal["not shown", "shown", "reversed"], ...] = ("not shown", "shown", "reversed")
        return verdicts[self.half.sign]

    def sentence(self) -> str:
        """The claim beside what was measured."""
        whole, half = self._shares()
        return (
            f"The paper says that longer reasoning gives better diagnoses. Here, on {self.half.n:,} cases, whole "
            f"thoughts (median {self.median} tokens) are followed by the right answer in {whole}, the same thoughts "
            f"closed at half of that median in {half}: {points(self.half.difference)} points for the longer "
            f"(95% interval {points(self.half.low)} to {points(self.half.high)}): {self.claim}."
        )

    def sentence_zh(self) -> str:
        """The same in Chinese."""
        whole, half = self._shares("至少 ")
        word = {"shown": "得到证实", "not shown": "未得到证实", "reversed": "结果相反"}[self.claim]
        return (
            f"论文称推理越长，诊断越准。在 {self.half.n} 个病例上，完整推理（中位数 {self.median} 个词元）"
            f"之后的正确率为 {whole}，同样的推理在中位数一半处截断后为 {half}：较长者相差 "
            f"{points(self.half.difference)} 个百分点"
            f"（95% 区间 {points(self.half.low)} 至 {points(self.half.high)}）：{word}。"
        )

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
                {
                    "budget": point.budget,
                    "cut": point.cut,
                    "unanswered": point.unanswered,
                    "all": _rate(point.overall),
                    **{axis: {name: _rate(rate) for name, rate in point.by[axis].items()} for axis in GROUPS},
                }
                for point in self.points
            ],
        }

    def _shares(self, least: str = "at least ") -> tuple[str, str]:
        least = least if self.half.undecided else ""
        return least + percent(self.half.second_accuracy), least + percent(self.half.first_accuracy)

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

    @property
    def rows(self) -> list[tuple[str, str, list[str]]]:
        """For a table: (axis, stratum, "share (interval)" of each point)."""
        told = [("", "all", [_told(point.overall) for point in self.points])]
        for axis in GROUPS:
            for name in self.points[-1].by[axis] if len(self.points[-1].by[axis]) > 1 else ():
                told.append((axis, name, [_told(point.by[axis][name]) for point in self.points]))
        return told


def _rate(rate: Accuracy) -> dict[str, float]:
    return {rate.kind.replace(" ", "_"): rate.share, "low": rate.interval.low, "high": rate.interval.high, "n": rate.n}


def _told(rate: Accuracy) -> str:
    return f"{percent(rate.share)} ({interval(*rate.interval)})"


class CutRow(NamedTuple):
    """One answer behind a closed thought."""

    whole: Prediction
    budget: int


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
    budgets = budgets_of(lengths)
    rows = [CutRow(row, budget) for budget in budgets for row in whole if _reaches(row, budget)]
    cut = _answered(config, model_folder, drawn, rows, state_dir)
    judged = _judged(config, drawn, rows, cut, state_dir)
    answers = {(row.whole.case_id, row.budget): prediction for row, prediction in zip(rows, judged, strict=True)}
    points = [_point(drawn, [answers.get((row.case_id, b), row) for row in whole], b, whole) for b in budgets]
    half = max(budget for budget in budgets if budget <= median(lengths) / 2)
    return Curve(
        cases=len(drawn),
        median=int(median(lengths)),
        points=[*points, _point(drawn, whole, None, whole)],
        half=_paired(drawn, [answers.get((row.case_id, half), row) for row in whole], whole),
        recommended=next((point.budget for point in points if _harmless(point)), None),
    )


def _answered(
    config: EvaluationConfig,
    model_folder: Path,
    cases: Sequence[Case],
    rows: Sequence[CutRow],
    state_dir: Path,
) -> list[Prediction]:
    by_id = {case.id: case for case in cases}
    known = [config.weights, config.decoding.fields(), config.seed]
    done: dict[int, Prediction] = {}
    with open_journal(state_dir) as journal:
        keys = [
            journal.call_key(json.dumps([*known, asked(config, by_id[row.whole.case_id]), row.whole.output]).encode(),
                             "cut-thought-1", row.budget) for row in rows
        ]  # fmt: skip
        for index, key in enumerate(keys):
            if (entry := journal.get(key)) is not None:
                done[index] = Prediction.model_validate_json(entry.text)
        todo = [index for index in range(len(rows)) if index not in done]
        answerer = LocalAnswerer(config, model_folder) if todo else None
        with progress("answers behind cut thoughts", len(rows), len(done)) as advance:
            for batch in _batches(rows, todo, config.batch_rows):
                assert answerer
                of, whole = [by_id[rows[i].whole.case_id] for i in batch], [rows[i].whole for i in batch]
                made = answerer.go_on(of, whole, rows[batch[0]].budget)
                done |= dict(zip(batch, made, strict=True))
                journal.append_now(
                    (keys[i], Entry(row.model_dump_json(), config.model_name, "stop",
                                    Usage(completion_tokens=row.answer_tokens)), case.unit)
                    for i, row, case in zip(batch, made, of, strict=True)
                )  # fmt: skip
                advance(len(batch))
    return [done[index] for index in range(len(rows))]


def _batches(rows: Sequence[CutRow], todo: Sequence[int], most: int) -> Iterator[list[int]]:
    """Positions that share a budget."""
    for _, same in groupby(todo, key=lambda index: rows[index].budget):
        while batch := list(islice(same, most)):
            yield batch


def _judged(
    config: EvaluationConfig,
    cases: Sequence[Case],
    rows: Sequence[CutRow],
    cut: Sequence[Prediction],
    state_dir: Path,
) -> list[Prediction]:
    """Under the reward judge; an answer that is the whole thought's to the letter has its verdict."""
    same = [row.whole.verdict if p.response == row.whole.response else None for row, p in zip(rows, cut, strict=True)]
    new = [prediction for prediction, verdict in zip(cut, same, strict=True) if verdict is None]
    label = "verdicts behind cut thoughts"
    verdicts = iter(judge_predictions(config.reward_judge, cases, new, state_dir, config.judge_concurrency, label))
    return [
        prediction.model_copy(update={"verdict": verdict or next(verdicts), "independent": None, "sample": 0})
        for prediction, verdict in zip(cut, same, strict=True)
    ]


def _point(cases: Sequence[Case], rows: Sequence[Prediction], budget: int | None, whole: Sequence[Prediction]) -> Point:
    by: dict[str, dict[str, Accuracy]] = {}
    for axis in GROUPS:
        members: dict[str, list[int]] = {}
        for index, case in enumerate(cases):
            members.setdefault(AXES[axis](case), []).append(index)
        by[axis] = {
            name: rated([rows[i] for i in own], [cases[i] for i in own]) for name, own in sorted(members.items())
        }
    n = len(rows)
    return Point(
        budget=budget,
        cut=sum(row.outcome is Outcome.UNCLOSED if budget is None else _reaches(row, budget) for row in whole) / n,
        unanswered=sum(not row.response for row in rows) / n,
        mean_tokens=sum(row.reasoning_tokens for row in rows) / n,
        overall=rated(rows, cases),
        by=by,
        difference=None if budget is None else _paired(cases, whole, rows),
    )


def _reaches(row: Prediction, budget: int) -> bool:
    return bool(row.thinking) and row.reasoning_tokens > budget


def _paired(cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction]) -> PairedResult:
    return paired(cases, first, second, clustered=len({case.unit for case in cases}) < len(cases))


def _harmless(point: Point) -> bool:
    low = point.difference.low if point.difference else -1.0
    return low > -MARGIN and not (point.difference and point.difference.undecided)
