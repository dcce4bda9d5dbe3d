"""What a run measured and what the model said, step by step: JSONL for reports and code, TensorBoard for watching, and
the trackers that a team already looks at, MLflow and Weights & Biases.

Trackers stay on this machine unless the environment says otherwise: `WANDB_MODE` is offline and MLflow writes files
into the state folder, until `WANDB_MODE=online` or `MLFLOW_TRACKING_URI` is set. Numbers and settings go there, no
text.
"""

import importlib.util
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.schema import write_jsonl
from clinical_r1.strict import Strict

METRICS_FILE, SAMPLES_FILE = "metrics.jsonl", "samples.jsonl"
PEAK = {"H200": 989e12, "H100": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12, "L40": 181e12, "A10": 125e12}
"""Dense bfloat16 operations a second by GPU, as its maker states them; of others no utilisation is told."""


class TrackingConfig(Strict):
    """Where the numbers of a training go besides."""

    to: list[Literal["mlflow", "wandb"]] = Field(default_factory=list)
    """Trackers; their packages are the extra `tracking`. Empty: metrics.jsonl and TensorBoard alone."""
    project: str = "clinical-r1"
    """Experiment (MLflow) or project (W&B) that the run is put into."""
    name: str = ""
    """Of the run; empty: the tracker's own."""


class Tracker(NamedTuple):
    """One tracker of one run; the same state folder takes a closed run up again."""

    log: Callable[[dict[str, float], int], Any]
    close: Callable[[], Any]


def open_trackers(config: TrackingConfig, folder: Path, settings: dict[str, Any]) -> list[Tracker]:
    """The trackers of a run whose state folder is `folder`. Raises UserError where a package is missing."""
    check_trackers(config)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in config.to:
        record = folder / f"{name}.run"
        known = record.read_text(encoding="utf-8").strip() if record.is_file() else ""
        tracker, run = {"mlflow": _mlflow, "wandb": _wandb}[name](config, folder, flat(settings), known)
        record.write_text(run, encoding="utf-8")
        found.append(tracker)
    return found


def check_trackers(config: TrackingConfig) -> None:
    """Raise UserError where a tracker's package is not installed."""
    for name in config.to:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"tracking.to names {name}, which is not installed: install clinical-r1[tracking], or leave it out"
            )


def _mlflow(config: TrackingConfig, folder: Path, settings: dict[str, Any], known: str) -> tuple[Tracker, str]:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
    mlflow.set_experiment(config.project)
    run = mlflow.start_run(run_id=known or None, run_name=config.name or None, log_system_metrics=False)
    if not known:
        mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})
    return Tracker(mlflow.log_metrics, mlflow.end_run), run.info.run_id


def _wandb(config: TrackingConfig, folder: Path, settings: dict[str, Any], known: str) -> tuple[Tracker, str]:
    os.environ.setdefault("WANDB_MODE", "offline")
    import wandb

    name = known or secrets.token_hex(4)
    run = wandb.init(
        project=config.project, name=config.name or None, id=name, resume="allow", dir=str(folder),
        config=settings, settings=wandb.Settings(console="off", disable_code=True, disable_git=True),
    )  # fmt: skip
    # The step is a number of its own: W&B drops what comes behind a later step, as after a resume.
    return Tracker(lambda numbers, step: run.log({**numbers, "step": step}), run.finish), name


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def utilisation(parameters: int, tokens_per_s: float, processes: int) -> float | None:
    """Model FLOPs utilisation: 6 operations a weight and token over the GPUs' peak; None where that is not known."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    peak = next((value for part, value in PEAK.items() if part in name), None)
    return 6 * parameters * tokens_per_s / (peak * processes) if peak else None


class MetricsWriter:
    """Appends one row a step to `folder/metrics.jsonl` (and TensorBoard events beside it); rank 0 only.

    `folder` lives in the state directory; `publish` copies its files to the artifact. A resumed run passes the step of
    its checkpoint, and how many rows there were where a step has several checkpoints: rows after it are dropped,
    because those steps are done again.
    """

    def __init__(
        self,
        folder: Path,
        resume_step: int = 0,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
        resume_rows: int | None = None,
    ) -> None:
        self.folder, self._trackers = folder, trackers
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._samples = folder / METRICS_FILE, folder / SAMPLES_FILE
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step] if self.path.exists() else []
        kept = kept[:resume_rows]
        self.rows = len(kept)
        self._handle = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 (closed by close())
        self._handle.writelines(json.dumps(row) + "\n" for row in kept)
        self._handle.flush()
        write_jsonl(self._samples, [r for r in read_metrics(self._samples) if r["step"] <= resume_step] if kept else [])
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            purge = resume_step + 1 if resume_step else None
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row: numbers by stable, flat names such as `train/loss`; NaN is left out."""
        numbers = {key: float(value) for key, value in values.items() if math.isfinite(float(value))}
        self._handle.write(json.dumps({"step": step} | {key: round(value, 8) for key, value in numbers.items()}) + "\n")
        self._handle.flush()
        self.rows += 1
        if self._events is not None:
            for key, value in numbers.items():
                self._events.add_scalar(key, value, step)
        for tracker in self._trackers if numbers else ():
            tracker.log(numbers, step)

    def show(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Completions of a step for people to read: into `samples.jsonl`, which only its owner may read, and as a table
        into TensorBoard. The rows' texts are made fit to be seen by the caller (`scrubbed`)."""
        with open(self._samples, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step} | row, ensure_ascii=False) + "\n" for row in rows)
        if self._events is not None and rows:
            self._events.add_text("samples", _table(rows), step)

    def close(self) -> None:
        """Flush and close; the writer is not used afterwards."""
        for one in (self._handle, self._events, *self._trackers):
            if one is not None:
                one.close()

    def publish(self, out_dir: Path) -> None:
        """Copy the rows and the events into the artifact folder."""
        out_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, out_dir / METRICS_FILE)
        write_jsonl(out_dir / SAMPLES_FILE, read_metrics(self._samples))
        events = self.folder / "tensorboard"
        if events.is_dir():
            shutil.copytree(events, out_dir / "tensorboard", dirs_exist_ok=True)


def scrubbed(text: str) -> str:
    """A completion without what the PHI gate's recognisers find in it; withheld where they are in doubt.

    The model has read records only behind the gate; this is for what it may say beyond them.
    """
    from clinical_r1.privacy.gate import scrub
    from clinical_r1.privacy.known import Known, KnownFinder

    clean = scrub(text, KnownFinder(Known()), None)
    return f"[withheld: {', '.join(sorted(set(clean.doubts)))}]" if clean.doubts else clean.text


def _table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, which TensorBoard shows."""
    names = list(rows[0])
    texts = [[str(row.get(name, "")).replace("|", "\\|").replace("<", "&lt;") for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *([" ".join(text.split()) for text in line] for line in texts)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
