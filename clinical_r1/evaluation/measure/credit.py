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

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pydantic import Field

from clinical_r1.evaluation.measure.resampling import Mean
from clinical_r1.evaluation.measure.samples import answer_key
from clinical_r1.reasoning import UNREADABLE
from clinical_r1.schema import Case, Criterion, Prediction, RubricScore, Verdict, VerdictLabel
from clinical_r1.verifier.names import Names
from clinical_r1.verifier.normalise import STATED, clean_code, normalise, same_at
from clinical_r1.verifier.reading import read
from clinical_r1.verifier.rule import list_f1, stated_diagnoses

Level = Literal["right", "category", "block", "chapter", "other", "unplaced"]
CREDIT: dict[Level, float] = {
    "right": 1.0, "category": 0.75, "block": 0.5, "chapter": 0.25, "other": 0.0, "unplaced": 0.0,
}  # fmt: skip
"""What an answer earns by how near it is."""


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
        stated = STATED.search(phrase)
        if stated:
            return clean_code(stated[1])
        return self._known.get(normalise(phrase)) or self._names.code(phrase)

    def reference(self, case: Case) -> str:
        """Code of the reference; "" where neither the record nor its name tells."""
        return clean_code(case.icd10) or self.code(case.reference)

    def level(self, case: Case, prediction: Prediction, verdict: Verdict | None) -> Level | None:
        """How near one answer is; None where the case has no code or the judgement failed."""
        wanted = self.reference(case)
        if not wanted or verdict is None or verdict.label is VerdictLabel.INVALID:
            return None
        if verdict.label is VerdictLabel.CORRECT:
            return "right"
        # What the answer asserts; a denied or hedged name earns nothing.
        reading = read(prediction.response, lambda phrase: _nearness(wanted, self.code(phrase)))
        said = self.code(answer_key(prediction.response)) if reading.finding != "asserted" else ""
        found = reading.reason if reading.finding == "asserted" else _nearness(wanted, said)
        if not found:
            return "other" if said or _names_a_disease(self, prediction.response) else "unplaced"
        return "category" if found == "category" else "block" if found == "block" else "chapter"


def _names_a_disease(coder: Coder, response: str) -> bool:
    return bool(response) and read(response, lambda phrase: "coded" if coder.code(phrase) else "").reason == "coded"


def _nearness(wanted: str, own: str) -> str:
    """Nearest common level of two codes; a judge who rejects an answer with the reference's own code caps it here."""
    if not own:
        return ""
    if same_at("category", wanted, own):
        return "category"
    if same_at("block", wanted, own):
        return "block"
    return "chapter" if chapter(wanted) == chapter(own) != "unknown" else ""


def partial_credit(levels: Sequence[Level], specialties: Sequence[str], patients: Sequence[str]) -> PartialCredit:
    """Mean credit of aligned lists with its interval."""
    counts = Counter(levels)
    of = {level: counts[level] for level in CREDIT}
    return PartialCredit.of([CREDIT[level] for level in levels], specialties, patients, levels=of)


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
    specialties = sorted({case.specialty for case, _ in shares})
    tags = sorted({tag for case, _ in shares for item in case.rubric for tag in item.tags})
    by_tag = {tag: [(c, s) for c, score in graded if (s := _tagged(c.rubric, score, tag)) is not None] for tag in tags}
    by = {
        "specialty": {name: _share([(c, s) for c, s in shares if c.specialty == name]) for name in specialties},
        "criteria": {tag: _share(found) for tag, found in by_tag.items() if found},
    }
    whole = _share(shares)
    return RubricMetrics(**whole.model_dump(), unscored=len(graded) - len(shares), by=by)


def _tagged(rubric: Sequence[Criterion], score: RubricScore, tag: str) -> float | None:
    pairs = [(item, met) for item, met in zip(rubric, score.met, strict=True) if tag in item.tags]
    return RubricScore(met=[met for _, met in pairs], judge=score.judge).share([item for item, _ in pairs])


def _share(found: Sequence[tuple[Case, float]]) -> Mean:
    return Mean.of([share for _, share in found], [case.specialty for case, _ in found], [c.unit for c, _ in found])


def mean_list_f1(cases: Sequence[Case], predictions: Sequence[Prediction], patients: Sequence[str]) -> ListF1 | None:
    """F1 over the aligned cases whose reference is a list; None without one."""
    names = Names()
    rows = []
    for case, prediction, patient in zip(cases, predictions, patients, strict=True):
        if len(case.references) > 1 and not case.options and prediction.outcome not in UNREADABLE:
            stated, codes = stated_diagnoses(prediction.response), [case.icd10, *[""] * (len(case.references) - 1)]
            rows.append((list_f1(stated, case.references, codes, names), not stated, case.specialty, patient))
    if not rows:
        return None
    values, unread, specialties, units = map(list, zip(*rows, strict=True))
    return ListF1.of(values, specialties, units, unread=sum(unread))


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
    found = "unknown"
    for start, name in _STARTS:
        if category >= start:
            found = name
    return found
