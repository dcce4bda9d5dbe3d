"""References that are lists: which diagnoses an answer states, are they the reference's, and F1 over the list."""

import re
from collections.abc import Sequence

from clinical_r1.reasoning import conclusion_line
from clinical_r1.references import split_references
from clinical_r1.verifier.icd import same_at
from clinical_r1.verifier.judgement import Grading
from clinical_r1.verifier.names import Names
from clinical_r1.verifier.normalise import plain
from clinical_r1.verifier.reading import RULE, after_frame

_BETWEEN = re.compile(r"[,，、;；+&\n]|\band\b|\bwith\b|和|及|以及|与|伴有?|合并")
_NOT_STATED = re.compile(
    r"\b(?:not|no|without|possib\w+|suspect\w*|exclud\w+|ruled out|unlikely|or|versus|vs|differential"
    r"|history)\b|[?？]|待|疑|排除|除外|不|或|鉴别|可能|史$",
    re.I,
)
NEAR = 0.5
"""Credit of a stated diagnosis that shares the ICD-10 category with one of the reference's."""


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
    found = [_places(item, references, codes, names) for item in stated]
    if not found or not all(found):
        return False
    if grading == "principal":
        return 0 in found[0]
    return grading == "any" or len(set().union(*found)) == len(references)


def _places(item: str, references: Sequence[str], codes: Sequence[str], names: Names) -> set[int]:
    return {
        place
        for place, (reference, code) in enumerate(zip(references, codes, strict=True))
        if names.match(item, reference, code)
    }


def list_f1(stated: Sequence[str], references: Sequence[str], codes: Sequence[str], names: Names) -> float:
    """F1 of the stated diagnoses against the references; half a hit for the right ICD-10 category alone.

    Each reference is hit once, by the stated diagnosis that is nearest.
    """
    if not stated:
        return 0.0
    open_places, hits = set(range(len(references))), 0.0
    for value in (1.0, NEAR):
        for item in dict.fromkeys(stated):
            near = [
                place for place in sorted(open_places) if _worth(item, references[place], codes[place], names) >= value
            ]
            taken = value == NEAR and any(names.match(item, references[p], codes[p]) for p in range(len(references)))
            if near and not taken:
                open_places.discard(near[0])
                hits += value
    precision, recall = hits / len(set(stated)), hits / len(references)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def _worth(item: str, reference: str, code: str, names: Names) -> float:
    if names.match(item, reference, code):
        return 1.0
    return NEAR if same_at("category", code or names.code(reference), names.code(item)) else 0.0
