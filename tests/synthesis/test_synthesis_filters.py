"""Filters: what they catch, what they must let through, in both languages."""

from typing import Any

import pytest

from clinical_r1.schema import Attempt, Strategy, Trace, TraceOutcome, Verdict, VerdictLabel
from clinical_r1.simulator.world import sample_case
from clinical_r1.synthesis.filters import FILTERS, FilterConfig, first_objection
from clinical_r1.synthesis.text import numbers, ungrounded_numbers

CASE_EN = "A 54-year-old man, temperature 38.5, creatinine 2.10 mg/dL, 1,200 leukocytes, ill for 3 days."
CASE_ZH = "患者，男，５４岁，体温38.5℃，肌酐210μmol/L，病程3天。"


def trace(thinking: str, answer: str = "pneumonia", language: Any = "en", question: str = CASE_EN) -> Trace:
    verdict = Verdict(label=VerdictLabel.CORRECT, judge="x")
    return Trace(
        case_id="c",
        language=language,
        question=question,
        reference=answer,
        thinking=thinking,
        response="肺炎。" if language == "zh" else "It is pneumonia.",
        attempts=[Attempt(strategy=Strategy.INITIAL, reasoning="r", answer=answer, verdict=verdict)],
        outcome=TraceOutcome.DIRECT,
    )


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("repetition", trace("Let me look at the lungs again and again because the cough of this man may come from the "
                             "lungs or from the heart or the drugs. " * 5 + "So pneumonia.")),
        ("language_mixing", trace("Hmm, the fever 提示肺部感染，需要 考虑 the lung. So pneumonia.")),
        ("language_mixing", trace("嗯，the man has a fever and a cough that suggest 肺炎。", "肺炎", "zh", CASE_ZH)),
        ("language_mixing", trace("Hmm, fever and cough. So pneumonia.", "肺炎", "zh", CASE_ZH)),
        ("ungrounded_numbers", trace("His pulse of 131 and the sodium of 119 worry me. So pneumonia.")),
        ("ungrounded_numbers", trace("脉搏131次，血钠119，所以是肺炎。", "肺炎", "zh", CASE_ZH)),
        ("disagreement", trace("Hmm, fever, so something in the kidney. So pyelonephritis fits best.")),
        ("disagreement", trace("嗯，发热，所以肾盂肾炎最符合。", "肺炎", "zh", CASE_ZH)),
        ("hindsight", trace("Hmm. The reference answer is pneumonia, so pneumonia.")),
        ("hindsight", trace("嗯，参考答案是肺炎，所以肺炎。", "肺炎", "zh", CASE_ZH)),
    ],
)  # fmt: skip
def test_filter_objects_and_can_be_switched_off(name: str, bad: Trace) -> None:
    assert first_objection(bad, FilterConfig()) == name
    assert FILTERS[name](bad, FilterConfig())
    assert first_objection(bad, FilterConfig(**{name: False})) != name


@pytest.mark.parametrize(
    "good",
    [
        trace("Okay, 54 years, 38.5 degrees. Hmm, creatinine 2.1 is above the normal range of 0.7 to 1.3. "
              "Also 1200 leukocytes. Wait, three things fit. So pneumonia."),
        trace("好的，54岁，体温38.5℃，肌酐210，高于正常范围44～133。"
              "CT和MRI未做。等等，再看看，所以肺炎最符合。", "肺炎", "zh", CASE_ZH),
        trace("So pneumonia fits best."),
        trace("This all points to nitroglycerin.", "Nitroglycerine"),
        trace("Pain and ST elevation, so a heart attack fits best.", "Myocardial infarction"),
        trace("肌钙蛋白升高，心梗最符合。", "急性心肌梗死", "zh", CASE_ZH),
    ],
)  # fmt: skip
def test_ordinary_chains_pass(good: Trace) -> None:
    assert first_objection(good, FilterConfig()) == ""


def test_numbers_have_one_spelling_and_names_have_none() -> None:
    assert numbers("1,200 and 37.80, ３８．５, vitamin B12, CD4, T3, 007") == ["1200", "37.8", "38.5", "7"]


def test_arithmetic_on_the_case_is_grounded() -> None:
    assert ungrounded_numbers("From day 12 to day 40 are 28 days.", "Seen on day 12 and day 40.") == []
    assert ungrounded_numbers("That makes 77 days.", "Seen on day 12 and day 40.") == ["77"]


def test_length_bounds() -> None:
    assert first_objection(trace("So pneumonia."), FilterConfig(min_thinking_units=5)) == "too_short"
    assert first_objection(trace("So pneumonia it is."), FilterConfig(max_thinking_units=3)) == "too_long"


def test_worlds_own_short_chains_pass() -> None:
    import random

    from clinical_r1.simulator.teacher import attempt

    rng = random.Random(3)
    for language in ("en", "zh"):
        for care in ("direct", "hasty", "medium", "careful"):
            for _ in range(20):
                case = sample_case(rng, language)  # type: ignore[arg-type]
                written = attempt(case.chart, care, rng)  # type: ignore[arg-type]
                made = trace(written.reasoning, written.answer, language, case.question)
                assert first_objection(made, FilterConfig()) == "", made
