"""Two models on the same cases: paired difference, McNemar, Holm over strata, and what the sample size could show."""

from collections.abc import Sequence

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.evaluation.measure.credit import CREDIT, Coder
from clinical_r1.evaluation.measure.metrics import Judge, is_undecided, shown_right, strata
from clinical_r1.evaluation.measure.resampling import MeanDifference, difference_interval, sign_flip
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Pairs, holm, mcnemar, minimum_detectable_effect, pair_up, paired_interval
from clinical_r1.strict import Strict


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
    of, a, b = [by_id[case_id] for case_id, _ in left], list(left.values()), [right[key] for key in left]
    clustered = len({case.unit for case in of}) < len(of)
    by = {
        axis: {
            name: paired([of[i] for i in own], [a[i] for i in own], [b[i] for i in own], clustered=clustered)
            for name, own in groups.items()
        }
        for axis, groups in strata(of).items()
    }
    for results in by.values():
        for result, adjusted in zip(results.values(), holm([r.p_exact for r in results.values()]), strict=True):
            result.p_holm = adjusted
    coder, credits = Coder(cases), []
    for case, x, y in zip(of, a, b, strict=True):
        before, after = coder.level(case, x, x.verdict), coder.level(case, y, y.verdict)
        if before is not None and after is not None:
            credits.append((case, CREDIT[before], CREDIT[after]))
    has_independent = any(item.independent for item in a) and any(item.independent for item in b)
    return Comparison(
        first=names[0],
        second=names[1],
        overall=paired(of, a, b),
        independent=paired(of, a, b, "independent") if has_independent else None,
        credit=MeanDifference.of(credits) if credits else None,
        by=by,
        clustered=clustered,
    )


def result_of(pairs: Pairs) -> PairedResult:
    """The result of a table of pairs that are independent of each other and all decided."""
    interval, n = paired_interval(pairs), pairs.n or 1
    return PairedResult(
        n=pairs.n,
        unscored=0,
        **pairs._asdict(),
        first_accuracy=(pairs.both + pairs.first_only) / n,
        second_accuracy=(pairs.both + pairs.second_only) / n,
        difference=pairs.difference,
        low=interval.low,
        high=interval.high,
        p_exact=mcnemar(pairs.first_only, pairs.second_only, "exact"),
        p_mid=mcnemar(pairs.first_only, pairs.second_only, "mid-p"),
        minimum_detectable=minimum_detectable_effect(pairs.n, max(pairs.discordance, 0.05)),
    )


def paired(
    cases: Sequence[Case],
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    judge: Judge = "reward",
    clustered: bool | None = None,
) -> PairedResult:
    """Paired result of aligned lists; `clustered` where patients or samples repeat, here or in what these are of."""
    known = [
        (case, x, y, is_undecided(before, judge), is_undecided(after, judge))
        for case, before, after in zip(cases, first, second, strict=True)
        if (x := shown_right(before, judge)) is not None and (y := shown_right(after, judge)) is not None
    ]
    left, right = [x for _, x, *_ in known], [y for _, _, y, *_ in known]
    result = result_of(pair_up(left, right))
    result.unscored = len(cases) - result.n
    result.undecided = sum(a or b for *_, a, b in known)
    if result.undecided:
        # Ends of the interval if every undecided answer were right on one side and wrong on the other, either way.
        against = pair_up([x or a for _, x, _, a, _ in known], right)
        in_favour = pair_up(left, [y or b for _, _, y, _, b in known])
        result.extremes = paired_interval(against).low, paired_interval(in_favour).high
    units = [case.unit for case, *_ in known]
    if known and (len({case.unit for case in cases}) < len(cases) if clustered is None else clustered):
        differences = [int(y) - int(x) for x, y in zip(left, right, strict=True)]
        result.low, result.high = difference_interval(differences, [case.specialty for case, *_ in known], units)
        result.p_exact, result.p_mid = sign_flip(differences, units)
    return result


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
            rows.append((case, a, b))
    if not rows:
        raise UserError("no answer of both evaluations was graded by its rubric; evaluate again with a judge")
    return MeanDifference.of(rows)
