"""What a run has finished so far: one JSON line a prediction, appended and fsynced, so that a kill loses one batch.

A file belongs to one fingerprint (model, cases, sampling); another fingerprint is another file, never a mixture.
Unlike `llm.journal`, which keeps single paid calls of any prompt by keyed hash, this keeps finished rows of one job.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

RowT = TypeVar("RowT", bound=BaseModel)


class RowJournal(Generic[RowT]):
    """Rows of one kind in `folder/<name>-<fingerprint>.jsonl`."""

    def __init__(self, folder: Path, name: str, fingerprint: str, kind: type[RowT]) -> None:
        self.path = Path(folder) / f"{name}-{fingerprint}.jsonl"
        self._kind = kind

    def read(self) -> list[RowT]:
        """Rows of earlier runs; a last line that a kill cut short is dropped from the file."""
        if not self.path.is_file():
            return []
        rows, good = [], 0
        data = self.path.read_bytes()
        for line in data.splitlines(keepends=True):
            try:
                rows.append(self._kind.model_validate_json(line))
            except ValidationError:
                break
            if not line.endswith(b"\n"):
                rows.pop()
                break
            good += len(line)
        if good < len(data):
            with open(self.path, "r+b") as handle:
                handle.truncate(good)
        return rows

    def append(self, rows: Iterable[RowT]) -> None:
        """Add rows; they are on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.writelines(row.model_dump_json() + "\n" for row in rows)
            handle.flush()
            os.fsync(handle.fileno())


def fingerprint(*parts: object) -> str:
    """Short hash of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
