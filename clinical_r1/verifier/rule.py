"""The rule verifier: what plainly is the reference is correct, what surely is not is incorrect, the rest undecided."""

from functools import cache
from typing import Literal

from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.verifier.choice import chooses
from clinical_r1.verifier.icd import IcdLevel
from clinical_r1.verifier.judgement import Grading, Judgement
from clinical_r1.verifier.lists import grade_list, stated_diagnoses
from clinical_r1.verifier.names import Names, Table
from clinical_r1.verifier.reading import Reading, read


class RuleVerifier:
    """Correct only where the answer asserts the reference, and it alone, by a name or code that is known to mean it.

    Incorrect only where no judge could say otherwise: an empty answer, another option than the right one, or a
    conclusion that is the known name of a disease of another ICD-10 category.
    """

    name = "rule"

    def __init__(
        self, icd_level: IcdLevel = "code", table: Table | None = None, grading: Grading = "principal"
    ) -> None:
        self.names = Names(table, icd_level)
        self._grading: Grading = grading

    async def judge(self, item: Judgement) -> Verdict:
        """As `judge_sync`."""
        return self.judge_sync(item)

    def judge_sync(self, item: Judgement) -> Verdict:
        """The verdict. Reasons: equal, synonym, icd10, detail, option, list; empty, different, and what could not be
        read."""
        if item.options:
            return self._choice(item)
        wanted = item.wanted
        if len(wanted) > 1:
            stated = stated_diagnoses(item.answer)
            codes = [item.icd10, *[""] * (len(wanted) - 1)]
            if grade_list(self._grading, stated, wanted, codes, self.names):
                return self._verdict(VerdictLabel.CORRECT, "list")
            if len(stated) > 1 or self._grading == "all":
                return self._verdict(VerdictLabel.UNDECIDED, "list")
        accepted = wanted if self._grading == "any" else wanted[:1]
        readings = [
            self._read(item, reference, item.icd10 if place == 0 else "") for place, reference in enumerate(accepted)
        ]
        verdicts = [self._of(reading, item, reference) for reading, reference in zip(readings, accepted, strict=True)]
        correct = [verdict for verdict in verdicts if verdict.label is VerdictLabel.CORRECT]
        undecided = [verdict for verdict in verdicts if verdict.label is VerdictLabel.UNDECIDED]
        return (correct or undecided or verdicts)[0]

    def _read(self, item: Judgement, reference: str, code: str) -> Reading:
        def another(text: str) -> bool:
            return self.names.another_in(text, reference, code)

        return read(item.answer, lambda phrase: self.names.match(phrase, reference, code), item.question, another)

    def _of(self, reading: Reading, item: Judgement, reference: str) -> Verdict:
        if reading.finding == "asserted":
            return self._verdict(VerdictLabel.CORRECT, reading.reason)
        if reading.finding == "empty":
            return self._verdict(VerdictLabel.INCORRECT, "empty")
        if reading.finding == "other":
            code = item.icd10 if reference == item.wanted[0] else ""
            sure = self.names.differs(reading.said, reference, code)
            return self._verdict(VerdictLabel.INCORRECT if sure else VerdictLabel.UNDECIDED, "different")
        return self._verdict(VerdictLabel.UNDECIDED, reading.reason)

    def _choice(self, item: Judgement) -> Verdict:
        right, problem = chooses(item)
        if right is not None:
            return self._verdict(VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT, "option")
        if problem == "empty":
            return self._verdict(VerdictLabel.INCORRECT, "empty")
        if problem != "several" and len(item.wanted) == 1:  # options that are diagnoses are named like diagnoses
            reading = self._read(item, item.reference, item.icd10)
            if reading.finding == "asserted":
                return self._verdict(VerdictLabel.CORRECT, reading.reason)
        return self._verdict(VerdictLabel.UNDECIDED, problem or "no_choice")

    def _verdict(self, label: VerdictLabel, reason: str) -> Verdict:
        return Verdict(label=label, judge=self.name, reason=reason)


@cache
def _at(level: IcdLevel) -> RuleVerifier:
    return RuleVerifier(level)


def chooses_right(item: Judgement) -> float:
    """1 where the answer plainly chooses the right options of a multiple-choice item, else 0; asks no model."""
    return float(_at("code").judge_sync(item).label is VerdictLabel.CORRECT)


def near_miss(item: Judgement) -> Literal["category", "block"] | None:
    """How near a wrong diagnosis is: the closest ICD-10 level at which it is the reference's, by name or code.

    A right answer shares the category as well: ask the verifier first whether it is right. Names that the synonym
    table and the WHO titles do not know have no code, and no level.
    """
    levels: tuple[Literal["category", "block"], ...] = ("category", "block")
    return next((level for level in levels if _at(level).judge_sync(item).label is VerdictLabel.CORRECT), None)
