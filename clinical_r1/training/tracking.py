"""Experiment trackers that a team already looks at, beside metrics.jsonl and TensorBoard: MLflow and Weights & Biases.

Both stay on this machine unless the environment says otherwise: `WANDB_MODE` is offline and MLflow writes files into
the state folder, until `WANDB_MODE=online` or `MLFLOW_TRACKING_URI` is set. Numbers and settings go there, no text.
"""

import importlib.util
import os
import secrets
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from clinical_r1.errors import Strict, UserError

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


class Tracker(Protocol):
    """One tracker of one run."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """The numbers of a step."""

    def close(self) -> None:
        """The run has ended here; the same state folder takes it up again."""


class _MLflow:
    def __init__(self, config: TrackingConfig, folder: Path, settings: dict[str, Any]) -> None:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        mlflow.set_experiment(config.project)
        known = _known(folder / "mlflow.run")
        run = mlflow.start_run(run_id=known or None, run_name=config.name or None, log_system_metrics=False)
        (folder / "mlflow.run").write_text(run.info.run_id, encoding="utf-8")
        if not known:
            mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})
        self._mlflow = mlflow

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._mlflow.log_metrics(numbers, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _Wandb:
    def __init__(self, config: TrackingConfig, folder: Path, settings: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        import wandb

        known = _known(folder / "wandb.run") or secrets.token_hex(4)
        (folder / "wandb.run").write_text(known, encoding="utf-8")
        self._run = wandb.init(
            project=config.project, name=config.name or None, id=known, resume="allow", dir=str(folder),
            config=settings, settings=wandb.Settings(console="off", disable_code=True, disable_git=True),
        )  # fmt: skip

    def log(self, step: int, numbers: dict[str, float]) -> None:
        # With the step as a number of its own: W&B drops what comes behind a later step, as after a resume.
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        self._run.finish()


def open_trackers(config: TrackingConfig, folder: Path, settings: dict[str, Any]) -> list[Tracker]:
    """The trackers of a run whose state folder is `folder`. Raises UserError where a package is missing."""
    check_trackers(config)
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, type[_MLflow] | type[_Wandb]] = {"mlflow": _MLflow, "wandb": _Wandb}
    return [kinds[name](config, folder, flat(settings)) for name in config.to]


def check_trackers(config: TrackingConfig) -> None:
    """Raise UserError where a tracker's package is not installed."""
    for name in config.to:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"tracking.to names {name}, which is not installed: install clinical-r1[tracking], or leave it out"
            )


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


def _known(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
