"""What a verifier is asked, and what every verifier can do."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from clinical_r1.references import split_references
from clinical_r1.schema import Case, Language, Verdict

Grading = Literal["principal", "any", "all"]
"""Where a reference is a list: which of it an answer must state."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer to be held against the reference. The reasoning behind it is never part of it: a judge that sees both
    reference and reasoning misjudges the reasoning."""

    question: str
    reference: str
    """The principal reference; a text that is a list is taken apart where `references` is not given."""
    answer: str
    """The final response, thinking removed."""
    language: Language
    icd10: str = ""
    """WHO ICD-10 code of the reference, empty where unknown."""
    options: list[str] = field(default_factory=list)
    """Choices of a multiple-choice item; then a bare letter is an answer."""
    subject: str = ""
    """Patient or case id: marks the judge's journal lines for `forget`."""
    references: tuple[str, ...] = ()
    """All reference diagnoses, principal first."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The reference diagnoses, principal first; one for a multiple-choice item."""
        return self.references or ((self.reference,) if self.options else tuple(split_references(self.reference)))

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
            references=tuple(case.references),
        )


class Verifier(Protocol):
    """Rule, LLM judge or ensemble."""

    name: str
    """Goes into `Verdict.judge`."""

    async def judge(self, item: Judgement) -> Verdict:
        """The verdict; INVALID where the judgement failed. Raises only what ends the whole run (UserError)."""
        ...
