"""Partial credit by ICD-10: how near a wrong answer is to the reference. A second metric beside accuracy.

"Viral pneumonia" for a bacterial one is wrong, and less wrong than appendicitis. An answer that the judge accepts earns
1; another one earns by what its code shares with the reference's: the three-character category, the block, the chapter.
The code of an answer is the one that it states, or that its name has in the cases themselves, the verifier's synonyms
or WHO's titles. An answer whose name has no known code earns nothing and is counted as `unplaced`, so the mean is a
lower bound. The weights are ours; the paper has no such metric.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from clinical_r1.evaluation.chapters import chapter
from clinical_r1.evaluation.resampling import mean_interval
from clinical_r1.evaluation.samples import answer_key
from clinical_r1.schema import Case, Prediction, Verdict, VerdictLabel
from clinical_r1.verifier.icd import STATED, clean_code, same_at
from clinical_r1.verifier.names import Names
from clinical_r1.verifier.normalise import normalise
from clinical_r1.verifier.reading import read

Level = Literal["right", "category", "block", "chapter", "other", "unplaced"]
CREDIT: dict[Level, float] = {
    "right": 1.0, "category": 0.75, "block": 0.5, "chapter": 0.25, "other": 0.0, "unplaced": 0.0,
}  # fmt: skip
"""What an answer earns by how near it is."""


class PartialCredit(BaseModel):
    """Mean credit of one stratum."""

    model_config = ConfigDict(extra="forbid")

    n: int
    """Predictions with a verdict on cases whose reference has a code."""
    mean: float
    low: float
    high: float
    """95% bootstrap interval, resampled by patient within specialties."""
    levels: dict[str, int]
    """How many answers are right, in the same category, block, chapter, elsewhere, or have no known code."""


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
    values = [CREDIT[level] for level in levels]
    low, high = mean_interval(values, specialties, patients)
    counts = Counter(levels)
    return PartialCredit(
        n=len(values),
        mean=sum(values) / len(values) if values else 0.0,
        low=low,
        high=high,
        levels={level: counts[level] for level in CREDIT},
    )
