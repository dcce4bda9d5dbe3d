"""An endpoint that will not: the step ends with its words and the setting that mends it, never as done."""

import asyncio
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import Case, write_jsonl
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.run import SynthesisProgress, synthesize

Behave = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Server(ThreadingHTTPServer):
    behave: Behave
    calls: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append(body)
        self.reply(*self.server.behave(body))

    def reply(self, status: int, row: dict[str, Any]) -> None:
        data = json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.calls = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def run(server: Server, cases: list[Case], tmp_path: Path, **settings: Any) -> Any:
    write_jsonl(tmp_path / "cases.jsonl", cases)
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    entry = EndpointConfig(name="teacher", base_url=url, model="m", trusted=True, backoff_first=0.01)
    config = SynthesisConfig.model_validate({"synthesizer": entry, "verifier": {"kind": "rule"}, **settings})
    return synthesize(config, tmp_path / "cases.jsonl", tmp_path / "out", tmp_path / "state")


def reply(content: str | None, finish: str = "stop") -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    return 200, {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}


def test_a_run_in_which_all_is_refused_does_not_end_well(server, world_cases, tmp_path) -> None:
    server.behave = lambda body: reply(None, "content_filter")
    with pytest.raises(UserError, match=r"0 traces, 8 rejected \(100%\): call_failed:content_filter"):
        run(server, world_cases[:8], tmp_path)
    assert len(server.calls) == 8, "a refusal is asked once"
    assert (tmp_path / "out" / "rejected.jsonl").is_file(), "the reasons are there to be read"


def test_the_endpoints_words_reach_the_user(server, world_cases, tmp_path) -> None:
    words = "Your organisation must be verified to use this model"
    server.behave = lambda body: (400, {"error": {"message": words}})
    with pytest.raises(UserError, match=words):
        run(server, world_cases[:4], tmp_path)


def test_too_many_rejects_are_an_error_that_can_be_waved_through(server, world_cases, tmp_path) -> None:
    good = {case.question: case.reference for case in world_cases[:1]}

    def behave(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        right = next((answer for question, answer in good.items() if question in body["messages"][1]["content"]), "")
        thought = f"The findings speak for {right}. So it is {right}."
        row = {"reasoning": thought, "answer": right or "unclear", "thinking": thought, "response": right or "unclear"}
        return reply(json.dumps(row))

    server.behave = behave
    with pytest.raises(UserError, match=r"rejected \((8[0-9]|9[0-9])%\).*max_rejected_share"):
        run(server, world_cases[:7], tmp_path, filters={"ungrounded_numbers": False})
    report = run(server, world_cases[:7], tmp_path, filters={"ungrounded_numbers": False}, max_rejected_share=1.0)
    assert report.traces == 1


async def test_a_slow_model_shows_its_calls_before_the_first_trace(monkeypatch) -> None:
    monkeypatch.setattr("clinical_r1.synthesis.run.SynthesisProgress.first", 0.02)
    client = LLMClient(EndpointConfig(name="slow", base_url="http://127.0.0.1:9/v1", model="m"))
    client.statistics.attempts = 3
    client.statistics.retries["truncated"] = 2
    out = io.StringIO()
    with redirect_stderr(out), SynthesisProgress(10, [client]) as progress:
        ticking = asyncio.create_task(progress.tick())
        async with asyncio.timeout(120):
            while "asked again" not in (shown := out.getvalue()):
                await asyncio.sleep(0.01)
        ticking.cancel()
    assert "0/10, no trace yet: 3 calls" in shown and "asked again: 2 truncated" in shown
