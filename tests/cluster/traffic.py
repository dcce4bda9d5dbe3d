"""Clients of the served model: streamed calls, one after the other in many threads, each one accounted for."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.daemons import PATIENCE
from tests.cluster.model import PROMPT

MODEL = "clinical-r1"
"""What the chart calls the model that it serves."""


@dataclass(frozen=True)
class Call:
    """One streamed call; times are of `time.monotonic`."""

    began: float
    ended: float
    status: int
    """HTTP status; 0 where the connection failed."""
    whole: bool
    """The stream ended with [DONE] and without an error event."""
    thought: str
    """What the model thought."""
    text: str
    """What it answered."""
    problem: str = ""
    """What the server or the connection said where it failed."""


@dataclass
class Clients:
    """Threads that call without pause until they are told to stop."""

    calls: list[Call] = field(default_factory=list)
    """In the order in which they ended."""

    def failed(self) -> list[Call]:
        """Those that were not answered to the end."""
        return [call for call in self.calls if not call.whole]


def stream(host: str, key: str, prompt: str = PROMPT, max_tokens: int = 512, seconds: float = 30) -> Call:
    """One streamed call over a connection of its own."""
    began = time.monotonic()
    status, whole, broken = 0, False, False
    thought, text, problem = "", "", ""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}
    body |= {"max_tokens": max_tokens, "temperature": 0}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection(host, 80, timeout=seconds * PATIENCE)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        status = response.status
        problem = "" if status == 200 else response.read().decode(errors="replace")
        for raw in response:
            line = raw.decode().strip()
            if line.startswith(("event: error", 'data: {"error"')):
                broken, problem = True, line
            whole |= line == "data: [DONE]"
            if line.startswith("data: {"):
                delta = (json.loads(line[6:]).get("choices") or [{}])[0].get("delta", {})
                thought += delta.get("reasoning_content") or ""
                text += delta.get("content") or ""
    except (OSError, http.client.HTTPException) as error:
        whole, problem = False, repr(error)
    finally:
        connection.close()
    return Call(began, time.monotonic(), status, whole and not broken and status == 200, thought, text, problem)


@contextmanager
def clients(call: Callable[[], Call], threads: int) -> Iterator[Clients]:
    """Calls from many threads while the context lasts; those under way are waited for at its end."""
    found, stop, lock = Clients(), threading.Event(), threading.Lock()

    def work() -> None:
        while not stop.is_set():
            result = call()
            with lock:
                found.calls.append(result)
            if not result.whole:
                time.sleep(0.05)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield found
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
