"""The judge of PPO pays for no verdict twice, whatever becomes of the process between."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import VerdictLabel
from clinical_r1.synthesis.forget import forget
from clinical_r1.training.ppo.scoring import JudgeThread
from clinical_r1.verifier.config import JudgeConfig, VerifierConfig
from clinical_r1.verifier.judgement import Judgement


@pytest.fixture
def endpoint():
    """(base URL, list of the calls): says `correct` to everything."""
    calls: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            choice = {"message": {"content": '{"verdict": "correct"}'}, "finish_reason": "stop"}
            body = json.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 1}}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", calls
    server.shutdown()
    thread.join()


def test_a_second_process_asks_the_journal_and_forget_reaches_it(tmp_path, endpoint):
    url, calls = endpoint
    config = JudgeConfig(
        verifier=VerifierConfig(kind="llm"), endpoint=EndpointConfig(name="j", base_url=url, model="m", trusted=True)
    )
    items = [Judgement("What is it?", "gout", f"It is gout, {i}.", "en", subject="patient-1") for i in range(5)]
    for _ in range(2):
        with JudgeThread(config, tmp_path / "calls") as judge:
            verdicts = judge.submit([*items, None]).result()
        assert [verdict.label for verdict in verdicts[:5]] == [VerdictLabel.CORRECT] * 5
        assert len(calls) == 5
    assert forget(["patient-1"], [tmp_path]).journal_lines == 5
