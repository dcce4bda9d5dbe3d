"""The detector of hallucinated reasoning on single sentences, and its precision and recall on seeded corruptions."""

import json
import random
from pathlib import Path

import pytest

from clinical_r1.evaluation.grounding import check, hallucination_rate, score
from clinical_r1.lexicon.findings import mentions
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction

SHARED = Path(__file__).parents[3] / "shared" / "data"


def case(question: str, language: str = "en", reference: str = "Pneumonia") -> Case:
    return Case(language=language, question=question, reference=reference)


def said(of: Case, thinking: str, response: str = "Pneumonia") -> Prediction:
    return Prediction(case_id=of.id, output="", thinking=thinking, response=response, outcome=Outcome.OK)


ENGLISH = case(
    "A 63-year-old man has had cough and fever of 38.5 °C for 12 days, no chest pain. Troponin normal. Diagnosis?"
)
CHINESE = case("患者，男，63岁，咳嗽、发热12天，无胸痛。肌钙蛋白 正常。诊断是什么？", "zh", "肺炎")


@pytest.mark.parametrize(
    ("thinking", "kinds"),
    [
        ("Fever and cough at 63 years suggest an infection.", []),
        ("The patient also has jaundice.", ["finding"]),
        ("He has chest pain.", ["denied_finding"]),
        ("There is no jaundice and he denies headache.", []),
        ("Seizure control and pain management matter. Berlin’s edema comes to mind.", []),
        ("In hepatitis we would expect jaundice. Typically vomiting follows.", []),
        ("If he had hemoptysis, tuberculosis could be likely.", []),
        ("Jaundice is absent.", []),
        ("This 82-year-old man has a cough.", ["number"]),
        ("He has coughed for 30 days.", ["number"]),
        ("The man is 81, and he coughs.", ["number"]),
        ("He has coughed for about 11 days.", []),
        ("He has coughed for about 30 days.", ["number"]),
        ("12 plus 3 equals 15, so at 15 days he is well.", []),
        ("That makes 11.6 days. He has coughed for approximately 11.6 days.", ["number"]),
        ("12 plus 3 equals 15. He has coughed for 15 days.", []),
        ("Fever is usual above 38 °C, so 38.5 °C counts.", []),
        ("Troponin raised speaks for infarction.", ["result"]),
        ("Troponin normal speaks against infarction.", []),
    ],
)
def test_english_claims(thinking, kinds):
    assert [flag.kind for flag in check(ENGLISH, said(ENGLISH, thinking))] == kinds


@pytest.mark.parametrize(
    ("thinking", "kinds"),
    [
        ("咳嗽、发热提示感染。", []),
        ("患者还有黄疸。", ["finding"]),
        ("患者有胸痛。", ["denied_finding"]),
        ("无黄疸，否认头痛。", []),
        ("肝炎通常有黄疸。", []),
        ("82岁男性，咳嗽。", ["number"]),
        ("血尿酸 升高，无助于判断。", []),
        ("肌钙蛋白 升高 支持 心肌梗死。", ["result"]),
        ("需要排除系统性红斑狼疮和偏头痛。", []),
    ],
)
def test_chinese_claims(thinking, kinds):
    assert [flag.kind for flag in check(CHINESE, said(CHINESE, thinking, "肺炎"))] == kinds


def test_a_narrower_word_for_what_the_case_says_is_no_invention():
    belly = case("A woman with abdominal pain and vomiting.")
    assert check(belly, said(belly, "She has epigastric pain.")) == []
    assert [mention.key for mention in mentions("epigastric pain")] == ["epigastric pain"]


def test_thought_and_answer_that_disagree():
    names = ["Pneumonia", "Pulmonary embolism"]
    flags = check(ENGLISH, said(ENGLISH, "Cough and fever. So pulmonary embolism fits best.", "Pneumonia"), names)
    assert [flag.kind for flag in flags] == ["conclusion"]
    assert (
        check(ENGLISH, said(ENGLISH, "So not pulmonary embolism. So pneumonia fits best.", "Pneumonia."), names) == []
    )


def simulated(count: int) -> tuple[list[Case], list[Prediction]]:
    teacher = pytest.importorskip("clinical_r1.simulator.teacher")
    world = pytest.importorskip("clinical_r1.simulator.world")
    rng, cases, predictions = random.Random(3), [], []
    for index in range(count):
        language = ("en", "zh")[index % 2]
        drawn = world.sample_case(rng, language)
        written = teacher.attempt(drawn.chart, "careful", rng)
        cases.append(case(drawn.question, language, drawn.reference))
        predictions.append(said(cases[-1], written.reasoning, teacher.response(language, written.answer)))
    return cases, predictions


def test_precision_and_recall_on_seeded_corruptions():
    cases, predictions = simulated(120)
    total = score(cases, predictions)["all"]
    assert total.corrupted > 200
    assert total.precision >= 0.9
    assert total.recall >= 0.8
    flagged, n = hallucination_rate(cases, predictions)
    assert n == 120
    assert flagged / n < 0.1


def test_precision_and_recall_on_real_chains():
    """198 chains written by a large model; findings and numbers changed by seed. Clean chains may err by themselves."""
    path = SHARED / "huatuogpt_o1_demo_198.json"
    if not path.is_file():
        pytest.skip("../shared/data is absent")
    cases, predictions = [], []
    for row in json.loads(path.read_text(encoding="utf-8")):
        cases.append(case(row["Open-ended Verifiable Question"], "en", row["Ground-True Answer"]))
        predictions.append(said(cases[-1], row["Complex_CoT"], row["Response"]))
    scores = score(cases, predictions)
    assert scores["finding"].recall >= 0.9
    assert scores["number"].recall >= 0.8
    assert scores["finding"].precision >= 0.85
