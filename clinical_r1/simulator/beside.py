"""Starts the simulated teacher and judge (clinical_r1.simulator.server) beside a run or a step, and stops it after.

Everything else knows a base URL. It reaches the steps through the environment, so that a new port does not change any
step's arguments (and with them its cache key). On one machine a run has one endpoint; on a cluster it is the chart's,
or where that has none each step starts its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from clinical_r1.errors import UserError
from clinical_r1.simulator.config import SimulatorConfig

ADDRESS_VARIABLE = "CLINICAL_R1_SIMULATOR"
"""host:port; configurations write it as http://${CLINICAL_R1_SIMULATOR}/v1."""
PATIENT_KEY = "patients of the simulated world are not people"
"""Hashes the patient numbers of the simulated world; records of people need a secret of the user's."""
_START_SECONDS = 60


@contextmanager
def simulated(told: str) -> Iterator[None]:
    """The endpoints that a step was told to simulate: JSON of variable -> SimulatorConfig, empty for none.

    A variable that is set names an endpoint that is there already.
    """
    wanted = json.loads(told) if told else {}
    with ExitStack() as stack:
        for variable, settings in wanted.items():
            if os.environ.get(variable):
                continue
            folder = Path(stack.enter_context(TemporaryDirectory()))
            arguments = arguments_of(SimulatorConfig.model_validate(settings))
            stack.enter_context(simulated_endpoint(arguments, folder / "log", folder / "ready", variable))
        yield


def arguments_of(endpoint: SimulatorConfig) -> list[str]:
    """Command-line arguments of the server."""
    settings = endpoint.model_dump(mode="json", exclude_none=True)
    settings |= settings.pop("failures")
    return [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]


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
