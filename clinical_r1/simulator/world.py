"""A small clinical world (world.yaml): sample a case, write it as a question, read it back, know its best answer.

Fourteen common diseases, each with a rarer look-alike. A case is a disease, findings drawn by the disease's frequencies
(plus now and then one that has nothing to do with it), and two test results. The findings point to a pair of
look-alikes; only the pair's own test tells the two apart. The teacher behind HTTP sees only the question text, so
everything it knows about a case is what `parse_question` returns. The frequencies make a world whose best possible
accuracy can be computed; they are not epidemiology.
"""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

from clinical_r1.atomic import read_table
from clinical_r1.schema import Case
from clinical_r1.text import Language

Sex = Literal["female", "male"]
P_RARE = 0.38  # how often the look-alike is the truth
P_TEST = 0.92  # how often the test that decides was done
P_INCIDENTAL = 0.4  # how often a test that has nothing to do with the case is abnormal all the same
BACKGROUND = 0.008  # frequency of a finding in a disease that does not cause it
MIN_FINDINGS, MAX_FINDINGS = 3, 5
FINDING_LABELS, TEST_LABELS = "ABCDE", "XY"
SITES = ("north", "harbor", "hillside")
P_LOOK_ALIKE = 0.6  # a wrong answer is the pair's other member so often, else any disease
P_CLOSED = 0.25  # labelled answers that come with a list of choices


@dataclass(frozen=True)
class Disease:
    """One diagnosis; `pair` and `rare` say where it stands in the table."""

    en: str
    zh: str
    icd10: str
    specialty: str
    pair: int
    rare: bool = False

    def name(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True)
class Pair:
    """A common disease and its look-alike, who shares its findings; one test tells them apart."""

    common: Disease
    rare: Disease
    test: tuple[str, str]  # English and Chinese name
    positive: tuple[str, str]  # the result that speaks for the look-alike
    negative: tuple[str, str]
    findings: dict[str, tuple[float, float]]  # English name -> frequency in the common disease, in the look-alike
    ages: tuple[int, int]
    sex: Sex | None = None


def _pair(index: int, row: dict[str, Any]) -> Pair:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    place: dict[str, Any] = {"specialty": values.pop("specialty"), "pair": index}
    common = Disease(*values.pop("common"), **place)
    rare = replace(Disease(*values.pop("rare"), **place), rare=True)
    return Pair(common, rare, **values)


_WORLD = read_table(Path(__file__).with_name("world.yaml"))
PAIRS: tuple[Pair, ...] = tuple(_pair(index, row) for index, row in enumerate(_WORLD["pairs"]))
DISEASES: tuple[Disease, ...] = tuple(disease for pair in PAIRS for disease in (pair.common, pair.rare))
FINDINGS: tuple[str, ...] = tuple(_WORLD["findings"])
FINDING_ZH: dict[str, str] = {finding: names[0] for finding, names in _WORLD["findings"].items()}
DIALECT: dict[str, list[str]] = {finding: names[1:] for finding, names in _WORLD["findings"].items() if names[1:]}
"""The site effect of the simulated world: one site writes some findings in words of its own (English, Chinese).

The meaning is the same and the teacher knows it; a model that never saw the site has to guess.
"""
# A clinician's memory: which common diseases a finding brings to mind, most typical first.
POINTS_TO: dict[str, list[int]] = {
    finding: sorted(
        (index for index, pair in enumerate(PAIRS) if finding in pair.findings),
        key=lambda index: -PAIRS[index].findings[finding][0],
    )
    for finding in FINDINGS
}


def finding_name(finding: str, language: Language, dialect: bool = False) -> str:
    if dialect and finding in DIALECT:
        return DIALECT[finding][language == "zh"]
    return finding if language == "en" else FINDING_ZH[finding]


def lab(index: int, speaks_for_rare: bool, language: Language) -> str:
    """How the chart words a pair's test and its result."""
    pair, zh = PAIRS[index], language == "zh"
    return f"{pair.test[zh]} {(pair.positive if speaks_for_rare else pair.negative)[zh]}"


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


