"""Names of the files that evaluation writes, and the cases it reads."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.schema import Case, Prediction, read_json, read_jsonl

CASES, PREDICTIONS, METRICS, CONFIG = "cases.jsonl", "predictions.jsonl", "metrics.json", "config.json"
THINKING = "thinking.json"
"""Accuracy against the thinking budget (thinking.Curve); only of a local model that thinks."""
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
    config, cases = read_config(folder), read_cases(folder / CASES)
    # A prediction too few, counted twice or of no case would move every figure in silence.
    path = folder / PREDICTIONS
    rows = read_jsonl(path, Prediction)
    if not {row.case_id for row in rows} <= {case.id for case in cases}:
        raise UserError(f"{path}: some predictions are of no case in {CASES} beside it; run the evaluation again")
    if len({(row.case_id, row.sample) for row in rows}) < len(rows):
        raise UserError(f"{path}: some predictions occur twice; run the evaluation again")
    if len(rows) < len(cases) * config.samples:
        wanted = f"{len(cases)} cases x {config.samples} sample(s)"
        raise UserError(f"{path}: {len(rows)} predictions of {wanted}; run the evaluation again")
    path = folder / BENCHMARK
    try:
        card = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise UserError(f"{path}: no JSON object; copy the benchmark.json of the built benchmark here again")
    return Evaluated(config.model_name or folder.parent.name, config, cases, rows, card)


def read_config(folder: Path) -> EvaluationConfig:
    """What an evaluation was told; UserError where the file is missing or none."""
    absent = "no such file; give the folder that `clinical-r1 evaluate` wrote"
    return read_json(Path(folder) / CONFIG, EvaluationConfig, absent, "run the evaluation again")


def rank(seed: int, case_id: str) -> str:
    """Where a case stands in the order of a seed; independent of the order in which the cases come."""
    return hashlib.sha256(f"{seed}:{case_id}".encode()).hexdigest()


def sample_of(cases: Sequence[Case], limit: int, seed: int = 0) -> list[Case]:
    """At most `limit` cases (0: all), drawn by a hash of seed and id, in their own order."""
    if limit <= 0 or len(cases) <= limit:
        return list(cases)
    chosen = {case.id for case in sorted(cases, key=lambda case: rank(seed, case.id))[:limit]}
    return [case for case in cases if case.id in chosen]
