"""Waits until the engine is idle: python drain.py SETTLE DRAIN, in seconds. Run before the engine is told to stop.

The gateway still takes requests for SETTLE seconds and then lets the running ones end within DRAIN; Kubernetes tells
both containers to stop at the same moment. Reads the engine's gauges (vLLM's, or our CPU engine's).
"""

import re
import sys
import time
import urllib.request

GAUGES = re.compile(
    r"^(?:vllm:num_requests_(?:running|waiting)|clinical_r1_engine_(?:running|waiting))(?:\{[^}]*\})? (\S+)", re.M
)
METRICS = "http://127.0.0.1:8000/metrics"
ANSWER_SECONDS = 2.0


def busy(url: str) -> bool:
    """Does the engine work on something? One that is gone does not; one too busy to say so in time does."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as response:
            text = response.read().decode("utf-8", "replace")
    except OSError as problem:
        return isinstance(getattr(problem, "reason", problem), TimeoutError)
    return any(float(value) > 0 for value in GAUGES.findall(text))


def main(settle: float, drain: float, url: str = METRICS) -> None:
    """Return when the engine is idle, at the latest after SETTLE + DRAIN."""
    deadline = time.monotonic() + settle + drain
    time.sleep(settle + 0.5)
    quiet = 0
    # Twice in a row: a request may lie between the gateway and the engine's queue.
    while quiet < 2 and time.monotonic() < deadline:
        quiet = 0 if busy(url) else quiet + 1
        time.sleep(0.5)


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
