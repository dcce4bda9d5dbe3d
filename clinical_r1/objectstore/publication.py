"""A finished run of the train pipeline as a published model: its folders become facts of the manifest."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from clinical_r1.atomic import file_sha256
from clinical_r1.baseline import FILE_NAME as BASELINE
from clinical_r1.errors import UserError
from clinical_r1.objectstore.manifest import GATE, Facts, Gate, ModelManifest
from clinical_r1.objectstore.model_registry import register_in_mlflow
from clinical_r1.objectstore.models import publish
from clinical_r1.objectstore.store import open_store

_BESIDE = {"report": ("MODEL_CARD.md", "README.md"), "gate": (BASELINE, GATE)}
_DATASETS = {"splits": ("sft.jsonl", "rl.jsonl", "validation.jsonl"), "traces": ("traces.jsonl",)}


def publish_run(
    models_uri: str, name: str, model: Path, folders: dict[str, Path], settings: str, facts: dict[str, str]
) -> ModelManifest:
    """Publish `model` with what the steps wrote in `folders` (splits, traces, predictions, gate, report).

    `settings` is a JSON object of the sections that the run was told; `facts` holds run_id, code_version and
    sources_sha256. Card, reasoning baseline and gate travel beside the weights: serving reads the baseline there. Where
    the training was tracked in MLflow, at MLFLOW_TRACKING_URI, the version is registered there too.
    """
    config: dict[str, Any] = json.loads(settings)
    extra = {file: folders[key] / file for key, files in _BESIDE.items() for file in files}
    base = config.get("base_model", {})
    known = Facts(
        base_model=base.get("folder") or "a tiny model from scratch",
        base_revision=base.get("revision", ""),
        datasets={"sources": facts["sources_sha256"]} | _hashes(folders),
        benchmarks={"test": file_sha256(folders["splits"] / "test.jsonl")},
        code_version=facts["code_version"],
        config=config,
        run_id=facts["run_id"],
        evaluation=[json.loads((folders["predictions"] / "metrics.json").read_text(encoding="utf-8"))],
        gate=Gate.model_validate_json((folders["gate"] / GATE).read_text(encoding="utf-8")),
        baseline=json.loads((folders["gate"] / BASELINE).read_text(encoding="utf-8")),
        licence=base.get("licence", ""),
    )
    present = {file: path for file, path in extra.items() if path.is_file()}
    store = open_store(models_uri)
    published = publish(store, name, model, known, present, by=facts["run_id"])
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if server and any(
        "mlflow" in (config.get(step) or {}).get("tracking", {}).get("to", []) for step in ("sft", "ppo")
    ):
        try:
            print(f"registered in MLflow: {register_in_mlflow(store, name, published.version, server)}", flush=True)
        except UserError as error:  # the manifest is the truth, and it is written
            print(f"{error}; register it with `clinical-r1 models register {name} --mlflow URI`", file=sys.stderr)
    return published


def _hashes(folders: dict[str, Path]) -> dict[str, str]:
    paths = {file: folders[key] / file for key, files in _DATASETS.items() for file in files}
    return {file.removesuffix(".jsonl"): file_sha256(path) for file, path in paths.items()}
