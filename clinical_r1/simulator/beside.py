"""Starts the simulated teacher and judge (clinical_r1.simulator.server) beside a run, and stops it after.

Only the `run` command does this; everything else knows a base URL. The URL goes to the steps through the environment,
so that a new port does not change any step's arguments (and with them its cache key).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from clinical_r1.errors import UserError

ADDRESS_VARIABLE = "CLINICAL_R1_SIMULATOR"
"""host:port; configurations write it as http://${CLINICAL_R1_SIMULATOR}/v1."""
_START_SECONDS = 60


@contextmanager
def simulated_endpoint(
    arguments: list[str], log: Path, ready_file: Path, variable: str = ADDRESS_VARIABLE
) -> Iterator[str]:
    """Run the server as a child process; yields its base URL, such as http://127.0.0.1:41234/v1.

    Its host and port stand in the environment `variable` meanwhile.
    """
    ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "clinical_r1.simulator.server", "--port", "0"]
    command += ["--ready-file", str(ready_file), "--parent", str(os.getpid())]
    with open(log, "ab") as output:
        process = subprocess.Popen([*command, *arguments], stdout=output, stderr=output, start_new_session=True)
        try:
            url = _wait_until_ready(process, ready_file, log)
            os.environ[variable] = urlsplit(url).netloc
            yield url
        finally:
            os.environ.pop(variable, None)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen, ready_file: Path, log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"the simulated endpoint ended with code {process.returncode} at its start: see {log}")
        if ready_file.is_file():
            return str(json.loads(ready_file.read_text(encoding="utf-8"))["base_url"])
        time.sleep(0.05)
    raise UserError(f"the simulated endpoint was not ready after {_START_SECONDS} s: see {log}")
