"""Partial credit by ICD-10: how near a wrong answer is to the reference. A second metric beside accuracy.

"Viral pneumonia" for a bacterial one is wrong, and less wrong than appendicitis. An answer that the judge accepts earns
1; another one earns by what its code shares with the reference's: the three-character category, the block, the chapter.
The code of an answer is the one that it states, or that its name has in the cases themselves, the verifier's synonyms
or WHO's titles. An answer whose name has no known code earns nothing and is counted as `unplaced`, so the mean is a
lower bound. The weights are ours; the paper has no such metric.

Where references are lists (discharge diagnoses), what an answer states is held against all of them: F1, see
`verifier.rule.list_f1`. Answers that are graded by rubrics have the mean of their shares of points, as HealthBench
gives it: no lower than 0, and the same for each kind of criterion.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pydantic import Field

from clinical_r1.evaluation.measure.resampling import Mean
from clinical_r1.reasoning import UNREADABLE
from clinical_r1.schema import Case, Prediction, RubricScore, Verdict, VerdictLabel
from clinical_r1.text import one_width
from clinical_r1.verifier.names import Names
from clinical_r1.verifier.normalise import STATED, clean_code, normalise, same_at
from clinical_r1.verifier.reading import read
from clinical_r1.verifier.rule import list_f1, stated_diagnoses

Level = Literal["right", "category", "block", "chapter", "other", "unplaced"]
CREDIT: dict[Level, float] = {
    "right": 1.0, "category": 0.75, "block": 0.5, "chapter": 0.25, "other": 0.0, "unplaced": 0.0,
}  # fmt: skip
"""What an answer earns by how near it is."""
_LEAD = re.compile(
    r"^(the )?(most likely |final |probable )*(diagnosis|answer)( is| would be|:)?\s*"
    r"|^(最可能的?|最终)?(诊断|答案)(为|是|：|:)?\s*"
)


def answer_key(response: str) -> str:
    """A response reduced to what two samples must share to count as the same answer.

    Unicode-folded, case-folded, first non-empty line, without a lead such as "The diagnosis is" and without punctuation
    at its ends.
    """
    first = next((line for line in one_width(response).casefold().splitlines() if line.strip()), "")
    return re.sub(r"\s+", " ", _LEAD.sub("", first.strip(" *#"))).strip(" .,;:!。，；：！*\"'“”")


class PartialCredit(Mean):
    """Mean credit of one stratum: predictions with a verdict on cases whose reference has a code."""

    levels: dict[str, int]
    """How many answers are right, in the same category, block, chapter, elsewhere, or have no known code."""


class ListF1(Mean):
    """Mean F1 of the stated diagnoses over the answers to cases whose reference is a list; those of an unknown form are
    left out."""

    unread: int
    """Of them, answers that state no list that the rules can read: they earn nothing, so the mean is a lower bound."""


class Coder:
    """ICD-10 codes of diagnoses by name; knows the names and codes of the given cases, synonyms and WHO's titles."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._known = {normalise(case.reference): code for case in cases if (code := clean_code(case.icd10))}
        self._names = Names()
        self.code = lru_cache(maxsize=65536)(self._look_up)

    def _look_up(self, phrase: str) -> str:
        if len(phrase) > 120:
            return ""
        if stated := STATED.search(phrase):
            return clean_code(stated[1])
        return self._known.get(normalise(phrase)) or self._names.code(phrase)

    def level(self, case: Case, prediction: Prediction, verdict: Verdict | None) -> Level | None:
        """How near one answer is; None where the case has no code or the judgement failed."""
        wanted = clean_code(case.icd10) or self.code(case.reference)
        if not wanted or verdict is None or verdict.label is VerdictLabel.INVALID:
            return None
        if verdict.label is VerdictLabel.CORRECT:
            return "right"
        # What the answer asserts; a denied or hedged name earns nothing.
        response = prediction.response
        reading = read(response, lambda phrase: _nearness(wanted, self.code(phrase)))
        said = self.code(answer_key(response)) if reading.finding != "asserted" else ""
        near = _nearness(wanted, said) if reading.finding != "asserted" else reading.reason
        if near:
            return "category" if near == "category" else "block" if near == "block" else "chapter"
        names_a_disease = said or (response and read(response, lambda p: self.code(p) and "coded").reason == "coded")
        return "other" if names_a_disease else "unplaced"


