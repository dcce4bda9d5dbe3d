"""Accuracy and reasoning of one model, overall and for each stratum, from its judged predictions.

Counting rules: every prediction stays in the denominator, empty ones included (they are wrong answers, not missing
data); only a *failed judgement* is left out of the accuracy, is counted as unscored, and widens `bounds`, which say
what the accuracy would be if all unscored answers were wrong, or right. An answer that the rules could not read, and no
judge was asked about, is *undecided*: the share of answers that are right is then not known, only a lower bound of it,
and there is no accuracy to report.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.measure.credit import (
    Coder,
    Level,
    ListF1,
    PartialCredit,
    RubricMetrics,
    chapter,
    mean_list_f1,
    partial_credit,
    rubric_metrics,
)
from clinical_r1.evaluation.measure.resampling import mean_interval
from clinical_r1.evaluation.measure.samples import calibrate, pass_at_k, votes
from clinical_r1.reasoning import Outcome
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction, Verdict, VerdictLabel
from clinical_r1.stats import Interval, effective_n, minimum_detectable_effect, wilson

Judge = Literal["reward", "independent"]


class Scored(NamedTuple):
    """A case with what one model said to it."""

    case: Case
    prediction: Prediction


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
    calibration: dict[str, object] | None = None
    """Agreement of samples read as confidence: bins, ece, brier; only with several samples."""
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


def join(cases: Iterable[Case], predictions: Iterable[Prediction]) -> list[Scored]:
    """Match predictions to cases. Raises UserError for a prediction of an unknown case and for a case without one."""
    by_id = {case.id: case for case in cases}
    scored = []
    for prediction in predictions:
        if prediction.case_id not in by_id:
            raise UserError(
                f"prediction of case {prediction.case_id}: no such case in the case file; "
                "evaluate again with the same cases"
            )
        scored.append(Scored(by_id[prediction.case_id], prediction))
    missing = len(by_id) - len({item.case.id for item in scored})
    if missing:
        raise UserError(
            f"predictions: {missing} of {len(by_id)} cases have none; "
            "evaluate again with the same state folder to add them"
        )
    return scored


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


def accuracy(right: Sequence[bool | None], cases: Sequence[Case] = (), undecided: int = 0) -> Accuracy:
    """Count right answers; None is an unscored one, and `undecided` of the False ones are not known to be wrong. With
    the aligned cases the interval is also the bootstrap's, where a patient (or a case) occurs more than once."""
    n, correct = len(right), sum(item is True for item in right)
    unscored = sum(item is None for item in right)
    known = n - unscored
    low, high = wilson(correct, known)
    clustered = _by_patient(right, cases)
    share = correct / known if known else 0.0
    return Accuracy(
        n=n,
        correct=correct,
        unscored=unscored,
        undecided=undecided,
        accuracy=None if undecided else share,
        lower_bound=share if undecided else None,
        low=low,
        high=high,
        bounds=(correct / n, (correct + unscored + undecided) / n) if n else (0.0, 1.0),
        cluster_low=clustered.low if clustered else None,
        cluster_high=clustered.high if clustered else None,
    )


def top(predictions: Sequence[Prediction], cases: Sequence[Case]) -> Accuracy:
    """Accuracy where an answer that lists diagnoses is right if one of them is; one without a list, as it stands."""
    right, undecided = [], 0
    for prediction in predictions:
        verdicts = prediction.ranked or [verdict for verdict in (prediction.verdict,) if verdict is not None]
        labels = {verdict.label for verdict in verdicts}
        open_ = VerdictLabel.CORRECT not in labels and VerdictLabel.UNDECIDED in labels
        failed = VerdictLabel.CORRECT not in labels and (VerdictLabel.INVALID in labels or not labels)
        undecided += open_ and not failed
        right.append(None if failed else VerdictLabel.CORRECT in labels)
    return accuracy(right, cases, undecided)


def _by_patient(right: Sequence[bool | None], cases: Sequence[Case]) -> Interval | None:
    if len({case.unit for case in cases}) == len(cases):
        return None
    kept = [(float(hit), case) for hit, case in zip(right, cases, strict=True) if hit is not None]
    return mean_interval([hit for hit, _ in kept], [case.specialty for _, case in kept], [c.unit for _, c in kept])


