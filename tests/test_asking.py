"""What a model is asked: choices listed once, and the request that fits the question, in both languages."""

import pytest

from clinical_r1.asking import asks_for, problem
from clinical_r1.reasoning import conclusion_line
from clinical_r1.schema import Case


@pytest.mark.parametrize(
    "question",
    [
        "What is the most likely diagnosis based on these test results?",
        "Which condition best explains these findings?",
        "A 60-year-old man with a red, swollen toe.",  # a record to diagnose
        "Impression: ? TB. Fever? No. Lungs clear.",  # a question mark in a record asks nothing
        "He drinks. What disease does this patient have? Answer in a word.",
        "Name the diagnosis.",
        "患者，男，50岁，足趾红肿。",
        "该患者最可能的诊断是什么？",
        "考虑为什么病？",
        "请给出诊断及依据。",
    ],
)
def test_a_diagnosis_is_asked_for(question: str) -> None:
    assert asks_for(question) == "diagnosis"


@pytest.mark.parametrize(
    "question",
    [
        "Which drug treats this condition best?",
        "What diagnostic test would confirm the disease?",
        "A boy with meningitis. Which organism is responsible for the condition?",
        "What is the next step in management?",
        "Which test confirms the diagnosis?",
        "What is the gold standard for diagnosis?",
        "该患者首选的治疗药物是什么？",
        "下一步应做哪项检查？",
    ],
)
def test_another_thing_is_asked_for(question: str) -> None:
    assert asks_for(question) == "answer"


def test_choices_are_listed_once_and_always_want_an_answer() -> None:
    case = Case(language="en", question="Is it gout or lupus?", reference="gout", options=["gout", "lupus"])
    assert case.problem == "Is it gout or lupus?\n\nA. gout\nB. lupus"
    assert problem(case.problem, case.options) == case.problem
    assert problem("Which?\n(A) gout\n(B) lupus", case.options) == "Which?\n(A) gout\n(B) lupus"
    assert case.prompt.endswith("Final answer: ... (the letter)")


@pytest.mark.parametrize(("language", "label"), [("en", "Final diagnosis:"), ("zh", "最终诊断：")])
def test_the_prompt_is_the_problem_and_one_request(language: str, label: str) -> None:
    case = Case(language=language, question="A 60-year-old man.", reference="gout")  # type: ignore[arg-type]
    question, request = case.prompt.rsplit("\n\n", 1)
    assert question == case.problem
    assert label in request
    assert conclusion_line(f"It is gout.\n{label} gout") == "gout"
