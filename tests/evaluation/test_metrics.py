"""What counts as right, wrong and unscored; strata; comparisons."""

import pytest
from invented_run import make_cases, make_prediction, make_predictions

from clinical_r1.errors import UserError
from clinical_r1.evaluation.measure.compare import compare
from clinical_r1.evaluation.measure.credit import chapter
from clinical_r1.evaluation.measure.metrics import measure
from clinical_r1.page import sentence
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.stats import Pairs, paired_interval


def test_empty_outputs_stay_in_the_denominator(cases):
    rows = [make_prediction(case, True) for case in cases]
    empty = make_prediction(cases[0], False)
    rows[0] = empty.model_copy(update={"output": "", "response": "", "thinking": "", "outcome": Outcome.NO_ANSWER})
    metrics = measure(cases, rows)
    assert metrics.overall.n == len(cases)
    assert metrics.overall.accuracy == pytest.approx((len(cases) - 1) / len(cases))
    assert metrics.abstained == 1
    assert metrics.outcomes["no_answer"] == 1
    assert sum(metrics.outcomes.values()) == len(cases)


def test_failed_judgements_are_unscored_with_bounds(cases):
    rows = [make_prediction(case, None if i < 14 else i % 2 == 0) for i, case in enumerate(cases)]
    overall = measure(cases, rows).overall
    assert (overall.n, overall.unscored, overall.correct) == (140, 14, 63)
    assert overall.accuracy == pytest.approx(63 / 126)
    assert overall.bounds == pytest.approx((63 / 140, 77 / 140))
    assert overall.bounds[0] < overall.accuracy < overall.bounds[1]


def undecided(case):
    row = make_prediction(case, False)
    return row.model_copy(update={"verdict": Verdict(label=VerdictLabel.UNDECIDED, judge="rule")})


def test_undecided_answers_make_a_lower_bound_and_no_accuracy(cases):
    rows = [undecided(case) if i < 35 else make_prediction(case, i % 3 == 0) for i, case in enumerate(cases)]
    metrics = measure(cases, rows)
    overall = metrics.overall
    assert overall.accuracy is None
    assert (overall.kind, overall.undecided, overall.undecided_share) == ("lower bound", 35, 0.25)
    assert overall.share == overall.lower_bound == pytest.approx(overall.correct / 140)
    assert overall.bounds == pytest.approx((overall.correct / 140, (overall.correct + 35) / 140))
    assert sum(group.undecided for group in metrics.by["specialty"].values()) == 35
    said, said_zh = sentence("model", metrics=metrics), sentence("model_zh", metrics=metrics)
    assert "lower bound: the rules left 25.0% of the answers undecided" in said
    assert "accuracy" not in said
    assert "下限" in said_zh
    assert sentence("undecided", models=[measure(cases, [make_prediction(case, True) for case in cases])]) == ""


def test_a_difference_of_lower_bounds_is_shown_only_where_no_verdict_could_undo_it(cases):
    """The rules read more of the second model's answers: that is no gain; right where the first is wrong is one."""
    first = [undecided(case) if i % 2 else make_prediction(case, True) for i, case in enumerate(cases)]
    second = [make_prediction(case, True) for case in cases]
    result = compare(cases, first, second)
    assert (result.overall.undecided, result.overall.unscored) == (70, 0)
    assert result.overall.low > 0
    assert result.verdict == "not shown"
    assert "lower bounds" in sentence("answer", comparison=result)
    wrong = [undecided(case) if i < 10 else make_prediction(case, False) for i, case in enumerate(cases)]
    assert compare(cases, wrong, second).verdict == "gain"
    assert compare(cases, second, wrong).verdict == "loss"


def test_strata_add_up(cases):
    metrics = measure(cases, make_predictions(cases, 0.6, seed=1))
    for axis in ("specialty", "language", "icd10_chapter", "sex", "age_band", "site"):
        assert sum(group.n for group in metrics.by[axis].values()) == len(cases)
        assert sum(group.correct for group in metrics.by[axis].values()) == metrics.overall.correct
    assert len(metrics.by["specialty"]) == 7


def test_repeated_patients_get_a_cluster_interval():
    cases = make_cases(140, patients=30)
    overall = measure(cases, make_predictions(cases, 0.6, seed=1)).overall
    assert overall.cluster_low is not None
    assert overall.cluster_low < overall.accuracy < overall.cluster_high
    assert measure(make_cases(140), make_predictions(make_cases(140), 0.6, 1)).overall.cluster_low is None


def test_majority_vote_is_clustered_by_patient():
    cases = make_cases(140, patients=30)
    rows = [make_prediction(case, int(case.patient[1:]) % 3 != 0, sample=k) for case in cases for k in range(2)]
    majority = measure(cases, rows).majority
    assert majority.n == 140 and majority.cluster_low is not None
    assert majority.effective < 100
    alone = make_cases(140)
    rows = [make_prediction(case, True, sample=k) for case in alone for k in range(2)]
    assert measure(alone, rows).majority.cluster_low is None