def _nearness(wanted: str, own: str) -> str:
    """Nearest common level of two codes; a judge who rejects an answer with the reference's own code caps it here."""
    if not own:
        return ""
    if same_at("category", wanted, own):
        return "category"
    if same_at("block", wanted, own):
        return "block"
    return "chapter" if chapter(wanted) == chapter(own) != "unknown" else ""


def partial_credit(found: Sequence[tuple[Case, Level]]) -> PartialCredit:
    """Mean credit of cases with the nearness of their answers, with its interval."""
    counts = Counter(level for _, level in found)
    levels = {level: counts[level] for level in CREDIT}
    return PartialCredit.of([(case, CREDIT[level]) for case, level in found], levels=levels)


class RubricMetrics(Mean):
    """All that rubrics say of one model: points earned over points to be had, averaged over the graded answers."""

    unscored: int = 0
    """Answers of which some judgement failed; no part of the mean."""
    by: dict[str, dict[str, Mean]] = Field(default_factory=dict)
    """`specialty` (HealthBench's themes) and `criteria` (tags of criteria) -> name -> share."""


def rubric_metrics(items: Sequence[tuple[Case, Prediction]]) -> RubricMetrics | None:
    """The figures of the answers that were graded by a rubric; None where there is none."""
    graded = [(case, row.rubric) for case, row in items if row.rubric is not None]
    if not graded:
        return None
    shares = [(case, share) for case, score in graded if (share := score.share(case.rubric)) is not None]
    of_tag: dict[str, list[tuple[Case, float]]] = {}
    for tag in sorted({tag for case, _ in shares for item in case.rubric for tag in item.tags}):
        for case, score in graded:
            tagged = [(item, met) for item, met in zip(case.rubric, score.met, strict=True) if tag in item.tags]
            own = RubricScore(met=[met for _, met in tagged], judge=score.judge).share([item for item, _ in tagged])
            if own is not None:
                of_tag.setdefault(tag, []).append((case, own))
    by = {
        "specialty": {
            name: Mean.of([(case, share) for case, share in shares if case.specialty == name])
            for name in sorted({case.specialty for case, _ in shares})
        },
        "criteria": {tag: Mean.of(found) for tag, found in of_tag.items()},
    }
    return RubricMetrics.of(shares, unscored=len(graded) - len(shares), by=by)


def mean_list_f1(items: Sequence[tuple[Case, Prediction]]) -> ListF1 | None:
    """F1 over the answers to cases whose reference is a list; None without one."""
    names, unread = Names(), 0
    found: list[tuple[Case, float]] = []
    for case, row in items:
        if len(case.references) > 1 and not case.options and row.outcome not in UNREADABLE:
            stated, codes = stated_diagnoses(row.response), [case.icd10, *[""] * (len(case.references) - 1)]
            found.append((case, list_f1(stated, case.references, codes, names)))
            unread += not stated
    return ListF1.of(found, unread=unread) if found else None


_STARTS = (
    ("A00", "I"), ("C00", "II"), ("D50", "III"), ("E00", "IV"), ("F00", "V"), ("G00", "VI"), ("H00", "VII"),
    ("H60", "VIII"), ("I00", "IX"), ("J00", "X"), ("K00", "XI"), ("L00", "XII"), ("M00", "XIII"), ("N00", "XIV"),
    ("O00", "XV"), ("P00", "XVI"), ("Q00", "XVII"), ("R00", "XVIII"), ("S00", "XIX"), ("U00", "XXII"), ("V00", "XX"),
    ("Z00", "XXI"),
)  # fmt: skip


def chapter(icd10: str) -> str:
    """WHO ICD-10 chapter (roman numeral) of a code; "unknown" where there is none."""
    category = icd10.strip().upper()[:3]
    if len(category) < 3 or not category[0].isalpha() or not category[1].isdigit():
        return "unknown"
    return max((start, name) for start, name in _STARTS if start <= category)[1]
