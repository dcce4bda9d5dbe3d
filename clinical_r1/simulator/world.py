"""A small clinical world: sample a case, write it as a question, read it back, and know its best possible answer.

Pure Python: the teacher behind HTTP sees only the question text, so everything it knows about a case is what
`parse_question` returns. A case is a disease, findings drawn by the disease's frequencies (plus now and then one that
has nothing to do with it), and two test results. The findings point to a pair of look-alikes; only the pair's own test
tells the two apart.
"""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from clinical_r1.schema import Case
from clinical_r1.simulator.diseases import DIALECT, FINDINGS, PAIRS, Disease, Language, finding_name, local_name

Sex = Literal["female", "male"]
_SEXES: tuple[Sex, Sex] = ("female", "male")
P_RARE = 0.38  # how often the look-alike is the truth
P_TEST = 0.92  # how often the test that decides was done
P_INCIDENTAL = 0.4  # how often a test that has nothing to do with the case is abnormal all the same
BACKGROUND = 0.008  # frequency of a finding in a disease that does not cause it
MIN_FINDINGS, MAX_FINDINGS = 3, 5
FINDING_LABELS, TEST_LABELS = "ABCDE", "XY"
SITES = ("north", "harbor", "hillside")


@dataclass(frozen=True)
class Chart:
    """What a reader of the question knows; `tests`: a pair's index, and whether its test speaks for the look-alike."""

    language: Language
    age: int
    sex: Sex
    findings: tuple[str, ...]
    tests: tuple[tuple[int, bool], ...]


@dataclass(frozen=True)
class WorldCase:
    """A chart with its truth and the fields of a record."""

    chart: Chart
    disease: Disease
    question: str
    patient: str
    site: str
    recorded: date

    @property
    def reference(self) -> str:
        return self.disease.name(self.chart.language)


def frequency(finding: str, disease: Disease) -> float:
    """How often a disease shows a finding."""
    both = PAIRS[disease.pair].findings.get(finding)
    return BACKGROUND if both is None else both[disease.rare]


def _draw_findings(rng: random.Random, disease: Disease) -> tuple[str, ...]:
    while True:
        found = [finding for finding in FINDINGS if rng.random() < frequency(finding, disease)]
        if MIN_FINDINGS <= len(found) <= MAX_FINDINGS:
            rng.shuffle(found)
            return tuple(found)


def _draw_tests(rng: random.Random, disease: Disease) -> tuple[tuple[int, bool], ...]:
    others = rng.sample([index for index in range(len(PAIRS)) if index != disease.pair], 2)
    results = [(index, rng.random() < P_INCIDENTAL) for index in others]
    if rng.random() < P_TEST:
        results[0] = (disease.pair, disease.rare)
    rng.shuffle(results)
    return tuple(results)


def sample_case(rng: random.Random, language: Language, dialect_site: str = "") -> WorldCase:
    """One patient, drawn from the world; `dialect_site` writes findings in its own words (dialect.py)."""
    pair = rng.choice(PAIRS)
    disease = pair.rare if rng.random() < P_RARE else pair.common
    chart = Chart(
        language=language,
        age=rng.randint(*pair.ages),
        sex=rng.choice(_SEXES) if pair.sex is None else pair.sex,
        findings=_draw_findings(rng, disease),
        tests=_draw_tests(rng, disease),
    )
    patient, site = f"P{rng.randrange(10**8):08d}", rng.choice(SITES)
    return WorldCase(
        chart=chart,
        disease=disease,
        question=render_question(chart, dialect=site == dialect_site),
        patient=patient,
        site=site,
        recorded=date(2024, 1, 1) + timedelta(days=rng.randrange(700)),
    )


def age_band(age: int) -> str:
    """The ten-year band that a record may carry."""
    return "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


# --- text


def lab_name(index: int, language: Language) -> str:
    return PAIRS[index].test[language == "zh"]


def lab_result(index: int, speaks_for_rare: bool, language: Language) -> str:
    """How the chart words the result of a pair's test."""
    pair = PAIRS[index]
    return (pair.positive if speaks_for_rare else pair.negative)[language == "zh"]


def _written(finding: str, language: Language, dialect: bool) -> str:
    return (local_name(finding, language) if dialect else None) or finding_name(finding, language)


