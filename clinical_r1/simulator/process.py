"""Start the simulated endpoint as its own process and stop it again: for `run`, tests and benchmarks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clinical_r1.errors import UserError

START_TIMEOUT = 60.0
"""Seconds that a server may take to listen; it takes under one on an idle machine."""


@contextmanager
def running_simulator(*arguments: str, keys: Sequence[Path] = (), log: Path | None = None) -> Iterator[str]:
    """Run `clinical_r1.simulator.server` with further arguments; yields its base URL (up to /v1).

    `keys` are case files whose references it may use; `log` takes its output. The server ends with the block, and
    also when this process dies. Raises UserError where it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        ready = Path(folder) / "ready.json"
        output = Path(folder) / "output.txt" if log is None else log
        command = [sys.executable, "-m", "clinical_r1.simulator.server", "--ready-file", str(ready)]
        command += ["--parent", str(os.getpid()), *(part for key in keys for part in ("--key", str(key))), *arguments]
        with open(output, "wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            yield _await_ready(process, ready, output)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(process: subprocess.Popen[bytes], ready: Path, output: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = output.read_text(errors="replace").strip().splitlines()
            raise UserError(f"simulator: the endpoint did not start ({lines[-1] if lines else 'no output'})")
        time.sleep(0.02)
    return str(json.loads(ready.read_text())["base_url"])
