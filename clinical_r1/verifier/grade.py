"""How near a wrong diagnosis is: the ICD-10 level that it shares with the reference. Rule-based, needs no endpoint."""

from functools import cache
from typing import Literal

from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier


@cache
def _verifier(level: Literal["category", "block"]) -> RuleVerifier:
    return RuleVerifier(level)


def near_miss(item: Judgement) -> Literal["category", "block"] | None:
    """The closest level at which the answer's diagnosis is the reference's, by name or code; None where there is none.

    A right answer shares the category as well: ask the verifier first whether it is right. Names that the synonym
    table and the WHO titles do not know have no code, and no level.
    """
    for level in ("category", "block"):
        if _verifier(level).judge_sync(item).label is VerdictLabel.CORRECT:
            return level
    return None
