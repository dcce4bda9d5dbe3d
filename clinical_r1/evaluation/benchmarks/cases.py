"""Our own case files, and what the builder (`clinical_r1.evaluation.builder`) writes."""

from pathlib import Path

from clinical_r1.evaluation.inputs import read_cases
from clinical_r1.schema import Case

NAME = "cases"
ABOUT = "JSONL of schema.Case: a test split, or a benchmark built in MedBench-Hard's form"


def load(path: Path) -> list[Case]:
    """The cases of the file."""
    return read_cases(path)
