"""References that are lists: grading by principal, any and all, and F1 over the list."""

import pytest

from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.judgement import Grading, Judgement
from clinical_r1.verifier.names import Names
from clinical_r1.verifier.rule import RuleVerifier, list_f1, stated_diagnoses

REFERENCE = "1.肺炎 2.2型糖尿病"


@pytest.mark.parametrize(
    ("answer", "principal", "any_of", "all_of"),
    [
        ("诊断为肺炎。", True, True, False),
        ("最终诊断：肺炎", True, True, False),
        ("诊断为2型糖尿病。", False, True, False),
        ("最终诊断：1. 肺炎 2. 2型糖尿病", True, True, True),
        ("最终诊断：肺炎；2型糖尿病", True, True, True),
        ("最终诊断：肺炎、2型糖尿病", True, True, True),
        ("最终诊断：2型糖尿病、肺炎", False, True, True),
        ("诊断：\n1. 肺炎\n2. 2型糖尿病", True, True, True),
        ("最终诊断：肺炎、胃癌", False, False, False),
        ("最终诊断：1. 胃癌 2. 肺炎", False, False, False),
        ("最终诊断：肺炎或2型糖尿病", False, False, False),
        ("最终诊断：肺炎待排、2型糖尿病", False, False, False),
        ("不考虑肺炎。", False, False, False),
        ("、", False, False, False),
        ("肺炎？2型糖尿病？", False, False, False),
    ],
)
def test_grading(answer: str, principal: bool, any_of: bool, all_of: bool) -> None:
    gradings: tuple[tuple[Grading, bool], ...] = (("principal", principal), ("any", any_of), ("all", all_of))
    for grading, right in gradings:
        verdict = RuleVerifier(grading=grading).judge_sync(Judgement("q", REFERENCE, answer, "zh"))
        assert (verdict.label is VerdictLabel.CORRECT) is right, (grading, verdict)


def test_english_lists_too() -> None:
    item = Judgement(
        "q", "Pneumonia", "Final diagnosis: Pneumonia; type 2 diabetes", "en", references=("Pneumonia", "T2DM")
    )
    assert RuleVerifier(grading="all").judge_sync(item).label is VerdictLabel.CORRECT


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        ("最终诊断：肺炎、高血压", ["肺炎", "高血压"]),
        ("Final diagnosis:\n1. Pneumonia\n2. Hypertension\n\nBecause.", ["Pneumonia", "Hypertension"]),
        ("The most likely diagnosis is pneumonia.", ["pneumonia"]),
        ("最终诊断：肺炎？", []),
        ("Final diagnosis: pneumonia or gout", []),
    ],
)
def test_stated_diagnoses(answer: str, stated: list[str]) -> None:
    assert stated_diagnoses(answer) == stated


def test_f1_counts_each_reference_once_and_the_right_category_half() -> None:
    names, references, codes = Names(), ["肺炎", "2型糖尿病"], ["", ""]
    assert list_f1(["肺炎", "2型糖尿病"], references, codes, names) == 1.0
    assert list_f1(["肺炎"], references, codes, names) == pytest.approx(2 / 3)
    assert list_f1(["肺炎", "社区获得性肺炎"], ["肺炎"], [""], names) == pytest.approx(2 / 3)
    assert list_f1(["不稳定型心绞痛"], ["心绞痛"], [""], names) == pytest.approx(0.5)
    assert list_f1(["胃癌"], references, codes, names) == 0.0
    assert list_f1([], references, codes, names) == 0.0
