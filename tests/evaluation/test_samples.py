"""Several samples of a case: pass@k, votes, calibration."""

from itertools import combinations

import pytest
from invented_run import make_cases, make_prediction

from clinical_r1.evaluation.measure.credit import answer_key
from clinical_r1.evaluation.measure.metrics import calibrate, pass_at_k, votes


@pytest.mark.parametrize(("n", "correct", "k"), [(5, 2, 1), (5, 2, 3), (8, 0, 4), (8, 8, 2), (6, 1, 6)])
def test_pass_at_k_counts_subsets(n, correct, k):
    subsets = list(combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k must be"):
        pass_at_k(3, 1, 4)


@pytest.mark.parametrize(
    "text",
    ["Pneumonia", "The diagnosis is pneumonia.", "**Pneumonia**", "Most likely diagnosis: Pneumonia\nas ..."],
)
def test_answer_key_sees_through_wording(text):
    assert answer_key(text) == "pneumonia"


def test_answer_key_in_chinese():
    assert answer_key("最可能的诊断是肺炎。") == answer_key("诊断：肺炎") == "肺炎"


def test_votes_take_the_most_frequent_answer():
    case = make_cases(1)[0]
    rows = [make_prediction(case, right, sample=i) for i, right in enumerate([False, True, True])]
    (vote,) = votes(rows)
    assert vote.majority is True
    assert vote.agreement == pytest.approx(2 / 3)
    assert (vote.n, vote.correct, vote.scored) == (3, 2, 3)


def test_empty_answers_are_dissent_and_failed_judgements_are_unknown():
    case = make_cases(1)[0]
    empty = make_prediction(case, False).model_copy(update={"response": ""})
    (vote,) = votes([empty, empty.model_copy(update={"sample": 1})])
    assert vote.majority is False
    assert vote.agreement == 0.0
    (vote,) = votes([make_prediction(case, None)])
    assert vote.majority is None


def test_calibration_of_a_calibrated_and_an_overconfident_model():
    fair = calibrate([(0.75, i % 4 != 0) for i in range(400)])
    assert fair["ece"] == pytest.approx(0)
    bold = calibrate([(1.0, i % 2 == 0) for i in range(400)])
    assert bold["ece"] == pytest.approx(0.5)
    assert bold["brier"] == pytest.approx(0.5)