def render_question(chart: Chart, dialect: bool = False) -> str:
    """The case as a clinician would put it, findings and tests lettered as in a problem list.

    Letters give the model something to walk along. In Chinese a space stands before every term, as it does anyway
    beside Latin letters: so a term is the same piece of text for the tokenizer wherever it stands.
    """
    language = chart.language
    findings = [
        f"{label} {_written(finding, language, dialect)}"
        for label, finding in zip(FINDING_LABELS, chart.findings, strict=False)
    ]
    tests = [
        f"{label} {lab_name(index, language)} {lab_result(index, positive, language)}"
        for label, (index, positive) in zip(TEST_LABELS, chart.tests, strict=False)
    ]
    if language == "en":
        person = {"female": "woman", "male": "man"}[chart.sex]
        article = "An" if chart.age in (8, 11, 18) or chart.age // 10 == 8 else "A"
        return (
            f"{article} {chart.age}-year-old {person} presents with: {', '.join(findings)}. "
            f"Tests: {', '.join(tests)}. What is the diagnosis?"
        )
    person = {"female": "女", "male": "男"}[chart.sex]
    return f"患者，{person}，{chart.age}岁。症状： {'， '.join(findings)}。检查： {'， '.join(tests)}。诊断是什么？"


_QUESTION: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"An? (\d+)-year-old (woman|man) presents with: (.+?)\. Tests: (.+?)\. What is the diagnosis\?"),
    "zh": re.compile(r"患者，(女|男)，(\d+)岁。症状： (.+?)。检查： (.+?)。诊断是什么？"),
}


def parse_question(text: str) -> Chart | None:
    """Read a chart back from its text; None for a text from outside this world."""
    for language, pattern in _QUESTION.items():
        found = pattern.search(text)
        if found is None:
            continue
        one, two, findings, tests = found.groups()
        age, person = (one, two) if language == "en" else (two, one)
        return _chart(language, int(age), "female" if person in ("woman", "女") else "male", findings, tests)
    return None


def _chart(language: Language, age: int, sex: Sex, findings: str, tests: str) -> Chart | None:
    separator = ", " if language == "en" else "， "
    named = {finding_name(finding, language): finding for finding in FINDINGS}
    named |= {_written(finding, language, dialect=True): finding for finding in DIALECT}
    results = {
        f"{lab_name(index, language)} {lab_result(index, positive, language)}": (index, positive)
        for index in range(len(PAIRS))
        for positive in (False, True)
    }
    try:
        return Chart(
            language, age, sex,
            tuple(named[item.split(" ", 1)[1]] for item in findings.split(separator)),
            tuple(results[item.split(" ", 1)[1]] for item in tests.split(separator)),
        )  # fmt: skip
    except (KeyError, IndexError):
        return None


# --- the best answer


def _chance_of_count(disease: Disease) -> float:
    """Chance that a disease shows between MIN_FINDINGS and MAX_FINDINGS findings: charts outside are never drawn."""
    chances = [1.0] + [0.0] * MAX_FINDINGS
    for finding in FINDINGS:
        p = frequency(finding, disease)
        chances = [chances[n] * (1 - p) + (chances[n - 1] * p if n else 0.0) for n in range(MAX_FINDINGS + 1)]
    return sum(chances[MIN_FINDINGS:])


_DISEASES = tuple(disease for pair in PAIRS for disease in (pair.common, pair.rare))
_COUNT_CHANCE = {disease: _chance_of_count(disease) for disease in _DISEASES}
_NOTHING = {disease: sum(math.log(1 - frequency(f, disease)) for f in FINDINGS) for disease in _DISEASES}


def log_likelihood(chart: Chart, disease: Disease) -> float:
    """log P(chart, disease), up to a term common to all diseases."""
    pair = PAIRS[disease.pair]
    if pair.sex not in (None, chart.sex) or not pair.ages[0] <= chart.age <= pair.ages[1]:
        return -math.inf
    score = math.log(P_RARE if disease.rare else 1 - P_RARE) - math.log(_COUNT_CHANCE[disease]) + _NOTHING[disease]
    score -= math.log(pair.ages[1] - pair.ages[0] + 1) + (0.0 if pair.sex else math.log(2))
    for finding in chart.findings:
        p = frequency(finding, disease)
        score += math.log(p / (1 - p))
    incidental = {True: P_INCIDENTAL, False: 1 - P_INCIDENTAL}
    done = False
    for index, positive in chart.tests:
        if index == disease.pair:
            if positive != disease.rare:
                return -math.inf
            done = True
        else:
            score += math.log(incidental[positive])
    others = len(PAIRS) - 1
    return score + math.log(P_TEST / others if done else (1 - P_TEST) / math.comb(others, 2))