# --- cases


def frequency(finding: str, disease: Disease) -> float:
    both = PAIRS[disease.pair].findings.get(finding)
    return BACKGROUND if both is None else both[disease.rare]


def sample_case(rng: random.Random, language: Language, dialect_site: str = "") -> WorldCase:
    """One patient, drawn from the world; `dialect_site` writes findings in its own words."""
    pair = rng.choice(PAIRS)
    disease = pair.rare if rng.random() < P_RARE else pair.common
    age = rng.randint(*pair.ages)
    sex: Sex = rng.choice(("female", "male")) if pair.sex is None else pair.sex
    found: list[str] = []
    while not MIN_FINDINGS <= len(found) <= MAX_FINDINGS:
        found = [finding for finding in FINDINGS if rng.random() < frequency(finding, disease)]
    rng.shuffle(found)
    others = rng.sample([index for index in range(len(PAIRS)) if index != disease.pair], 2)
    tests = [(index, rng.random() < P_INCIDENTAL) for index in others]
    if rng.random() < P_TEST:
        tests[0] = (disease.pair, disease.rare)
    rng.shuffle(tests)
    chart = Chart(language, age, sex, tuple(found), tuple(tests))
    patient, site = f"P{rng.randrange(10**8):08d}", rng.choice(SITES)
    question = render_question(chart, dialect=site == dialect_site)
    return WorldCase(chart, disease, question, patient, site, date(2024, 1, 1) + timedelta(days=rng.randrange(700)))


def sample_cases(n: int, seed: int, zh_share: float = 0.5, dialect_site: str = "") -> Iterator[WorldCase]:
    """n distinct cases, languages mixed."""
    rng = random.Random(f"world-{seed}")
    seen: set[str] = set()
    while len(seen) < n:
        case = sample_case(rng, "zh" if rng.random() < zh_share else "en", dialect_site)
        if case.question not in seen:
            seen.add(case.question)
            yield case


def sample_records(
    n: int, seed: int, zh_share: float = 0.5, twins: bool = False, dialect_site: str = ""
) -> Iterator[Case]:
    """The same cases as records, as a hospital's export would hold them.

    `twins`: n / 2 patients, each written in both languages, with ids that differ in the language alone (w-17-en,
    w-17-zh). `dialect_site`: that site writes findings in its own words; not with twins.
    """
    if not twins:
        yield from map(record_of, sample_cases(n, seed, zh_share, dialect_site))
        return
    for number, case in enumerate(sample_cases(n // 2, seed, zh_share=0.0)):
        chinese = replace(case.chart, language="zh")
        for one in (case, replace(case, chart=chinese, question=render_question(chinese))):
            yield record_of(one).model_copy(update={"id": f"w-{number}-{one.chart.language}"})


def record_of(case: WorldCase) -> Case:
    """The record of a drawn case, its age as the ten-year band that a record may carry."""
    age = case.chart.age
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
        age_band="90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}",
        recorded=case.recorded.isoformat(),
    )


def sample_judgements(n: int, seed: int) -> Iterator[dict[str, object]]:
    """n answers with a grade that is known by construction: what experts' grades are for a real audit of a verifier.

    Rows of `clinical_r1.evaluation.judging.audit.LabelledJudgement`, languages mixed. Answers are bare names: the audit
    puts them into sentences itself.
    """
    rng = random.Random(f"labelled-{seed}")
    for case in sample_cases(n, seed=seed + 7919):
        truth, language = case.disease, case.chart.language
        pair, said = PAIRS[truth.pair], truth
        right = rng.random() < 0.5
        if not right and rng.random() < P_LOOK_ALIKE:
            said = pair.common if truth.rare else pair.rare
        elif not right:
            said = rng.choice([disease for disease in DISEASES if disease.pair != truth.pair])
        options: list[Disease] = []
        if rng.random() < P_CLOSED:
            others = rng.sample([disease for disease in DISEASES if disease not in (truth, said)], 2)
            options = list(dict.fromkeys((truth, said, *others)))
            rng.shuffle(options)
        yield {
            "question": case.question,
            "reference": case.reference,
            "answer": said.name(language),
            "language": language,
            "correct": right,
            "icd10": truth.icd10,
            "options": [disease.name(language) for disease in options],
        }


# --- text


def render_question(chart: Chart, dialect: bool = False) -> str:
    """The case as a clinician would put it, findings and tests lettered as in a problem list.

    Letters give the model something to walk along. In Chinese a space stands before every term, as it does anyway
    beside Latin letters: so a term is the same piece of text for the tokenizer wherever it stands.
    """
    language = chart.language
    names = (finding_name(finding, language, dialect) for finding in chart.findings)
    findings = [f"{label} {name}" for label, name in zip(FINDING_LABELS, names, strict=False)]
    results = (lab(index, positive, language) for index, positive in chart.tests)
    tests = [f"{label} {result}" for label, result in zip(TEST_LABELS, results, strict=False)]
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
    "en": re.compile(
        r"An? (?P<age>\d+)-year-old (?P<sex>woman|man) presents with: (?P<findings>.+?)\. Tests: (?P<tests>.+?)\. "
        r"What is the diagnosis\?"
    ),
    "zh": re.compile(
        r"患者，(?P<sex>女|男)，(?P<age>\d+)岁。症状： (?P<findings>.+?)。检查： (?P<tests>.+?)。诊断是什么？"
    ),
}


