"""Rendering the chart with the real helm, from the cache that `make lint-chart` fills."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import APIS, CHART, ChartError, Render, Rendered

from tests.chart.gomodules import CACHE


@pytest.fixture(scope="session")
def helm() -> Path:
    """The newest helm of the cache; without one the chart's tests are skipped, visibly."""
    found = sorted(CACHE.glob("chart-tools-*/helm"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("helm is not in the cache; `make lint-chart` builds it")
    return found[-1]


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """render("laptop", "key=value", ..., apis=...) -> Rendered; raises ChartError."""
    made: dict[tuple[Any, ...], Rendered] = {}

    def run(example: str | None, *sets: str, apis: tuple[str, ...] = APIS, release: str = "r1") -> Rendered:
        key = (example, sets, apis, release)
        if key not in made:
            command = [str(helm), "template", release, str(CHART), "--namespace", "clinic"]
            command += ["--values", str(CHART / "examples" / f"{example}.yaml")] if example else []
            command += [part for value in sets for part in ("--set-json" if "={" in value else "--set", value)]
            command += [part for api in apis for part in ("--api-versions", api)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode:
                raise ChartError(re.sub(r"(?m)^walk\.go.*\n", "", done.stderr))
            made[key] = Rendered(done.stdout)
        return made[key]

    return run
