"""The audit line of each request: who, when, what came of it; no text.

A thread of its own writes, so that a full disk or a reader that stalls holds up no request. Lines that could not be
written are counted and alerted; where the line is required, requests are refused as long as none can be written.
"""

import os
import queue
import threading
import time
from typing import Any

import orjson

from clinical_r1.errors import UserError
from serving.metrics import GatewayMetrics

MOST_WAITING = 10_000
"""Lines that may wait for the writer; more are lost and counted."""
STALLED_SECONDS = 5.0
"""A single write that takes longer is a reader that stalls."""
LAST_SECONDS = 2.0
"""How long the end of the process waits for the writer."""


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
