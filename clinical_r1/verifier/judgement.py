"""What a verifier is asked, and what every verifier can do."""

from dataclasses import dataclass, field
from typing import Protocol

from clinical_r1.schema import Case, Language, Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer to be held against the reference. The reasoning behind it is never part of it: a judge that sees both
    reference and reasoning misjudges the reasoning."""

    question: str
    reference: str
    answer: str
    """The final response, thinking removed."""
    language: Language
    icd10: str = ""
    """WHO ICD-10 code of the reference, empty where unknown."""
    options: list[str] = field(default_factory=list)
    """Choices of a multiple-choice item; then a bare letter is an answer."""
    subject: str = ""
    """Patient or case id: marks the judge's journal lines for `forget`."""

    @classmethod
    def of(cls, case: Case, answer: str) -> "Judgement":
        """What is asked about one answer to a case."""
        return cls(
            question=case.problem,
            reference=case.reference,
            answer=answer,
            language=case.language,
            icd10=case.icd10,
            options=list(case.options),
            subject=case.patient or case.id,
        )


class Verifier(Protocol):
    """Rule, LLM judge or ensemble."""

    name: str
    """Goes into `Verdict.judge`."""

    async def judge(self, item: Judgement) -> Verdict:
        """The verdict; INVALID where the judgement failed. Raises only what ends the whole run (UserError)."""
        ...
