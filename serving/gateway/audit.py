"""The audit line of each request: who, when, what came of it; no text."""

import sys
from typing import IO, Any

import orjson

from clinical_r1.errors import UserError


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
            self._stream.write(orjson.dumps({"audit": 1, **line}).decode() + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file, if it is one."""
        if self._stream and self._stream is not sys.stdout:
            self._stream.close()
