"""The chart, installed by the real helm."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.daemons import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "clinical-r1"


class HelmError(Exception):
    """helm refused or failed; the text is what it printed."""


@dataclass(frozen=True)
class Helm:
    """One release in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str
    release: str = "r1"

    def __call__(self, *words: str, seconds: int = 300) -> str:
        """Runs helm; its output. Raises HelmError."""
        seconds = int(seconds * PATIENCE)
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HELM_CACHE_HOME": tempfile.gettempdir()}
        command = [str(self.program), "--namespace", self.namespace, *words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=seconds + 30
        )
        if done.returncode:
            raise HelmError(f"{done.stderr.strip()}\n{done.stdout.strip()}".strip())
        return done.stdout

    def install(self, values: dict[str, Any], wait: bool = False, seconds: int = 300) -> float:
        """Install, or upgrade what is installed; returns how long it took, in seconds."""
        began = time.monotonic()
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            waiting = ["--wait", "--timeout", f"{seconds * PATIENCE:.0f}s"] if wait else ["--no-hooks"]
            self("upgrade", "--install", self.release, str(CHART), "--values", file.name, *waiting, seconds=seconds)
        return time.monotonic() - began

    def template(self, values: dict[str, Any]) -> str:
        """What the chart renders to with these values, without the cluster."""
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            return self("template", self.release, str(CHART), "--values", file.name)


def find_helm() -> Path:
    """helm, built from its Go module where it is missing. Raises RuntimeError with the reason."""
    script = ROOT / "tests" / "chart" / "tools.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return Path(done.stdout.strip().splitlines()[-1]) / "helm"
