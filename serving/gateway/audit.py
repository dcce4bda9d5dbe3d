"""What is kept of a request: an audit line without text; and, only where it is switched on, a sample with text."""

import json
import logging
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from serving.gateway.config import Sampling
from serving.gateway.observer import AnswerObserver
from serving.gateway.request import Asked

log = logging.getLogger("clinical_r1.gateway")


class AuditLog:
    """One JSON line a request, on standard output, in a file, or nowhere."""

    def __init__(self, target: str) -> None:
        self._stream: IO[str] | None = None
        if target == "-":
            self._stream = sys.stdout
        elif target:
            try:
                self._stream = open(target, "a", encoding="utf-8")  # noqa: SIM115 (lives as long as the gateway)
            except OSError as problem:
                raise UserError(f"{target}: cannot write the audit log ({problem.strerror}); set audit_file") from None

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        if self._stream:
            self._stream.write(json.dumps({"audit": 1, **line}, separators=(",", ":")) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file, if it is one."""
        if self._stream and self._stream is not sys.stdout:
            self._stream.close()


class Sampler:
    """Keeps a share of ended answers, with their questions, for judges that work out of band.

    Whole segments only: `samples-<time>-<random>.jsonl` appears by rename. The folder holds text of patients: it is
    mounted from the store's own prefix with its retention, and nothing else may read it.
    """

    def __init__(self, config: Sampling) -> None:
        self._config = config
        self._rows: list[dict[str, Any]] = []
        self._random = random.SystemRandom()
        if config.rate > 0 and config.folder is None:
            raise UserError("sampling.folder: is not set though sampling.rate is above 0; name the mounted folder")

    def take(self, request_id: str, asked: Asked, answers: list[AnswerObserver], model_version: str) -> bool:
        """Perhaps keep one answer of this request; True if it was kept. Aborted answers are not kept."""
        if not self._config.rate or self._random.random() >= self._config.rate:
            return False
        answer = self._random.choice(answers)
        if answer.split is None or answer.outcome is Outcome.ABORTED:
            return False
        self._rows.append(
            {
                "request_id": request_id,
                "recorded": datetime.now(UTC).date().isoformat(),
                "model_version": model_version,
                "language": asked.language,
                "messages": asked.messages,
                "thinking": answer.split.thinking,
                "response": answer.split.response,
                "outcome": answer.outcome.value,
                "rate": self._config.rate,
            }
        )
        if len(self._rows) >= self._config.segment:
            self.flush()
        return True

    def flush(self) -> Path | None:
        """Write what is held as one segment."""
        if not self._rows or self._config.folder is None:
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = self._config.folder / f"samples-{stamp}-{self._random.getrandbits(32):08x}.jsonl"
        rows, self._rows = self._rows, []
        try:
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        except OSError:
            log.warning("an audit sample of %d answers could not be written and is lost", len(rows))
            return None
        return path
