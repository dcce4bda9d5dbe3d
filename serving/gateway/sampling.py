"""Audit sampling: a share of the answers, with their questions, for judges that work out of band. Off by default."""

import json
import logging
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from serving.gateway.config import Sampling
from serving.gateway.observer import AnswerObserver
from serving.gateway.request import Asked
from serving.metrics import GatewayMetrics

log = logging.getLogger("clinical_r1.gateway")
MOST_WAITING = 8
"""Segments that may wait for the store; more are dropped and counted, so that a dead store costs no memory."""


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
        if self._waiting >= MOST_WAITING:
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
