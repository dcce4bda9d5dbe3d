"""`clinical-r1 run audit`: the audit of served answers on this machine."""

import json
import os
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.online import REPORT, SUMMARY, OnlineAuditConfig
from clinical_r1.schema import first_problem
from pipelines.config import apply_override, as_argument, read_yaml
from pipelines.local_run import LocalJob, only_run, run_local
from pipelines.version import code_version


def run_audit(config_file: str, overrides: list[str], runs_dir: Path) -> Path:
    """Judge what is in the store; returns the run's folder. Raises UserError."""
    config = _load(config_file, overrides)
    runs_dir = runs_dir.resolve()
    state_dir = runs_dir / ".state" / "audit"
    run_dir = runs_dir / time.strftime("%Y%m%d-%H%M%S-audit")
    arguments: dict[str, object] = {"config": as_argument(config)}
    arguments |= {"state_dir": str(state_dir), "code_version": code_version()}
    console = Console(soft_wrap=True)
    with only_run(state_dir) as lock:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_local(LocalJob("audit", arguments, runs_dir, run_dir, {"audit-answers": "audit"}, "audit", lock), console)
    report = Path(json.loads((run_dir / "outputs.json").read_text(encoding="utf-8"))["report"])
    for name in (REPORT, SUMMARY):
        write_text(run_dir / name, (report / name).read_text(encoding="utf-8"))
    console.print(f"report: {os.path.relpath(run_dir / REPORT)}", markup=False)
    return run_dir


def _load(config_file: str, overrides: list[str]) -> OnlineAuditConfig:
    """From a YAML file, `--set`, or both."""
    data: Any = {}
    where = config_file or "--set"
    if config_file:
        path = Path(config_file)
        if not path.is_file():
            raise UserError(f"--config {path}: no such file; give the audit's YAML, or --set store=FOLDER")
        data = read_yaml(path) or {}
        if not isinstance(data, dict):
            raise UserError(f"{path}: holds no mapping; write `store: s3://BUCKET/PREFIX`")
    for override in overrides:
        apply_override(data, override)
    if "store" not in data:
        raise UserError("audit: no store; give the gateway's sampling.store: --set store=s3://BUCKET/PREFIX")
    store = str(data["store"])
    if "://" not in store and "${" not in store:
        data["store"] = str(Path(store).resolve())  # steps run in another folder
    try:
        return OnlineAuditConfig.model_validate(data)
    except ValidationError as problem:
        raise UserError(f"{where}: {first_problem(problem)}") from None