def best_answer(chart: Chart) -> Disease:
    """The most probable disease: no reader of the chart can do better on average."""
    return max(_DISEASES, key=lambda disease: log_likelihood(chart, disease))


def bayes_ceiling(n: int = 2000, seed: int = 0) -> float:
    """The accuracy of the best possible reader, estimated on n fresh cases."""
    rng = random.Random(seed)
    cases = [sample_case(rng, "en") for _ in range(n)]
    return sum(best_answer(case.chart) == case.disease for case in cases) / n


def sample_cases(n: int, seed: int, zh_share: float = 0.5, dialect_site: str = "") -> Iterator[WorldCase]:
    """n distinct cases, languages mixed."""
    rng = random.Random(f"world-{seed}")
    seen: set[str] = set()
    while len(seen) < n:
        case = sample_case(rng, "zh" if rng.random() < zh_share else "en", dialect_site)
        if case.question not in seen:
            seen.add(case.question)
            yield case


def twin(case: WorldCase) -> WorldCase:
    """The same patient, written in the other language."""
    chart = replace(case.chart, language="zh" if case.chart.language == "en" else "en")
    return replace(case, chart=chart, question=render_question(chart))


def sample_records(
    n: int, seed: int, zh_share: float = 0.5, twins: bool = False, dialect_site: str = ""
) -> Iterator[Case]:
    """The same cases as records, as a hospital's export would hold them.

    `twins`: n / 2 patients, each written in both languages, with ids that differ in the language alone (w-17-en,
    w-17-zh). `dialect_site`: that site writes findings in its own words; not with twins.
    """
    if not twins:
        for case in sample_cases(n, seed, zh_share, dialect_site):
            yield record_of(case)
        return
    for number, case in enumerate(sample_cases(n // 2, seed, zh_share=0.0)):
        for one in (case, twin(case)):
            yield record_of(one).model_copy(update={"id": f"w-{number}-{one.chart.language}"})


def record_of(case: WorldCase) -> Case:
    """The record of a drawn case."""
    return Case(
        language=case.chart.language,
        question=case.question,
        references=[case.reference],
        specialty=case.disease.specialty,
        icd10=case.disease.icd10,
        source="simulator",
        site=case.site,
        patient=case.patient,
        sex=case.chart.sex,
        age_band=age_band(case.chart.age),
        recorded=case.recorded.isoformat(),
    )


P_LOOK_ALIKE = 0.6  # a wrong answer is the pair's other member so often, else any disease
P_CLOSED = 0.25  # rows that come with a list of choices


def sample_judgements(
    n: int, seed: int, right_share: float = 0.5, zh_share: float = 0.5
) -> Iterator[dict[str, object]]:
    """n answers with a grade that is known by construction: what experts' grades are for a real audit of a verifier.

    Rows of `clinical_r1.evaluation.judging.audit.LabelledJudgement`, languages mixed. Answers are bare names: the audit
    puts them into sentences itself.
    """
    rng = random.Random(f"labelled-{seed}")
    for case in sample_cases(n, seed=seed + 7919, zh_share=zh_share):
        right = rng.random() < right_share
        said = case.disease if right else _wrong(case, rng)
        language = case.chart.language
        yield {
            "question": case.question,
            "reference": case.reference,
            "answer": said.name(language),
            "language": language,
            "correct": right,
            "icd10": case.disease.icd10,
            "options": _options(case, said, rng) if rng.random() < P_CLOSED else [],
        }


def _wrong(case: WorldCase, rng: random.Random) -> Disease:
    pair = PAIRS[case.disease.pair]
    if rng.random() < P_LOOK_ALIKE:
        return pair.common if case.disease.rare else pair.rare
    return rng.choice([disease for disease in _DISEASES if disease.pair != case.disease.pair])


def _options(case: WorldCase, said: Disease, rng: random.Random) -> list[str]:
    others = rng.sample([disease for disease in _DISEASES if disease not in (case.disease, said)], 2)
    listed = list(dict.fromkeys((case.disease, said, *others)))
    rng.shuffle(listed)
    return [disease.name(case.chart.language) for disease in listed]
