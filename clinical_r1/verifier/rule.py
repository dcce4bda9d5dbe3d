"""The rule verifier: what plainly is the reference is correct, what surely is not is incorrect, the rest undecided.

Of references that are lists: which diagnoses an answer states, are they the reference's, and F1 over the list.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from clinical_r1.reasoning import conclusion_line
from clinical_r1.references import split_references
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.verifier.choice import chooses
from clinical_r1.verifier.judgement import Grading, Judgement
from clinical_r1.verifier.names import Names, Table
from clinical_r1.verifier.normalise import IcdLevel, plain, same_at
from clinical_r1.verifier.reading import RULE, after_frame, read

_BETWEEN = re.compile(r"[,，、;；+&\n]|\band\b|\bwith\b|和|及|以及|与|伴有?|合并")
_NOT_STATED = re.compile(
    r"\b(?:not|no|without|possib\w+|suspect\w*|exclud\w+|ruled out|unlikely|or|versus|vs|differential"
    r"|history)\b|[?？]|待|疑|排除|除外|不|或|鉴别|可能|史$",
    re.I,
)
NEAR = 0.5
"""Credit of a stated diagnosis that shares the ICD-10 category with one of the reference's."""


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
        verdicts = [self._of(item, reference, item.icd10 if reference == wanted[0] else "") for reference in accepted]
        correct = [verdict for verdict in verdicts if verdict.label is VerdictLabel.CORRECT]
        undecided = [verdict for verdict in verdicts if verdict.label is VerdictLabel.UNDECIDED]
        return (correct or undecided or verdicts)[0]

    def _of(self, item: Judgement, reference: str, code: str) -> Verdict:
        """The verdict on one reference diagnosis."""
        reading = read(
            item.answer,
            lambda phrase: self.names.match(phrase, reference, code),
            item.question,
            lambda text: self.names.another_in(text, reference, code),
        )
        if reading.finding == "asserted":
            return self._verdict(VerdictLabel.CORRECT, reading.reason)
        if reading.finding == "empty":
            return self._verdict(VerdictLabel.INCORRECT, "empty")
        if reading.finding == "other":
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
            named = self._of(item, item.reference, item.icd10)
            if named.label is VerdictLabel.CORRECT:
                return named
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


def stated_diagnoses(answer: str) -> list[str]:
    """The diagnoses that an answer states in its conclusion line, or after its opening frame, in order; [] where it
    denies, doubts or explains there."""
    text = plain(answer)
    line = conclusion_line(text)
    block = line if line is not None else after_frame(text)
    items = [part.strip() for part in block.splitlines() if part.strip()]
    if len(items) == 1:
        items = split_references(items[0])
    items = [RULE["bullet"].sub("", item).strip(" .。*_`#") for item in items]
    if len(items) == 1:
        items = [part.strip(" .。") for part in _BETWEEN.split(items[0])]
    items = [item for item in items if item]
    return [] if any(_NOT_STATED.search(item) or len(item) > 120 for item in items) else items


def ranked_diagnoses(answer: str, most: int) -> list[str]:
    """The first diagnoses of an answer that lists them by rank, one a numbered line; [] where it holds no such list."""
    lines = [line.strip() for line in plain(answer).splitlines()]
    items = [RULE["bullet"].sub("", line).strip(" .;。；*_`#") for line in lines if RULE["bullet"].match(line)]
    return [item for item in items if item][:most]


def grade_list(
    grading: Grading, stated: Sequence[str], references: Sequence[str], codes: Sequence[str], names: Names
) -> bool:
    """Are the stated diagnoses right at a grading? A stated one that the references lack makes none of them right."""
    pairs = list(enumerate(zip(references, codes, strict=True)))
    found = [{place for place, pair in pairs if names.match(item, *pair)} for item in stated]
    if not found or not all(found):
        return False
    if grading == "principal":
        return 0 in found[0]
    return grading == "any" or len(set().union(*found)) == len(references)


def list_f1(stated: Sequence[str], references: Sequence[str], codes: Sequence[str], names: Names) -> float:
    """F1 of the stated diagnoses against the references; half a hit for the right ICD-10 category alone.

    Each reference is hit once, by the stated diagnosis that is nearest.
    """
    if not stated:
        return 0.0
    pairs = list(zip(references, codes, strict=True))
    worth = {item: [_worth(item, *pair, names) for pair in pairs] for item in stated}
    left, hits = set(range(len(pairs))), 0.0
    for value in (1.0, NEAR):
        for row in worth.values():
            near = [place for place in sorted(left) if row[place] >= value]
            if near and not (value == NEAR and 1.0 in row):
                left.discard(near[0])
                hits += value
    precision, recall = hits / len(worth), hits / len(references)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def _worth(item: str, reference: str, code: str, names: Names) -> float:
    if names.match(item, reference, code):
        return 1.0
    return NEAR if same_at("category", code or names.code(reference), names.code(item)) else 0.0
