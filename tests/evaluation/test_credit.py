"""Partial credit: what an answer earns by its ICD-10 distance, and its difference between two models."""

import pytest
from invented_run import make_cases, make_prediction

from clinical_r1.evaluation.measure.compare import compare
from clinical_r1.evaluation.measure.credit import CREDIT, Coder, partial_credit
from clinical_r1.evaluation.measure.metrics import measure
from clinical_r1.schema import Case

CASE = Case(language="en", question="Cough and fever. Diagnosis?", reference="Pneumonia", icd10="J18.9")


def level(response: str, right: bool | None = False, case: Case = CASE) -> str | None:
    prediction = make_prediction(case, right).model_copy(update={"response": response})
    return Coder([case]).level(case, prediction, prediction.verdict)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Pneumonia, unspecified organism (J18.1)", "category"),
        ("Pneumonia (ICD-10 J15.9)", "block"),
        ("Asthma", "chapter"),
        ("The most likely diagnosis is asthma.", "chapter"),
        ("Acute appendicitis", "other"),
        ("The diagnosis is not pneumonia.", "unplaced"),
        ("Something that nobody has named", "unplaced"),
        ("", "unplaced"),
    ],
)
def test_a_wrong_answer_earns_by_its_distance(response, expected):
    assert level(response) == expected


def test_right_answers_earn_all_and_failed_judgements_nothing_is_said_of():
    assert level("Pneumonia", True) == "right"
    assert level("Pneumonia", None) is None
    assert level("Asthma", case=CASE.model_copy(update={"icd10": "", "references": ["A disease of no name"]})) is None


def test_chinese_names_are_known_from_the_cases():
    cases = [
        Case(language="zh", question="甲", reference="肺炎", icd10="J18.9"),
        Case(language="zh", question="乙", reference="支气管哮喘", icd10="J45.9"),
    ]
    prediction = make_prediction(cases[0], False).model_copy(update={"response": "诊断为支气管哮喘。"})
    assert Coder(cases).level(cases[0], prediction, prediction.verdict) == "chapter"


def test_mean_and_counts():
    cases = [CASE.model_copy(update={"id": name}) for name in "abcd"]
    got = partial_credit(list(zip(cases, ("right", "right", "block", "other"), strict=True)))
    assert got.mean == pytest.approx((2 + CREDIT["block"]) / 4)
    assert got.levels["right"] == 2
    assert got.low <= got.mean <= got.high


def test_lists_are_held_against_all_of_the_reference_and_shown(tmp_path):
    from clinical_r1.evaluation.pages.report import write_evaluation

    listed = Case(language="zh", question="发热。诊断？", references=["肺炎", "2型糖尿病"], icd10="J18.9")
    single = Case(language="zh", question="咳嗽。诊断？", references=["哮喘"])
    said = ["最终诊断：肺炎；2型糖尿病", "最终诊断：肺炎", "最终诊断：胃癌", "不能确定。"]
    rows = [
        make_prediction(listed, False).model_copy(update={"response": response, "sample": sample})
        for sample, response in enumerate(said)
    ]
    measured = measure([listed, single], [*rows, make_prediction(single, True)], "ours", "wards")
    assert measured.list_f1 is not None
    assert (measured.list_f1.n, measured.list_f1.unread) == (4, 1)
    assert measured.list_f1.mean == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    page = write_evaluation(measured, tmp_path).read_text(encoding="utf-8")
    assert "F1 over lists of diagnoses" in page and "41.7%" in page
    alone = measure([single], [make_prediction(single, True)], "ours", "wards")
    assert alone.list_f1 is None
    assert "F1 over lists" not in write_evaluation(alone, tmp_path).read_text(encoding="utf-8")


def test_metrics_and_comparison_carry_it():
    cases = make_cases(140)
    wrong = [make_prediction(case, False) for case in cases]
    near = [
        row.model_copy(update={"response": f"X (ICD-10 {case.icd10[:3]}.0)"})
        for case, row in zip(cases, wrong, strict=True)
    ]
    assert measure(cases, near).overall.partial.mean > 0.6
    assert measure(cases, wrong).overall.accuracy == measure(cases, near).overall.accuracy == 0
    credit = compare(cases, wrong, near).credit
    assert credit.low > 0.5
    assert credit.difference == pytest.approx(credit.second - credit.first)
