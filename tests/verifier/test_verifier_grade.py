"""The ICD-10 level that a wrong diagnosis shares with the reference."""

import pytest

from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import near_miss


@pytest.mark.parametrize(
    ("answer", "language", "level"),
    [
        ("The most likely diagnosis is myocardial infarction.", "en", "block"),  # I21 and I20: ischaemic heart diseases
        ("最可能的诊断是 心肌梗死。", "zh", "block"),
        ("The most likely diagnosis is unstable angina.", "en", "category"),
        ("The most likely diagnosis is gout.", "en", None),
        ("The diagnosis is not myocardial infarction.", "en", None),
        ("The most likely diagnosis is something unheard of.", "en", None),
    ],
)
def test_levels(answer: str, language, level: str | None) -> None:
    item = Judgement(question="...", reference="unstable angina", answer=answer, language=language, icd10="I20.0")
    assert near_miss(item) == level
