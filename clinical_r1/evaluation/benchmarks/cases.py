"""Our own case files, and what the builder (`clinical_r1.evaluation.builder`) writes."""

from pathlib import Path

from clinical_r1.evaluation.inputs import read_cases
from clinical_r1.schema import Case

NAME = "cases"
ABOUT = "JSONL of schema.Case: a test split, or a benchmark built in MedBench-Hard's form"
FILES = ("cases.jsonl", "test.jsonl")


def looks_like(row: dict) -> bool:
    """Is this a row of such a file?"""
    return {"language", "question"} <= row.keys() and not row.keys().isdisjoint({"reference", "references"})


def load(path: Path) -> list[Case]:
    """The cases of the file."""
    return read_cases(path)
