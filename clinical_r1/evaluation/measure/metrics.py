"""Accuracy and reasoning of one model, overall and for each stratum, from its judged predictions.

Counting rules: every prediction stays in the denominator, empty ones included (they are wrong answers, not missing
data); only a *failed judgement* is left out of the accuracy, is counted as unscored, and widens `bounds`, which say
what the accuracy would be if all unscored answers were wrong, or right. An answer that the rules could not read, and no
judge was asked about, is *undecided*: the share of answers that are right is then not known, only a lower bound of it,
and there is no accuracy to report.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.evaluation.measure.credit import (
    Coder,
    Level,
    ListF1,
    PartialCredit,
    RubricMetrics,
    answer_key,
    chapter,
    mean_list_f1,
    partial_credit,
    rubric_metrics,
)
from clinical_r1.evaluation.measure.resampling import mean_interval
from clinical_r1.reasoning import Outcome
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction, Verdict, VerdictLabel
from clinical_r1.stats import Interval, effective_n, minimum_detectable_effect, wilson
from clinical_r1.strict import Strict

Judge = Literal["reward", "independent"]
Scored = tuple[Case, Prediction]
"""A case with what one model said to it."""


class Accuracy(Strict):
    """A share of right answers with its uncertainty."""

    n: int
    """All predictions, unscored ones included."""
    correct: int
    unscored: int
    """Predictions whose judgement failed."""
    undecided: int = 0
    """Predictions that the rules could not read and that no judge was asked about."""
    accuracy: float | None
    """correct / (n - unscored); 0.0 where nothing was scored; None where answers are undecided."""
    lower_bound: float | None = None
    """The same share where answers are undecided, none of which counts as right."""
    low: float
    high: float
    """95% Wilson interval of accuracy or lower bound over the scored predictions."""
    bounds: tuple[float, float]
    """The share if all unscored and undecided answers were wrong, and if all were right."""
    cluster_low: float | None = None
    cluster_high: float | None = None
    """95% bootstrap interval, resampled by patient (or by case with several samples) within specialties; None where
    every prediction is its own cluster and the Wilson interval says it all."""

    @property
    def share(self) -> float:
        """Accuracy or lower bound, whichever is known: for charts and arithmetic; `kind` says what it may be called."""
        return (self.lower_bound or 0.0) if self.accuracy is None else self.accuracy

    @property
    def kind(self) -> str:
        """What the share is."""
        return "accuracy" if self.accuracy is not None else "lower bound"

    @property
    def undecided_share(self) -> float:
        """Share of all predictions."""
        return self.undecided / self.n if self.n else 0.0

    @property
    def effective(self) -> float:
        """Independent answers that would say as much as the scored ones: fewer where patients or samples repeat."""
        return effective_n(self.share, self.n - self.unscored, self.interval)

    @property
    def interval(self) -> Interval:
        """The interval to show: by patient where patients (or samples) repeat, else Wilson's."""
        if self.cluster_low is None or self.cluster_high is None:
            return Interval(self.low, self.high)
        return Interval(self.cluster_low, self.cluster_high)


class Group(Accuracy):
    """One stratum."""

    independent: Accuracy | None = None
    """The same under the independent judge."""
    reasoning_rate: float
    """Share of outputs with one closed, non-empty thought and an answer."""
    mean_reasoning_tokens: float
    partial: PartialCredit | None = None
    """ICD-10-aware partial credit under the reward judge; None where no reference has a code."""
    minimum_detectable: float = 1.0
    """Smallest paired difference to another model that this many patients show with 80% power at 20% discordance."""


class Metrics(Strict):
    """Everything that one evaluation says about one model."""

    model: str
    weights: str = ""
    """SHA-256 of the model's files that decide its text; empty for a model behind an endpoint."""
    benchmark: str
    cases: int
    samples: int
    """Samples of each case."""
    overall: Group
    by: dict[str, dict[str, Group]]
    """Axis (specialty, language, icd10_chapter, sex, age_band, site) -> stratum -> numbers."""
    outcomes: dict[str, int]
    """Count of every reasoning outcome."""
    decoding: Sampling | None = None
    """How the answers were drawn."""
    abstained: int = 0
    """Predictions without any answer."""
    judge_gap: float | None = None
    """Accuracy under the reward judge minus accuracy under the independent one, on what both scored."""
    judge_agreement: float | None = None
    """Share of predictions on which both judges agree, of those both scored."""
    rubric: RubricMetrics | None = None
    """Points by rubric; only for cases that have one."""
    top: Accuracy | None = None
    """Share of answers with the right diagnosis at any of the places that were asked for; None for one conclusion."""
    pass_at: dict[int, float] = Field(default_factory=dict)
    """k -> mean chance that one of k samples is right; only with several samples."""
    majority: Accuracy | None = None
    """Accuracy of the majority vote; only with several samples."""
    calibration: dict[str, Any] | None = None
    """Agreement of samples read as confidence (`calibrate`); only with several samples."""
    list_f1: ListF1 | None = None
    """F1 of the stated diagnoses, ICD-10-aware; None where no reference is a list."""
    notes: list[str] = Field(default_factory=list)

    @property
    def points_alone(self) -> bool:
        """Is there no right and wrong, but points by rubric?"""
        return self.rubric is not None and self.overall.unscored == self.overall.n


