"""`clinical-r1 run audit`: the audit of served answers on this machine."""

import json
import os
import time
from pathlib import Path

from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.online import REPORT, SUMMARY, OnlineAuditConfig
from clinical_r1.runs.config import as_argument
from clinical_r1.settings import Document
from clinical_r1.version import code_version
from pipelines.local_run import LocalJob, only_run, run_local


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
    document = Document.read(config_file) if config_file else Document()
    for override in overrides:
        document.set(override)
    if "store" not in document.data:
        raise UserError("audit: no store; give the gateway's sampling.store: --set store=s3://BUCKET/PREFIX")
    config = document.validate(OnlineAuditConfig)
    if "://" not in config.store and "${" not in config.store:
        config = config.model_copy(update={"store": str(Path(config.store).resolve())})  # steps run in another folder
    return config
