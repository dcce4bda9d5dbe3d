"""MedQA in multiple-choice form, scored generatively: the model writes an answer; no answer is not an answer.

Log-likelihood scoring under-reports chat models, and a scorer that never abstains calls an empty string an option.
"""

import json
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.schema import Case

NAME = "medqa"
ABOUT = "MedQA (USMLE), JSONL with question, options {A: ...}, answer; MIT"
FILES = ("medqa.jsonl", "medqa_test.jsonl", "medqa_test_1273.jsonl")


def looks_like(row: dict) -> bool:
    """Is this a row of such a file?"""
    return isinstance(row.get("options"), dict) and {"question", "answer"} <= row.keys()


def load(path: Path) -> list[Case]:
    """Cases of a MedQA JSONL file; UserError names a bad line."""
    cases = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            options = [row["options"][letter] for letter in sorted(row["options"])]
            case = Case(
                language="en", question=row["question"], references=[row["answer"]], options=options, source=NAME
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{path}:{number}: not a MedQA row ({type(error).__name__}); give the original JSONL"
            ) from None
        cases.append(case)
    return cases
