"""`helm test`: one streamed answer through the Service, and the metric that counts it. Standard library only.

Metrics before, the call, and metrics after go over one connection, so that all three reach the same pod.
"""

import http.client
import json
import os
import re
import sys
import time


def fail(sentence: str) -> None:
    """One sentence for `helm test --logs`."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)


def answers(connection: http.client.HTTPConnection) -> float:
    """Answers that this pod has counted."""
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        fail(f"/metrics answered {response.status}")
    return sum(float(value) for value in re.findall(r"^clinical_r1_answers_total\{[^}]*\} (\S+)", text, re.M))


def stream(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> int:
    """Ask, read the stream to its end; the number of its pieces."""
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    if response.status == 401:
        response.read()
        fail("the gateway refused the API key; name a Secret with a valid one in serving.gateway.testKeySecret")
    if response.status != 200:
        detail = response.read().decode("utf-8", "replace")
        fail(f"the gateway answered {response.status}: {detail[:300]}")
    pieces, done = 0, False
    for raw in response:
        line = raw.decode("utf-8", "replace").strip()
        if line.startswith("event: error"):
            fail("the stream broke off with an error")
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            pieces += 1
    if not done:
        fail("the stream ended without [DONE]")
    return pieces


def main() -> None:
    """Raises SystemExit with a sentence where something is wrong."""
    timeout = float(os.environ["TIMEOUT_SECONDS"])
    deadline = time.monotonic() + timeout
    host, _, port = os.environ["GATEWAY"].partition(":")
    headers = {"Content-Type": "application/json"}
    if os.environ.get("API_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['API_KEY'].strip()}"
    question = [{"role": "user", "content": os.environ["PROMPT"]}]
    body = {"model": os.environ["MODEL"], "messages": question, "stream": True, "max_tokens": 256}
    connection = http.client.HTTPConnection(host, int(port or 80), timeout=timeout)
    try:
        before = answers(connection)
        pieces = stream(connection, json.dumps(body).encode(), headers)
        after = answers(connection)
        # The count moves when the answer has ended, a moment after its last byte.
        while after <= before and time.monotonic() < deadline:
            time.sleep(0.2)
            after = answers(connection)
    except (OSError, http.client.HTTPException) as problem:
        fail(f"{host}: no answer ({type(problem).__name__}); is the InferenceService ready?")
    if after <= before:
        fail("the stream came, but clinical_r1_answers_total did not move")
    print(f"one streamed answer in {pieces} pieces; clinical_r1_answers_total moved from {before:g} to {after:g}")


if __name__ == "__main__":
    main()
