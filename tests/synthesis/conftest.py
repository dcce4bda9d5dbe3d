"""A simulated endpoint in a process of its own for the tests that go through HTTP, and cases of its world."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import Case
from clinical_r1.simulator.world import sample_case


@contextmanager
def simulated(folder: Path, *options: str) -> Iterator[EndpointConfig]:
    """The server with the given options, as an endpoint entry."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "clinical_r1.simulator.server", "--ready-file", str(ready), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not ready.is_file():
            assert process.poll() is None, "the simulated endpoint did not start"
            assert time.monotonic() < deadline, "the simulated endpoint is not ready"
            time.sleep(0.05)
        yield EndpointConfig(
            name="simulated",
            base_url=json.loads(ready.read_text())["base_url"],
            model="simulated-clinician",
            trusted=True,
            price_prompt=1.0,
            price_completion=2.0,
            backoff_first=0.02,
            total_timeout=60.0,
        )
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointConfig]:
    """A faultless endpoint that all tests of the session share."""
    with simulated(tmp_path_factory.mktemp("endpoint"), "--seed", "5") as entry:
        yield entry


@pytest.fixture(scope="session")
def world_cases() -> list[Case]:
    """Forty cases, English and Chinese, from twelve patients."""
    rng = random.Random(11)
    cases = []
    for number in range(40):
        drawn = sample_case(rng, "zh" if number % 2 else "en")
        cases.append(
            Case(
                language=drawn.chart.language,
                question=drawn.question,
                reference=drawn.reference,
                icd10=drawn.disease.icd10,
                specialty=drawn.disease.specialty,
                patient=f"patient-{number % 12}",
            )
        )
    return cases


@pytest.fixture(scope="session")
def simulate() -> Callable[..., AbstractContextManager[EndpointConfig]]:
    """`with simulate(folder, "--latency-ms", "40") as entry:` for tests that need an endpoint of their own."""
    return simulated
