"""What every pipeline step does around its work: read its settings, time itself, leave `step.json` behind."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import first_problem

STEP_FILE = "step.json"


@contextmanager
def record_step(name: str, out_dir: str | Path, spent: float = 0.0) -> Iterator[dict[str, object]]:
    """Time a step and write `out_dir/step.json` when it ends well; the block fills the yielded dict with metrics.

    `spent` are seconds of earlier parts of the same step (its shards).

    A step that fails leaves no step.json, so a reader never takes a half-done folder for a finished one.
    """
    metrics: dict[str, object] = {}
    start = time.monotonic()
    yield metrics
    record = {"step": name, "seconds": round(spent + time.monotonic() - start, 2), "metrics": metrics}
    write_text(Path(out_dir) / STEP_FILE, json.dumps(record, ensure_ascii=False, indent=1, default=str) + "\n")


def flat_numbers(metrics: dict[str, object], prefix: str = "") -> dict[str, float]:
    """The numbers of a nested dict under dotted names: what a KFP `Metrics` artifact can show and compare."""
    flat: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            flat |= flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float):
            flat[prefix + key] = float(value)
    return flat


def publish_metrics(metrics: dict[str, object], artifact: Any) -> None:
    """Put the numbers into a KFP `Metrics` artifact, as metadata for the dashboard and as its file.

    Without the file kfp.local takes the artifact for lost, and a finished step is never reused.
    """
    numbers = flat_numbers(metrics)
    for name, value in numbers.items():
        artifact.log_metric(name, value)
    write_text(artifact.path, json.dumps(numbers, indent=1) + "\n")


def end_of_run(run: str, state: str, task: str, code: int | None, message: str | None) -> str:
    """How a pipeline run ended, as a short Markdown page: what failed, why, and what to do."""
    if state == "SUCCEEDED":
        return f"# Run {run} ended well\n"
    why = (message or "").strip() or "the step's log tells why"
    lines = [f"# Run {run}: {state.lower()}", f"Part: `{task}`", f"Reason: {why}" + (f" (code {code})" if code else "")]
    lines.append(
        "Open the failed step (red in the graph) and read the last line of its log: wrong settings and data are named "
        "there with file, line or key. Journals and checkpoints are kept on the claim: the same run submitted again "
        "goes on from them and pays for no finished call twice."
    )
    return "\n\n".join(lines) + "\n"


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load_settings(model: type[SettingsT], text: str) -> SettingsT:
    """A step's settings from the JSON that the pipeline hands it, with `${NAME}` replaced from the environment.

    Addresses and secrets differ between places while a step's arguments (which key the cache) should not.
    Raises UserError for an unset variable or a setting that does not fit.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UserError(f"setting ${{{match[1]}}} of {model.__name__}: the step's environment has no such variable")
        return json.dumps(os.environ[match[1]])[1:-1]

    try:
        return model.model_validate_json(_VARIABLE.sub(value, text))
    except ValidationError as error:
        raise UserError(f"{model.__name__}: {first_problem(error)}") from None
