"""Two models on the same cases: paired difference, McNemar, Holm over strata, and what the sample size could show."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.measure.credit import CREDIT, Coder
from clinical_r1.evaluation.measure.metrics import AXES, Judge, is_undecided, shown_right
from clinical_r1.evaluation.measure.resampling import MeanDifference, difference_interval, sign_flip
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import (
    Pairs,
    holm,
    mcnemar,
    minimum_detectable_effect,
    pair_up,
    paired_interval,
)

METHODS: tuple[Literal["exact"], Literal["mid-p"]] = ("exact", "mid-p")


class PairedResult(Strict):
    """The paired comparison on one set of cases; differences are second minus first."""

    n: int
    """Pairs that both sides had scored."""
    unscored: int
    """Pairs left out because a judgement failed on one side."""
    undecided: int = 0
    """Pairs with an answer that the rules could not read, counted as not right: shares and difference are then of
    lower bounds, and say nothing certain of accuracies."""
    extremes: tuple[float, float] | None = None
    """Where pairs are undecided: lower end of the interval if they all spoke against the second, upper if for it."""
    both: int
    first_only: int
    second_only: int
    neither: int
    first_accuracy: float
    second_accuracy: float
    difference: float
    low: float
    high: float
    """95% interval: Tango's score interval, or the cluster bootstrap where patients or samples repeat."""
    p_exact: float
    """McNemar's exact test; its form for clusters (signs flip by patient) where patients or samples repeat."""
    p_mid: float
    """McNemar's mid-p test."""
    p_holm: float | None = None
    """Exact p adjusted for the strata of one axis."""
    minimum_detectable: float
    """Smallest true difference that this n shows with 80% power, at the discordance seen (at least 5%)."""

    @property
    def pairs(self) -> Pairs:
        return Pairs(self.both, self.first_only, self.second_only, self.neither)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero and the exact p is below 0.05 (at the edge they differ), else 0.
        With undecided pairs only where it does so however they might have been decided."""
        low, high = self.extremes or (self.low, self.high)
        return ((low > 0) - (high < 0)) if self.p_exact < 0.05 else 0


class Comparison(Strict):
    """A paired comparison overall and by stratum, under both judges."""

    first: str
    second: str
    overall: PairedResult
    independent: PairedResult | None = None
    """The same under the independent judge: a gain that it does not share is not shown."""
    credit: MeanDifference | None = None
    """Second metric: partial credit under the reward judge; None where no reference has a code."""
    by: dict[str, dict[str, PairedResult]] = Field(default_factory=dict)
    """Axis -> stratum -> result; p values are adjusted after Holm within each axis."""
    clustered: bool = False
    """Whether patients or samples repeat: intervals are then the cluster bootstrap's, and p flips signs by patient."""

    @property
    def verdict(self) -> str:
        """gain | loss | not shown: interval and exact p exclude zero, and the independent judge, if any, agrees."""
        sign = self.overall.sign
        if self.independent is not None and self.independent.sign != sign:
            return "not shown"
        return {1: "gain", -1: "loss", 0: "not shown"}[sign]


def compare(
    cases: Sequence[Case],
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    names: tuple[str, str] = ("first", "second"),
    axes: Sequence[str] = tuple(AXES),
) -> Comparison:
    """Compare two models case by case. Raises UserError unless both predicted the same cases and samples."""
    by_id = {case.id: case for case in cases}
    left = {(item.case_id, item.sample): item for item in first}
    right = {(item.case_id, item.sample): item for item in second}
    if left.keys() != right.keys() or not {case for case, _ in left} <= by_id.keys():
        raise UserError(
            f"{names[0]} and {names[1]}: predictions are not of the same cases and samples; "
            "evaluate both on one case file before comparing them"
        )
    keys = list(left)
    of = [by_id[case_id] for case_id, _ in keys]
    a, b = [left[key] for key in keys], [right[key] for key in keys]
    units = [case.unit for case in of]
    clustered = len(set(units)) < len(units)
    strata = {
        axis: {
            name: paired(of, a, b, "reward", clustered, [index for index, case in enumerate(of) if key(case) == name])
            for name in sorted({key(case) for case in of})
        }
        for axis, key in AXES.items()
        if axis in axes
    }
    for results in strata.values():
        for result, adjusted in zip(results.values(), holm([r.p_exact for r in results.values()]), strict=True):
            result.p_holm = adjusted
    has_independent = any(item.independent for item in a) and any(item.independent for item in b)
    return Comparison(
        first=names[0],
        second=names[1],
        overall=paired(of, a, b, "reward", clustered),
        independent=paired(of, a, b, "independent", clustered) if has_independent else None,
        credit=_credit(cases, of, a, b),
        by=strata,
        clustered=clustered,
    )


