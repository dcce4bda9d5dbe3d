"""Rubrics: a model says of each criterion whether an answer meets it; points follow from that.

The form is HealthBench's (arXiv 2505.08775): criteria with positive or negative points, one call each, the score is
points earned over points to be had. The prompt is our own, so figures are near those of the set's authors, not theirs.
"""

import asyncio
from dataclasses import dataclass

from pydantic import BaseModel

from clinical_r1.llm.prompts import Prompt
from clinical_r1.llm.reply import CallFailed
from clinical_r1.schema import Case, Language, RubricScore
from clinical_r1.verifier.llm import LLMVerifier, prompt
from clinical_r1.verifier.normalise import normalise

NAMES = {"system": "SYSTEM", "user": "USER", "assistant": "ASSISTANT"}


class Met(BaseModel):
    """The shape of the judge's reply."""

    met: bool


@dataclass(frozen=True, slots=True)
class Graded:
    """One criterion of one answer."""

    conversation: str
    answer: str
    criterion: str
    language: Language
    subject: str


class RubricJudge(LLMVerifier):
    """Grades answers against the rubrics of their cases."""

    shape = Met

    async def score(self, case: Case, answer: str) -> RubricScore:
        """Which criteria the answer meets; None where a judgement failed. An empty answer meets nothing."""
        if not normalise(answer):
            return RubricScore(met=[False] * len(case.rubric), judge=self.name)
        said = [f"{NAMES[turn.role]}: {turn.content}" for turn in case.turns]
        conversation = "\n\n".join([*said, f"USER: {case.problem}"] if said else [case.problem])
        subject = case.patient or case.id
        items = [Graded(conversation, answer, item.text, case.language, subject) for item in case.rubric]
        return RubricScore(met=list(await asyncio.gather(*map(self._met, items))), judge=self.name)

    async def _met(self, item: Graded) -> bool | None:
        try:
            completion = await self.ask(item)
        except CallFailed as failure:
            if self.watch is not None:
                self.watch.gave_none(failure.reason, failure.shape)
            return None
        if self.watch is not None:
            self.watch.gave_verdict()
        return bool(completion.parsed.met)

    def messages(self, item: Graded) -> Prompt:  # type: ignore[override]
        """Messages and prompt version of one criterion."""
        return prompt("rubric", item.language, question=item.conversation, answer=item.answer, criterion=item.criterion)
