"""Names of the files that evaluation writes, and the cases it reads."""

from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.schema import Case, read_jsonl

PREDICTIONS, METRICS = "predictions.jsonl", "metrics.json"


def read_cases(path: Path) -> list[Case]:
    """The cases of a file; raises UserError where there are none, or where an id occurs twice."""
    rows = read_jsonl(path, Case)
    if not rows:
        raise UserError(f"{path}: no cases in it; give a file with one case a line")
    if len({case.id for case in rows}) < len(rows):
        raise UserError(f"{path}: some case ids occur twice; give each case its own id")
    return rows
