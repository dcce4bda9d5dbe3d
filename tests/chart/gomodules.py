"""Sources of Go modules and the folder for what is built from them; the standard library is enough to run this."""

import json
import os
import subprocess
import time
from pathlib import Path

CACHE = Path(os.environ.get("CLINICAL_R1_CACHE") or Path.home() / ".cache" / "clinical-r1")
SECONDS = 600


def module(name: str, version: str) -> Path:
    """The sources of a Go module, downloaded where they are missing; three tries. Raises SystemExit."""
    for attempt in range(3):
        command = ["go", "mod", "download", "-json", f"{name}@{version}"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False)
        found = json.loads(done.stdout or "{}")
        if "Dir" in found:
            return Path(found["Dir"])
        time.sleep(2**attempt)
    raise SystemExit(f"error: {name}@{version} cannot be downloaded: {found.get('Error') or done.stderr.strip()}")