def parse_question(text: str) -> Chart | None:
    """Read a chart back from its text; None for a text from outside this world."""
    matches = ((language, pattern.search(text)) for language, pattern in _QUESTION.items())
    language, found = next((match for match in matches if match[1]), ("en", None))
    if found is None:
        return None
    separator = ", " if language == "en" else "， "
    named = {finding_name(finding, language): finding for finding in FINDINGS}
    named |= {finding_name(finding, language, dialect=True): finding for finding in DIALECT}
    pairs = [(index, positive) for index in range(len(PAIRS)) for positive in (False, True)]
    results = {lab(*pair, language): pair for pair in pairs}
    sex: Sex = "female" if found["sex"] in ("woman", "女") else "male"
    try:
        findings = tuple(named[item.split(" ", 1)[1]] for item in found["findings"].split(separator))
        tests = tuple(results[item.split(" ", 1)[1]] for item in found["tests"].split(separator))
    except (KeyError, IndexError):
        return None
    return Chart(language, int(found["age"]), sex, findings, tests)


# --- the best answer


def _chance_of_count(disease: Disease) -> float:
    """Chance that a disease shows between MIN_FINDINGS and MAX_FINDINGS findings: charts outside are never drawn."""
    chances = [1.0] + [0.0] * MAX_FINDINGS
    for finding in FINDINGS:
        p = frequency(finding, disease)
        chances = [chances[n] * (1 - p) + (chances[n - 1] * p if n else 0.0) for n in range(MAX_FINDINGS + 1)]
    return sum(chances[MIN_FINDINGS:])


_COUNT_CHANCE = {disease: _chance_of_count(disease) for disease in DISEASES}
_NOTHING = {disease: sum(math.log(1 - frequency(f, disease)) for f in FINDINGS) for disease in DISEASES}


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
    done = dict(chart.tests).get(disease.pair)
    if done is not None and done != disease.rare:
        return -math.inf
    score += sum(math.log(incidental[positive]) for index, positive in chart.tests if index != disease.pair)
    others = len(PAIRS) - 1
    return score + math.log((1 - P_TEST) / math.comb(others, 2) if done is None else P_TEST / others)


def best_answer(chart: Chart) -> Disease:
    """The most probable disease: no reader of the chart can do better on average."""
    return max(DISEASES, key=lambda disease: log_likelihood(chart, disease))


def bayes_ceiling(n: int = 2000) -> float:
    """The accuracy of the best possible reader, estimated on n fresh cases."""
    rng = random.Random(0)
    cases = [sample_case(rng, "en") for _ in range(n)]
    return sum(best_answer(case.chart) == case.disease for case in cases) / n
