"""One right answer, sent by an endpoint in whatever dialect, is the same prediction with the same verdict."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from invented_run import make_cases

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import PREDICTIONS
from clinical_r1.evaluation.run import evaluate
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Prediction, VerdictLabel, read_jsonl, write_jsonl

THOUGHT = "It might be gout, or {reactive} arthritis; the joint and the crystals decide. " * 4
CASES = make_cases(4)
USAGE = {"prompt_tokens": 20, "completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 80}}


class Speaker(BaseHTTPRequestHandler):
    """Answers every question with its reference, in the dialect that the path names."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Speaker.calls.append(body)
        asked = body["messages"][-1]["content"]
        right = next((case.reference for case in CASES if case.question in asked), "pancreas")
        message, finish, usage = speak(self.path.split("/")[1], right, body["max_tokens"])
        if self.path.startswith("/own_drawing") and "temperature" in body:
            return self.reply(400, {"error": {"message": "Unsupported value: 'temperature'. Only the default is"}})
        if self.path.startswith("/misplaced"):
            return self.reply(400, {"error": {"message": "Workspace plan-b has no such deployment"}})
        if finish == "http_400":
            return self.reply(400, {"error": {"message": "content management policy", "code": "content_filter"}})
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        return self.reply(200, {"model": "m", "choices": [choice], "usage": usage})

    def reply(self, status: int, row: dict[str, Any]) -> None:
        data = json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


def speak(dialect: str, answer: str, room: int) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """(message, finish_reason, usage)."""
    texts = {
        "inline": f"<think>\n{THOUGHT}\n</think>\n\n{answer}",
        "thinking": f"<Thinking>{THOUGHT}</Thinking>{answer}",
        "opened": f"{THOUGHT}\n</think>\n\n{answer}",
        "headings": f"## Thinking\n\n{THOUGHT}\n\n## Final Response\n\n{answer}",
        "medgemma": f"<unused94>thought\n{THOUGHT}<unused95>{answer}",
        "harmony": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{answer}",
        "scratchpad": f"<scratchpad>{THOUGHT} {answer}</scratchpad>{answer}",
    }
    if dialect in texts:
        return {"content": texts[dialect]}, "stop", USAGE
    if dialect == "own_drawing":
        return {"content": texts["inline"]}, "stop", USAGE
    if dialect == "field":
        return {"content": answer, "reasoning_content": THOUGHT, "reasoning": THOUGHT}, "stop", USAGE
    if dialect == "parts":
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
            {"type": "text", "text": answer},
        ]
        return {"content": parts}, "stop", USAGE
    if dialect == "hidden":
        return {"content": answer}, "stop", USAGE
    if dialect == "opened_and_cut":  # too little room for anything but a thought that names the answer on its way
        whole = f"{answer}? {texts['opened']}"
        return ({"content": whole}, "stop", USAGE) if room > 1000 else ({"content": whole[:60]}, "length", None)
    if dialect == "filtered":
        return {"content": None}, "content_filter", USAGE
    if dialect == "refused":
        return {"content": None, "refusal": "I can't help with that."}, "stop", USAGE
    return {}, "http_400", None


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Speaker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def answered(base_url, tmp_path):
    """`answered(dialect)` -> metrics, predictions, calls."""

    def run(dialect: str, **settings: Any) -> tuple[dict[str, Any], list[Prediction], int]:
        write_jsonl(tmp_path / "cases.jsonl", CASES)
        Speaker.calls.clear()
        endpoint = EndpointConfig(name=dialect, base_url=f"{base_url}/{dialect}/v1", model="m", trusted=True)
        config = EvaluationConfig(max_new_tokens=64, **settings)
        metrics = evaluate(config, endpoint, tmp_path / "cases.jsonl", tmp_path / "out", tmp_path / "state")
        return metrics, read_jsonl(tmp_path / "out" / PREDICTIONS, Prediction), len(Speaker.calls)

    return run


@pytest.mark.parametrize(
    "dialect", ["inline", "thinking", "opened", "headings", "medgemma", "harmony", "field", "parts", "hidden"]
)
def test_the_same_answer_is_the_same_prediction(answered, dialect):
    metrics, rows, calls = answered(dialect)
    assert metrics["overall"]["accuracy"] == 1.0 and metrics["outcomes"]["ok"] == len(CASES) == calls
    for row, case in zip(rows, CASES, strict=True):
        assert (row.response, row.reasoning_tokens, row.answer_tokens) == (case.reference, 80, 10)
        assert row.thinking == ("" if dialect == "hidden" else THOUGHT.strip())
    name = {"inline": "tags", "thinking": "tags", "medgemma": "gemma", "harmony": "channels", "parts": "field"}
    assert any(f"dialect `{name.get(dialect, dialect)}`" in note for note in metrics["notes"])


def test_an_unknown_form_is_shown_and_not_judged(answered, capsys):
    metrics, rows, _ = answered("scratchpad")
    assert metrics["outcomes"]["unknown_form"] == metrics["overall"]["unscored"] == len(CASES)
    assert all(row.verdict.label is VerdictLabel.INVALID and row.verdict.reason == "unknown_form" for row in rows)
    assert any("form that is not known" in note for note in metrics["notes"])
    assert "unknown_form" in capsys.readouterr().err


def test_a_thought_that_is_cut_is_no_answer_where_the_template_opens_it(answered):
    """Every thought is cut, so no answer of the cases shows the dialect: one probe with room does."""
    metrics, rows, calls = answered("opened_and_cut")
    assert metrics["outcomes"]["unclosed"] == len(CASES) and calls == len(CASES) + 1
    assert metrics["overall"]["accuracy"] == 0.0 and not any(row.response for row in rows)


@pytest.mark.parametrize("dialect", ["filtered", "refused", "azure"])
def test_what_is_refused_is_asked_once_and_is_no_wrong_answer(answered, dialect):
    metrics, rows, calls = answered(dialect)
    assert calls == len(CASES) and all(row.outcome is Outcome.REFUSED for row in rows)
    assert metrics["overall"]["unscored"] == len(CASES)
    assert any("would not answer" in note for note in metrics["notes"])
    assert answered(dialect)[2] == 0, "nor is it asked again by the next run"


def test_a_decoding_that_was_not_used_is_not_recorded(answered):
    assert answered("inline")[0]["decoding"]["temperature"] == 0.0
    metrics, _, _ = answered("own_drawing")
    assert metrics["decoding"] is None and metrics["overall"]["accuracy"] == 1.0
    assert any("does not take the asked decoding (greedy" in note for note in metrics["notes"])


def test_an_endpoint_that_answers_nothing_is_told_in_its_own_words(answered):
    with pytest.raises(UserError, match=r'no call of 4 was answered; most often http_400: "Workspace plan-b has no'):
        answered("misplaced")
