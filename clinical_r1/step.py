"""What every pipeline step does around its work: read its settings, time itself, leave `step.json` behind.

And the version of the code that runs in the steps, for cache keys.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import first_problem
from clinical_r1.settings import VARIABLE

STEP_FILE = "step.json"
TERMINATION_LOG = Path("/dev/termination-log")
CONTENTS = "contents"
"""Key beside a step's settings: digests of the files that they name (`clinical_r1.runs.sources`)."""
SettingsT = TypeVar("SettingsT", bound=BaseModel)
_SUFFIXES = {".py", ".yaml", ".yml", ".j2", ".json", ".html", ".css", ".js", ".md", ".tsv"}


@contextmanager
def record_step(name: str, out_dir: str | Path, spent: float = 0.0) -> Iterator[dict[str, object]]:
    """Time a step and write `out_dir/step.json` when it ends well; the block fills the yielded dict with metrics.

    `spent` are seconds of earlier parts of the same step (its shards).

    A step that fails leaves no step.json, so a reader never takes a half-done folder for a finished one.
    """
    metrics: dict[str, object] = {}
    start = time.monotonic()
    with one_sentence(name):
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


@contextmanager
def one_sentence(step: str) -> Iterator[None]:
    """Put what went wrong where a person looks: on the failed step of the dashboard, and last in its log.

    In a pod Kubernetes shows what a container wrote to its termination log as the reason of its end. A fault of ours
    keeps its traceback; its message stays out of the dashboard, since it may hold text of a record.
    """
    try:
        yield
    except UserError as error:
        _say_in_the_end(f"{step}: {error}")
        if os.environ.get("_KFP_RUNTIME") == "true":
            sys.exit(f"error: {error}")
        raise
    except Exception as error:
        _say_in_the_end(f"{step}: {type(error).__name__}, a fault of clinical-r1: the step's log has the traceback")
        raise


def _say_in_the_end(sentence: str) -> None:
    if TERMINATION_LOG.exists():
        with suppress(OSError):
            TERMINATION_LOG.write_text(sentence[:1000] + "\n", encoding="utf-8")  # the kubelet keeps 4096 bytes


def load_settings(model: type[SettingsT], text: str) -> SettingsT:
    """A step's settings from the JSON that the pipeline hands it, with `${NAME}` replaced from the environment.

    Addresses and secrets differ between places while a step's arguments (which key the cache) should not.
    Digests of the files that settings name are there for the cache alone, and are left out. Raises UserError for an
    unset variable or a setting that does not fit.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UserError(f"setting ${{{match[1]}}} of {model.__name__}: the step's environment has no such variable")
        return json.dumps(os.environ[match[1]])[1:-1]

    told = json.loads(VARIABLE.sub(value, text))
    told.pop(CONTENTS, None)
    try:
        return model.model_validate_json(json.dumps(told))
    except ValidationError as error:
        raise UserError(f"{model.__name__}: {first_problem(error)}") from None


def code_version() -> str:
    """First 12 hex digits of the SHA-256 over the library's and the components' files (names and contents)."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in ("clinical_r1", "components"):
        for path in sorted((root / folder).rglob("*")):
            # What `runs` makes of a configuration stands in the arguments of the steps.
            if path.suffix in _SUFFIXES and not {"__pycache__", "runs"} & set(path.parts[len(root.parts) :]):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
