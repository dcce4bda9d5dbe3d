"""What a run measured and what the model said, step by step: JSONL for reports and code, TensorBoard for watching."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinical_r1.charts import read_metrics
from clinical_r1.schema import write_jsonl
from clinical_r1.training.tracking import Tracker

METRICS_FILE, SAMPLES_FILE = "metrics.jsonl", "samples.jsonl"


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
        self.path = folder / METRICS_FILE
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step] if self.path.exists() else []
        kept = kept[:resume_rows]
        self.rows = len(kept)
        self._handle = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 (closed by close())
        self._handle.writelines(json.dumps(row) + "\n" for row in kept)
        self._handle.flush()
        self._samples = folder / SAMPLES_FILE
        said = [row for row in read_metrics(self._samples) if row["step"] <= resume_step] if kept else []
        write_jsonl(self._samples, said)
        self._events = _summary_writer(folder / "tensorboard", resume_step) if tensorboard else None

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
            tracker.log(step, numbers)

    def show(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Completions of a step for people to read: into `samples.jsonl`, which only its owner may read, and as a table
        into TensorBoard. The rows' texts are made fit to be seen by the caller (`scrubbed`)."""
        with open(self._samples, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step} | row, ensure_ascii=False) + "\n" for row in rows)
        if self._events is not None and rows:
            self._events.add_text("samples", _table(rows), step)

    def close(self) -> None:
        """Flush and close; the writer is not used afterwards."""
        self._handle.close()
        if self._events is not None:
            self._events.close()
        for tracker in self._trackers:
            tracker.close()

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
    from clinical_r1.privacy.known import Known, KnownFinder
    from clinical_r1.privacy.scrub import scrub

    clean = scrub(text, KnownFinder(Known()), None)
    return f"[withheld: {', '.join(sorted(set(clean.doubts)))}]" if clean.doubts else clean.text


def _table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, which TensorBoard shows."""
    names = list(rows[0])

    def cell(value: Any) -> str:
        return " ".join(str(value).replace("|", "\\|").split()).replace("<", "&lt;")

    lines = [names, ["---"] * len(names), *([cell(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary_writer(folder: Path, resume_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)
