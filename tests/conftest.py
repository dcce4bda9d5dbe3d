"""Fixtures of all tests."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = Callable[[dict[str, Any]], str]
"""The text that answers a request's body."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A real model's minutes come first, so that other workers take the rest meanwhile and none is left with them."""
    items.sort(key=lambda item: item.path.name != "test_smollm2.py")


@pytest.fixture
def scripted() -> Iterator[Callable[[Reply], str]]:
    """Starts OpenAI-compatible endpoints whose replies a function makes of the request; returns their URLs."""
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Reply) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send({"data": [{"id": "m"}]})

            def do_POST(self) -> None:
                text = reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                message = {"role": "assistant", "content": text}
                self.send({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

            def send(self, row: dict[str, Any]) -> None:
                data = json.dumps(row).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
