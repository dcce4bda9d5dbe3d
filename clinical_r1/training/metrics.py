"""What a run measured, step by step: JSONL for reports and code, TensorBoard for watching."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends one row a step to `folder/metrics.jsonl` (and TensorBoard events beside it); rank 0 only.

    `folder` lives in the state directory; `publish` copies its files to the artifact. A resumed run passes the step of
    its checkpoint: rows after it are dropped, because those steps are done again.
    """

    def __init__(self, folder: Path, resume_step: int = 0, tensorboard: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_FILE
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step] if self.path.exists() else []
        self._handle = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 (closed by close())
        self._handle.writelines(json.dumps(row) + "\n" for row in kept)
        self._handle.flush()
        self._events = _summary_writer(folder / "tensorboard", resume_step) if tensorboard else None

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row: numbers by stable, flat names such as `train/loss`; NaN is left out."""
        numbers = {key: float(value) for key, value in values.items() if math.isfinite(float(value))}
        self._handle.write(json.dumps({"step": step} | {key: round(value, 8) for key, value in numbers.items()}) + "\n")
        self._handle.flush()
        if self._events is not None:
            for key, value in numbers.items():
                self._events.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close; the writer is not used afterwards."""
        self._handle.close()
        if self._events is not None:
            self._events.close()

    def publish(self, out_dir: Path) -> None:
        """Copy the rows and the events into the artifact folder."""
        out_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, out_dir / METRICS_FILE)
        events = self.folder / "tensorboard"
        if events.is_dir():
            shutil.copytree(events, out_dir / "tensorboard", dirs_exist_ok=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; a line that was cut by a crash is dropped."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the metrics.jsonl of a training run")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one name."""
    points = [(row["step"], row[key]) for row in rows if key in row]
    return [float(step) for step, _ in points], [float(value) for _, value in points]


def _summary_writer(folder: Path, resume_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)