def group(items: Sequence[Scored], levels: Sequence[Level | None] | None = None) -> Group:
    """The numbers of one stratum; `levels` are the aligned nearnesses of partial credit."""
    predictions = [item.prediction for item in items]
    right = [shown_right(prediction) for prediction in predictions]
    cases = [item.case for item in items]
    keys = [case.unit for case in cases]
    base = rated(predictions, cases)
    has_independent = any(item.prediction.independent is not None for item in items)
    placed = [(level, item.case.specialty, key) for level, item, key in zip(levels or (), items, keys, strict=True)
              if level is not None] if levels else []  # fmt: skip
    n = len(items) or 1
    return Group(
        **base.model_dump(),
        independent=rated(predictions, cases, "independent") if has_independent else None,
        reasoning_rate=sum(item.prediction.outcome is Outcome.OK for item in items) / n,
        mean_reasoning_tokens=sum(item.prediction.reasoning_tokens for item in items) / n,
        partial=partial_credit(*map(list, zip(*placed, strict=True))) if placed else None,
        minimum_detectable=minimum_detectable_effect(
            len({key for key, hit in zip(keys, right, strict=True) if hit is not None}), DISCORDANCE
        ),
    )


def measure(cases: Sequence[Case], predictions: Sequence[Prediction], model: str = "", benchmark: str = "") -> Metrics:
    """All metrics of one model on one set of cases; raises UserError where the two do not belong together."""
    items = join(cases, predictions)
    if not items:
        raise UserError(f"{benchmark or 'cases'}: no case to evaluate; give a non-empty case file")
    coder = Coder(cases)
    levels = [coder.level(item.case, item.prediction, item.prediction.verdict) for item in items]
    by = {axis: _strata(items, levels, key) for axis, key in AXES.items()}
    outcomes = dict.fromkeys((str(outcome) for outcome in Outcome), 0)
    for item in items:
        outcomes[item.prediction.outcome] += 1
    gap, agreement = _judges(items)
    metrics = Metrics(
        model=model,
        benchmark=benchmark,
        cases=len(cases),
        samples=max(item.prediction.sample for item in items) + 1,
        overall=group(items, levels),
        by=by,
        outcomes=outcomes,
        abstained=sum(not item.prediction.response for item in items),
        judge_gap=gap,
        judge_agreement=agreement,
        rubric=rubric_metrics(items),
        list_f1=mean_list_f1(
            [item.case for item in items], [item.prediction for item in items], [item.case.unit for item in items]
        ),
    )
    if any(item.prediction.ranked for item in items):
        metrics.top = top([item.prediction for item in items], [item.case for item in items])
    if metrics.samples > 1:
        _add_samples(metrics, items)
    return metrics


def _strata(items: Sequence[Scored], levels: Sequence[Level | None], key: Callable[[Case], str]) -> dict[str, Group]:
    strata: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        strata.setdefault(key(item.case), []).append(index)
    return {
        name: group([items[i] for i in members], [levels[i] for i in members])
        for name, members in sorted(strata.items())
    }


def _judges(items: Sequence[Scored]) -> tuple[float | None, float | None]:
    both = [
        (reward, other)
        for item in items
        if (reward := is_right(item.prediction)) is not None
        and (other := is_right(item.prediction, "independent")) is not None
    ]
    if not both:
        return None, None
    gap = (sum(reward for reward, _ in both) - sum(other for _, other in both)) / len(both)
    return gap, sum(reward == other for reward, other in both) / len(both)


def _add_samples(metrics: Metrics, items: Sequence[Scored]) -> None:
    ballots = votes(item.prediction for item in items)
    full = [ballot for ballot in ballots if ballot.scored]
    most = min((ballot.scored for ballot in full), default=0)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= most]
    metrics.pass_at = {k: sum(pass_at_k(b.scored, b.correct, k) for b in full) / len(full) for k in ks}
    by_id = {item.case.id: item.case for item in items}
    metrics.majority = accuracy([ballot.majority for ballot in ballots], [by_id[ballot.case_id] for ballot in ballots])
    known = [ballot for ballot in ballots if ballot.majority is not None]
    table = calibrate([ballot.agreement for ballot in known], [bool(ballot.majority) for ballot in known])
    metrics.calibration = {
        "ece": table.ece,
        "brier": table.brier,
        "n": table.n,
        "bins": [b._asdict() for b in table.bins],
    }
