"""Names of the files that evaluation writes, and the cases it reads."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.schema import Case, Prediction, first_problem, read_jsonl

CASES, PREDICTIONS, METRICS, CONFIG = "cases.jsonl", "predictions.jsonl", "metrics.json", "config.json"
BENCHMARK = "benchmark.json"
"""The card of a built benchmark, beside its cases and beside predictions on them."""


def read_cases(path: Path) -> list[Case]:
    """The cases of a file; raises UserError where there are none, or where an id occurs twice."""
    rows = read_jsonl(path, Case)
    if not rows:
        raise UserError(f"{path}: no cases in it; give a file with one case a line")
    if len({case.id for case in rows}) < len(rows):
        raise UserError(f"{path}: some case ids occur twice; give each case its own id")
    return rows


class Evaluated(NamedTuple):
    """What the folder of one evaluation holds."""

    name: str
    """How the model is called."""
    config: EvaluationConfig
    cases: list[Case]
    predictions: list[Prediction]
    benchmark: dict[str, Any]
    """benchmark.json of a built benchmark; empty for others."""


def read_evaluated(folder: Path) -> Evaluated:
    """Read the folder of a finished evaluation; UserError where it is none."""
    folder = Path(folder)
    missing = next((name for name in (CONFIG, CASES, PREDICTIONS) if not (folder / name).is_file()), None)
    if missing:
        raise UserError(f"{folder}: no {missing} in it; give the folder that `clinical-r1 evaluate` wrote")
    try:
        config = EvaluationConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UserError(f"{folder / CONFIG}: {first_problem(error)}; run the evaluation again") from None
    card = folder / BENCHMARK
    try:
        benchmark = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    except ValueError:
        raise UserError(f"{card}: not JSON; copy the benchmark.json of the built benchmark here again") from None
    return Evaluated(
        name=config.model_name or folder.parent.name,
        config=config,
        cases=read_cases(folder / CASES),
        predictions=read_jsonl(folder / PREDICTIONS, Prediction),
        benchmark=benchmark,
    )
