"""What the simulated teacher and judge are told to be, and their start beside a run or a step.

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
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.settings import Seed
from clinical_r1.strict import Strict

ADDRESS_VARIABLE = "CLINICAL_R1_SIMULATOR"
"""host:port; configurations write it as http://${CLINICAL_R1_SIMULATOR}/v1."""
PATIENT_KEY = "patients of the simulated world are not people"
"""Hashes the patient numbers of the simulated world; records of people need a secret of the user's."""
_START_SECONDS = 60
Share = Annotated[float, Field(ge=0, le=1)]


class Failures(Strict):
    """Shares of attempts that go wrong on purpose; which ones is a function of (seed, request, attempt number)."""

    rate_limited: Share = 0.0
    """HTTP 429 with Retry-After."""
    server_error: Share = 0.0
    """HTTP 500."""
    hang: Share = 0.0
    """The request is taken and never answered."""
    malformed: Share = 0.0
    """A reply whose JSON is broken."""
    truncated: Share = 0.0
    """A reply cut off, with finish_reason `length`."""
    retry_after: float = Field(default=1.0, ge=0)
    """Seconds that a 429 asks to wait."""


class SimulatorConfig(Strict):
    """Knobs of the simulated teacher and judge."""

    seed: Seed = 0
    """All randomness derives from it and from the request."""
    model: str = "simulated-clinician"
    """The model id that it lists and returns."""
    competence: Share | None = None
    """Chance that a try is careful: for the world's cases None keeps the teacher's own mix of care (see teacher.py);
    for cases from outside it is the chance of a right answer, 0.6 if None."""
    careful: Share | None = None
    """For the world's cases alone, in place of competence."""
    latency_ms: float = Field(default=0.0, ge=0)
    """Added to every reply."""
    failures: Failures = Field(default_factory=Failures)
    """What goes wrong."""
    json_mode: Literal["schema", "object", "refused"] = "schema"
    """The strongest response_format that it takes; others are answered with HTTP 400."""
    judge_error: Share = 0.0
    """Chance that a judgement is turned around."""
    judge_leniency: Share = 0.0
    """Chance that a wrong answer is accepted (a bias, beside judge_error)."""

    @property
    def world_care(self) -> float | None:
        """Chance that a try at one of the world's cases is careful; None: the teacher's own."""
        return self.competence if self.careful is None else self.careful


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
            deadline = time.monotonic() + _START_SECONDS
            while not ready_file.is_file():
                if process.poll() is not None:
                    what = f"ended with code {process.returncode} at its start"
                    raise UserError(f"the simulated endpoint {what}: see {log}")
                if time.monotonic() > deadline:
                    raise UserError(f"the simulated endpoint was not ready after {_START_SECONDS} s: see {log}")
                time.sleep(0.05)
            url = str(json.loads(ready_file.read_text(encoding="utf-8"))["base_url"])
            os.environ[variable] = urlsplit(url).netloc
            yield url
        finally:
            os.environ.pop(variable, None)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