def _credit(
    cases: Sequence[Case], of: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction]
) -> MeanDifference | None:
    coder = Coder(cases)
    rows = []
    for case, a, b in zip(of, first, second, strict=True):
        levels = coder.level(case, a, a.verdict), coder.level(case, b, b.verdict)
        if levels[0] is not None and levels[1] is not None:
            rows.append((CREDIT[levels[0]], CREDIT[levels[1]], case.specialty, case.unit))
    return MeanDifference.of(rows) if rows else None


def result_of(pairs: Pairs) -> PairedResult:
    """The result of a table of pairs that are independent of each other and all decided."""
    interval, n = paired_interval(pairs), pairs.n or 1
    p_exact, p_mid = (mcnemar(pairs.first_only, pairs.second_only, method) for method in METHODS)
    return PairedResult(
        n=pairs.n,
        unscored=0,
        **pairs._asdict(),
        first_accuracy=(pairs.both + pairs.first_only) / n,
        second_accuracy=(pairs.both + pairs.second_only) / n,
        difference=pairs.difference,
        low=interval.low,
        high=interval.high,
        p_exact=p_exact,
        p_mid=p_mid,
        minimum_detectable=minimum_detectable_effect(pairs.n, max(pairs.discordance, 0.05)),
    )


def paired(
    cases: Sequence[Case],
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    judge: Judge = "reward",
    clustered: bool = False,
    indices: Sequence[int] | None = None,
) -> PairedResult:
    """Paired result of aligned lists, optionally of some positions only."""
    chosen = range(len(cases)) if indices is None else indices
    known = [(i, x, y) for i in chosen if (x := shown_right(first[i], judge)) is not None
             and (y := shown_right(second[i], judge)) is not None]  # fmt: skip
    open_ = [(is_undecided(first[i], judge), is_undecided(second[i], judge)) for i, _, _ in known]
    undecided = sum(a or b for a, b in open_)
    result = result_of(pair_up([x for _, x, _ in known], [y for _, _, y in known]))
    result.unscored = len(chosen) - result.n
    if undecided:
        result.undecided = undecided
        result.extremes = _extremes([(x, y) for _, x, y in known], open_)
    if clustered and known:
        differences = [float(y) - float(x) for _, x, y in known]
        units = [cases[i].unit for i, _, _ in known]
        result.low, result.high = difference_interval(differences, [cases[i].specialty for i, _, _ in known], units)
        result.p_exact, result.p_mid = sign_flip([int(d) for d in differences], units)
    return result


def _extremes(pairs: Sequence[tuple[bool, bool]], open_: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Ends of the interval if every undecided answer were right on one side and wrong on the other, either way."""
    against = pair_up([x or a for (x, _), (a, _) in zip(pairs, open_, strict=True)], [y for _, y in pairs])
    in_favour = pair_up([x for x, _ in pairs], [y or b for (_, y), (_, b) in zip(pairs, open_, strict=True)])
    return paired_interval(against).low, paired_interval(in_favour).high


def rubric_difference(
    cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction]
) -> MeanDifference:
    """The paired difference of points; UserError where the two are not of the same cases, or none was graded."""
    by_id = {case.id: case for case in cases}
    right = {(row.case_id, row.sample): row.rubric for row in second}
    if {(row.case_id, row.sample) for row in first} != right.keys():
        raise UserError("the two evaluations are not of the same cases and samples; evaluate both on one file")
    rows = []
    for row in first:
        case, other = by_id[row.case_id], right[row.case_id, row.sample]
        a, b = (score.share(case.rubric) if score else None for score in (row.rubric, other))
        if a is not None and b is not None:
            rows.append((a, b, case.specialty, case.unit))
    if not rows:
        raise UserError("no answer of both evaluations was graded by its rubric; evaluate again with a judge")
    return MeanDifference.of(rows)