DISCORDANCE = 0.2
"""Share of cases on which two models are assumed to differ, where only one of them is known."""

AXES: dict[str, Callable[[Case], str]] = {
    "specialty": lambda case: case.specialty or "unknown",
    "language": lambda case: case.language,
    "icd10_chapter": lambda case: chapter(case.icd10),
    "sex": lambda case: case.sex or "unknown",
    "age_band": lambda case: case.age_band or "unknown",
    "site": lambda case: case.site or "unknown",
}


def strata(cases: Sequence[Case], axes: Iterable[str] = AXES) -> dict[str, dict[str, list[int]]]:
    """Axis -> stratum -> positions of its cases."""
    found: dict[str, dict[str, list[int]]] = {axis: defaultdict(list) for axis in axes}
    for axis, groups in found.items():
        for index, case in enumerate(cases):
            groups[AXES[axis](case)].append(index)
    return {axis: dict(sorted(groups.items())) for axis, groups in found.items()}


def verdict_of(prediction: Prediction, judge: Judge) -> Verdict | None:
    """The verdict of one of the two judges."""
    return prediction.verdict if judge == "reward" else prediction.independent


def is_right(prediction: Prediction, judge: Judge = "reward") -> bool | None:
    """Right, wrong, or None where there is no verdict: undecided, failed, or never asked for."""
    verdict = verdict_of(prediction, judge)
    return verdict.label.right if verdict is not None else None


def is_undecided(prediction: Prediction, judge: Judge = "reward") -> bool:
    """Did the rules leave it open, with no judge to ask?"""
    verdict = verdict_of(prediction, judge)
    return verdict is not None and verdict.label is VerdictLabel.UNDECIDED


def shown_right(prediction: Prediction, judge: Judge = "reward") -> bool | None:
    """As `is_right`, but an undecided answer counts as not shown to be right: what lower bounds are made of."""
    return False if is_undecided(prediction, judge) else is_right(prediction, judge)


def rated(predictions: Sequence[Prediction], cases: Sequence[Case], judge: Judge = "reward") -> Accuracy:
    """Accuracy, or its lower bound, of predictions and their aligned cases under one judge."""
    right = [shown_right(prediction, judge) for prediction in predictions]
    return accuracy(right, cases, sum(is_undecided(prediction, judge) for prediction in predictions))


def accuracy(right: Sequence[bool | None], cases: Sequence[Case], undecided: int = 0) -> Accuracy:
    """Count right answers; None is an unscored one, and `undecided` of the False ones are not known to be wrong. The
    interval is also the bootstrap's where a patient (or one of the aligned cases) occurs more than once."""
    n, correct = len(right), sum(item is True for item in right)
    known = [(float(hit), case) for hit, case in zip(right, cases, strict=True) if hit is not None]
    unscored = n - len(known)
    low, high = wilson(correct, len(known))
    share = correct / len(known) if known else 0.0
    found = Accuracy(
        n=n,
        correct=correct,
        unscored=unscored,
        undecided=undecided,
        accuracy=None if undecided else share,
        lower_bound=share if undecided else None,
        low=low,
        high=high,
        bounds=(correct / n, (correct + unscored + undecided) / n) if n else (0.0, 1.0),
    )
    if len({case.unit for case in cases}) < n:
        found.cluster_low, found.cluster_high = mean_interval(
            [hit for hit, _ in known], [case.specialty for _, case in known], [case.unit for _, case in known]
        )
    return found


def top(predictions: Sequence[Prediction], cases: Sequence[Case]) -> Accuracy:
    """Accuracy where an answer that lists diagnoses is right if one of them is; one without a list, as it stands."""
    right: list[bool | None] = []
    undecided = 0
    for prediction in predictions:
        verdicts = prediction.ranked or ([prediction.verdict] if prediction.verdict else [])
        labels = {verdict.label for verdict in verdicts}
        hit = VerdictLabel.CORRECT in labels
        failed = not hit and (VerdictLabel.INVALID in labels or not labels)
        undecided += not hit and not failed and VerdictLabel.UNDECIDED in labels
        right.append(None if failed else hit)
    return accuracy(right, cases, undecided)


def _group(items: Sequence[Scored], levels: Sequence[Level | None]) -> Group:
    """The numbers of one stratum; `levels` are the aligned nearnesses of partial credit."""
    cases, rows = [case for case, _ in items], [row for _, row in items]
    placed = [(case, level) for case, level in zip(cases, levels, strict=True) if level is not None]
    scored = {case.unit for case, row in items if shown_right(row) is not None}
    return Group(
        **rated(rows, cases).model_dump(),
        independent=rated(rows, cases, "independent") if any(row.independent is not None for row in rows) else None,
        reasoning_rate=fmean(row.outcome is Outcome.OK for row in rows),
        mean_reasoning_tokens=fmean(row.reasoning_tokens for row in rows),
        partial=partial_credit(placed) if placed else None,
        minimum_detectable=minimum_detectable_effect(len(scored), DISCORDANCE),
    )