def test_gap_between_the_judges(cases):
    rows = [make_prediction(case, True, independent=i % 2 == 0) for i, case in enumerate(cases)]
    metrics = measure(cases, rows)
    assert metrics.judge_gap == pytest.approx(0.5)
    assert metrics.judge_agreement == pytest.approx(0.5)
    assert metrics.overall.independent.accuracy == pytest.approx(0.5)


def test_samples_give_pass_at_k_and_a_vote(cases):
    rows = [make_prediction(case, (i + k) % 4 != 0, sample=k) for i, case in enumerate(cases) for k in range(4)]
    metrics = measure(cases, rows)
    assert metrics.samples == 4
    assert metrics.pass_at == pytest.approx({1: 0.75, 2: 1.0, 4: 1.0})
    assert metrics.majority.accuracy == 1.0
    assert metrics.calibration["n"] == len(cases)
    assert metrics.overall.cluster_low is not None, "four answers to a case are not four cases"


def test_predictions_and_cases_must_belong_together(cases):
    rows = make_predictions(cases, 0.5, 1)
    with pytest.raises(UserError, match="no such case"):
        measure(cases[1:], rows)
    with pytest.raises(UserError, match="1 of 140 cases have none"):
        measure(cases, rows[1:])
    with pytest.raises(UserError, match="same cases"):
        compare(cases, rows, rows[1:])


@pytest.mark.parametrize(
    ("code", "expected"),
    [("J18.9", "X"), ("D48", "II"), ("D50.9", "III"), ("H59", "VII"), ("H60.1", "VIII"), ("Z99", "XXI"),
     ("U07.1", "XXII"), ("V01", "XX"), ("", "unknown"), ("abc", "unknown")],
)  # fmt: skip
def test_chapter_of_a_code(code, expected):
    assert chapter(code) == expected


def test_comparison_finds_a_gain_and_its_reverse():
    cases = make_cases(600)
    low, high = make_predictions(cases, 0.5, 1), make_predictions(cases, 0.62, 2)
    gain, loss = compare(cases, low, high), compare(cases, high, low)
    assert (gain.verdict, loss.verdict) == ("gain", "loss")
    assert gain.overall.difference == pytest.approx(-loss.overall.difference)
    assert gain.overall.p_exact == pytest.approx(loss.overall.p_exact)
    assert gain.overall.n == 600
    assert gain.overall.both + gain.overall.first_only + gain.overall.second_only + gain.overall.neither == 600
    for result in gain.by["specialty"].values():
        assert result.p_holm >= result.p_exact
        assert result.minimum_detectable > gain.overall.minimum_detectable


def test_a_gain_that_only_the_reward_judge_sees_is_not_shown():
    cases = make_cases(600)
    first = make_predictions(cases, 0.5, 1)
    second = [
        after.model_copy(update={"independent": before.independent})
        for before, after in zip(first, make_predictions(cases, 0.65, 2), strict=True)
    ]
    result = compare(cases, first, second)
    assert result.overall.low > 0
    assert result.verdict == "not shown"


def test_an_independent_judge_that_graded_nothing_confirms_nothing():
    cases = make_cases(600)
    failed = Verdict(label=VerdictLabel.INVALID, judge="llm:other")
    first, second = (
        [row.model_copy(update={"independent": failed}) for row in make_predictions(cases, share, seed)]
        for share, seed in ((0.5, 1), (0.65, 2))
    )
    result = compare(cases, first, second)
    assert (result.overall.sign, result.independent.n, result.verdict) == (1, 0, "not shown")
    assert "graded no pair" in sentence("second_opinion", comparison=result)


def test_interval_and_exact_test_must_both_exclude_zero():
    cases = make_cases(60)
    first = [make_prediction(case, not 7 <= i < 24) for i, case in enumerate(cases)]
    second = [make_prediction(case, not i < 7) for i, case in enumerate(cases)]
    result = compare(cases, first, second)
    assert result.overall.low > 0 and result.overall.p_exact > 0.05
    assert result.verdict == "not shown"


def test_repeated_patients_without_a_difference_are_no_certainty():
    cases = make_cases(40, patients=10)
    same = [make_prediction(case, True) for case in cases]
    alike = compare(cases, same, same).overall
    assert (alike.low, alike.high) == pytest.approx(paired_interval(Pairs(10, 0, 0, 0)))
    better = compare(cases, [make_prediction(case, False) for case in cases], same).overall
    assert (better.low, better.high) == pytest.approx(paired_interval(Pairs(0, 0, 10, 0)))


def test_pairs_without_a_verdict_on_one_side_are_counted_apart(cases):
    first = make_predictions(cases, 0.5, 1)
    second = [make_prediction(case, None if i < 10 else True) for i, case in enumerate(cases)]
    result = compare(cases, first, second)
    assert (result.overall.n, result.overall.unscored) == (130, 10)


def test_comparison_of_repeated_patients_uses_the_bootstrap():
    cases = make_cases(280, patients=40)
    result = compare(cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.62, 2))
    assert result.clustered
    assert result.overall.low < result.overall.difference < result.overall.high
