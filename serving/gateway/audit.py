"""What is kept of requests: an audit line of each (who, when, what came of it; no text), and, off by default, a share
of the answers with their questions for judges that work out of band.

Threads of their own write, so that a full disk, a reader that stalls or a dead store holds up no request. What could
not be written is counted and alerted; where the audit line is required, requests are refused as long as none can be.
"""

import json
import logging
import os
import queue
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import orjson

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from serving.gateway.config import Sampling
from serving.gateway.observer import AnswerObserver
from serving.gateway.request import Asked
from serving.metrics import GatewayMetrics

MOST_WAITING = 10_000
"""Lines that may wait for the writer; more are lost and counted."""
STALLED_SECONDS = 5.0
"""A single write that takes longer is a reader that stalls."""
LAST_SECONDS = 2.0
"""How long the end of the process waits for the writer."""
MOST_SEGMENTS = 8
"""Segments that may wait for the store; more are dropped and counted, so that a dead store costs no memory."""
log = logging.getLogger("clinical_r1.gateway")


class AuditLog:
    """One JSON line a request, on standard output, in a file, or nowhere."""

    def __init__(self, target: str, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._failing = False
        self._began = 0.0
        """When the write under way began, 0 between two."""
        self._thread: threading.Thread | None = None
        if not target:
            return
        try:
            # Unbuffered and apart from sys.stdout: nothing of it is left to be flushed at the interpreter's end.
            self._file = os.dup(1) if target == "-" else os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as problem:
            raise UserError(f"{target}: cannot write the audit log ({problem.strerror}); set audit_file") from None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def failing(self) -> bool:
        """No line can be written now: the last write failed, or one has been under way for too long."""
        began = self._began
        failing = self._failing or (began > 0 and time.monotonic() - began > STALLED_SECONDS) or self._lines.full()
        self._metrics.audit_failing_child.set(int(failing))
        return failing

    def write(self, line: dict[str, Any]) -> None:
        """Hand one line over; never waits."""
        if not self._thread:
            return
        try:
            self._lines.put_nowait(orjson.dumps({"audit": 1, **line}) + b"\n")
        except queue.Full:
            self._metrics.audit_lost_child.inc()

    def close(self) -> None:
        """Write what is left, within bounds. Blocks; call it in a thread."""
        if not self._thread:
            return
        try:
            self._lines.put(None, timeout=LAST_SECONDS)
            self._thread.join(LAST_SECONDS)
        except queue.Full:
            self._metrics.audit_lost_child.inc(self._lines.qsize())

    def _run(self) -> None:
        torn = b""  # a line that the disk took half of is ended before the next
        while (line := self._lines.get()) is not None:
            rest = torn + line
            self._began = time.monotonic()
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                torn, self._failing = b"", False
            except OSError:
                torn = b"\n" if len(rest) < len(torn + line) else torn
                self._failing = True
                self._metrics.audit_lost_child.inc()
            self._began = 0.0
        os.close(self._file)


class Sampler:
    """Collects kept answers and writes them as whole segments `samples/VERSION/DATE/TIME-RANDOM.jsonl` into the store.

    They hold text of patients: the store's prefix is to be encrypted, readable by the audit job alone, and emptied by
    its retention. Writing happens in a thread of its own; a store that does not answer holds up no request.
    """

    def __init__(self, config: Sampling, metrics: GatewayMetrics) -> None:
        self._config, self._metrics = config, metrics
        self._rows: list[dict[str, Any]] = []
        self._oldest = 0.0
        self._waiting = 0
        self._random = random.SystemRandom()
        if config.rate > 0:
            if not config.store:
                raise UserError("sampling.store: is not set though sampling.rate is above 0; name s3://BUCKET/PREFIX")
            from clinical_r1.objectstore.store import open_store

            self._store = open_store(config.store)
            self._thread = ThreadPoolExecutor(1, "samples")

    def take(self, request_id: str, asked: Asked, answers: Sequence[AnswerObserver]) -> None:
        """Perhaps keep one answer of this request. Aborted answers are not kept."""
        if not self._config.rate or self._random.random() >= self._config.rate:
            return
        answer = self._random.choice(answers)
        if answer.split is None or answer.outcome is Outcome.ABORTED:
            return
        count = answer.count()
        if not self._rows:
            self._oldest = time.monotonic()
        self._rows.append(
            {
                "request_id": request_id,
                "recorded": datetime.now(UTC).date().isoformat(),
                "model_version": self._metrics.model_version,
                "language": asked.language,
                "messages": asked.messages,
                "thinking": answer.split.thinking,
                "response": answer.split.response,
                "outcome": answer.outcome.value,
                "reasoning_tokens": count.reasoning if count else None,
                "rate": self._config.rate,
            }
        )
        self._metrics.sampled.labels(self._metrics.model_version).inc()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Hand a segment over once it is full or old enough."""
        full = len(self._rows) >= self._config.segment
        if self._rows and (full or time.monotonic() - self._oldest > self._config.seconds):
            self._hand_over()

    def close(self) -> None:
        """Write what is left. Blocks; call it in a thread."""
        if self._config.rate:
            self._hand_over()
            self._thread.shutdown(wait=True)

    def _hand_over(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        if self._waiting >= MOST_SEGMENTS:
            self._lose(len(rows))
            return
        self._waiting += 1
        self._thread.submit(self._write, rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        now = datetime.now(UTC)
        version = re.sub(r"[^A-Za-z0-9._-]", "-", self._metrics.model_version)
        key = f"samples/{version}/{now:%Y-%m-%d}/{now:%H%M%S}-{self._random.getrandbits(32):08x}.jsonl"
        try:
            self._store.put(key, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        except (UserError, OSError) as problem:
            log.warning("a segment of audit samples could not be stored (%s)", type(problem).__name__)
            self._lose(len(rows))
        finally:
            self._waiting -= 1

    def _lose(self, rows: int) -> None:
        self._metrics.samples_lost.labels(self._metrics.model_version).inc(rows)