def measure(cases: Sequence[Case], predictions: Sequence[Prediction], model: str = "", benchmark: str = "") -> Metrics:
    """All metrics of one model on one set of cases; raises UserError where the two do not belong together."""
    by_id = {case.id: case for case in cases}
    unknown = next((row.case_id for row in predictions if row.case_id not in by_id), None)
    if unknown is not None:
        raise UserError(
            f"prediction of case {unknown}: no such case in the case file; evaluate again with the same cases"
        )
    if missing := len(by_id) - len({row.case_id for row in predictions}):
        raise UserError(
            f"predictions: {missing} of {len(by_id)} cases have none; "
            "evaluate again with the same state folder to add them"
        )
    if not predictions:
        raise UserError(f"{benchmark or 'cases'}: no case to evaluate; give a non-empty case file")
    items = [(by_id[row.case_id], row) for row in predictions]
    asked, coder = [case for case, _ in items], Coder(cases)
    levels = [coder.level(case, row, row.verdict) for case, row in items]
    outcomes = Counter(row.outcome for row in predictions)
    both = [
        (reward, other)
        for row in predictions
        if (reward := is_right(row)) is not None and (other := is_right(row, "independent")) is not None
    ]
    metrics = Metrics(
        model=model,
        benchmark=benchmark,
        cases=len(cases),
        samples=max(row.sample for row in predictions) + 1,
        overall=_group(items, levels),
        by={
            axis: {name: _group([items[i] for i in own], [levels[i] for i in own]) for name, own in groups.items()}
            for axis, groups in strata(asked).items()
        },
        outcomes={str(outcome): outcomes[outcome] for outcome in Outcome},
        abstained=sum(not row.response for row in predictions),
        judge_gap=fmean(reward - other for reward, other in both) if both else None,
        judge_agreement=fmean(reward == other for reward, other in both) if both else None,
        rubric=rubric_metrics(items),
        list_f1=mean_list_f1(items),
        top=top(predictions, asked) if any(row.ranked for row in predictions) else None,
    )
    if metrics.samples > 1:
        ballots = votes(predictions)
        full = [ballot for ballot in ballots if ballot.scored]
        most = min((ballot.scored for ballot in full), default=0)
        ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= most]
        metrics.pass_at = {k: fmean(pass_at_k(one.scored, one.correct, k) for one in full) for k in ks}
        metrics.majority = accuracy([one.majority for one in ballots], [by_id[one.case_id] for one in ballots])
        known = [(one.agreement, one.majority) for one in ballots if one.majority is not None]
        metrics.calibration = calibrate(known)
    return metrics


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right, given `correct` of n were (Chen et al. 2021, eq. 1)."""
    if not 0 < k <= n:
        raise ValueError(f"k must be in 1..{n}, not {k}")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1 - k / i for i in range(n - correct + 1, n + 1))


class Vote(NamedTuple):
    """What the samples of one case say together."""

    case_id: str
    n: int
    correct: int
    scored: int
    majority: bool | None
    """Whether the majority answer is right; None where its judgement failed or nothing was answered."""
    agreement: float
    """Share of samples that gave the majority answer."""


def votes(predictions: Iterable[Prediction]) -> list[Vote]:
    """Majority vote of each case. Ties go to the answer that was sampled first. Empty answers count as dissent."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in sorted(predictions, key=lambda prediction: prediction.sample):
        groups[prediction.case_id].append(prediction)
    found = []
    for case_id, rows in groups.items():
        keys, labels = [answer_key(row.response) for row in rows], [is_right(row) for row in rows]
        majority: bool | None = False
        (winner, size), *_ = [*Counter(filter(None, keys)).most_common(1), ("", 0)]
        if winner:
            heard = (label for key, label in zip(keys, labels, strict=True) if key == winner and label is not None)
            majority = next(heard, None)
        known = [label for label in labels if label is not None]
        found.append(Vote(case_id, len(rows), sum(known), len(known), majority, size / len(rows)))
    return found


BINS = 10


def calibrate(known: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """How far confidence can be read as the probability of being right, from (confidence, right): `n`, `bins` of equal
    width, `ece` (Naeini 2015: mean gap of confidence and accuracy, weighted by cases), `brier`."""
    members: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in known:
        members[min(BINS - 1, int(confidence * BINS))].append((confidence, right))
    bins = [
        {"low": number / BINS, "high": (number + 1) / BINS, "n": len(group),
         "confidence": fmean(confidence for confidence, _ in group), "accuracy": fmean(right for _, right in group)}
        for number, group in sorted(members.items())
    ]  # fmt: skip
    return {
        "ece": sum(one["n"] / len(known) * abs(one["confidence"] - one["accuracy"]) for one in bins),
        "brier": fmean((confidence - right) ** 2 for confidence, right in known) if known else 0.0,
        "n": len(known),
        "bins": bins,
    }
