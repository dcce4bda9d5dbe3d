"""The rule verifier: what plainly is the reference is correct, what surely is not is incorrect, the rest undecided."""

from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.verifier.choice import chosen_index, read_choice
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
        return read(item.answer, lambda phrase: self.names.match(phrase, reference, code), item.question)

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
        right, choice = chosen_index(item.reference, item.options), read_choice(item.answer, item.options)
        if choice.index is not None and right is not None:
            label = VerdictLabel.CORRECT if choice.index == right else VerdictLabel.INCORRECT
            return self._verdict(label, "option")
        if choice.problem == "empty":
            return self._verdict(VerdictLabel.INCORRECT, "empty")
        if choice.problem == "several":
            return self._verdict(VerdictLabel.UNDECIDED, "several")
        reading = self._read(item, item.reference, item.icd10)  # options that are diagnoses are named like diagnoses
        if reading.finding == "asserted":
            return self._verdict(VerdictLabel.CORRECT, reading.reason)
        return self._verdict(VerdictLabel.UNDECIDED, choice.problem or "no_choice")

    def _verdict(self, label: VerdictLabel, reason: str) -> Verdict:
        return Verdict(label=label, judge=self.name, reason=reason)
