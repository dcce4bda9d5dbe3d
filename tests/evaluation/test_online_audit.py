"""The audit of served answers: joined references, plausibility with its error rates, grounding, retention, no text."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.errors import UserError
from clinical_r1.evaluation.judging import online
from clinical_r1.evaluation.judging.online import OnlineAuditConfig, Share, audit_served
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.stats import wilson

TODAY = datetime.now(UTC).date()
QUESTION = "A 45-year-old woman has fever and cough with rusty sputum."
GROUNDED = "She has fever and cough with rusty sputum, which fits pneumonia."
INVENTED = "She has fever, and she has a rash and jaundice, which fits pneumonia."


class Reviewer(BaseHTTPRequestHandler):
    """Says plausible where the answer names pneumonia, and nothing sensible of an answer `odd`."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"]
        assert "SECRET REFERENCE" not in text
        verdict = "plausible" if "neumonia" in text.split("<answer>")[1] else "implausible"
        content = "?" if "odd" in text.split("<answer>")[1] else json.dumps({"verdict": verdict})
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture()
def reviewer() -> Iterator[dict[str, Any]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Reviewer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield {"name": "reviewer", "base_url": url, "model": "m", "trusted": True, "max_resamples": 0, "max_retries": 0}
    server.shutdown()
    server.server_close()


def sample(
    number: int, response: str, thinking: str = GROUNDED, day: date = TODAY, rate: float = 0.5
) -> dict[str, Any]:
    return {
        "request_id": f"req-{number}",
        "recorded": day.isoformat(),
        "model_version": "v1",
        "language": "en",
        "messages": [{"role": "user", "content": QUESTION}],
        "thinking": thinking,
        "response": response,
        "outcome": "ok",
        "reasoning_tokens": 12,
        "rate": rate,
    }


def store(folder: Path, rows: list[dict[str, Any]], references: dict[str, str], day: date = TODAY) -> None:
    path = folder / "samples" / "v1" / day.isoformat() / "000000-1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "references").mkdir(exist_ok=True)
    lines = [json.dumps({"request_id": key, "reference": value}) for key, value in references.items()]
    (folder / "references" / "day.jsonl").write_text("\n".join(lines))


def test_what_the_rules_leave_undecided_makes_a_lower_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As judged by rules alone; the judge's own reading is tested in its room."""
    labels = iter([VerdictLabel.CORRECT, VerdictLabel.UNDECIDED, VerdictLabel.INCORRECT, VerdictLabel.UNDECIDED])
    verdicts = [Verdict(label=label, judge="rule") for label in labels]
    monkeypatch.setattr(online, "judge_predictions", lambda *_: verdicts)
    store(tmp_path, [sample(n, "Pneumonia.") for n in range(1, 5)], {f"req-{n}": "Pneumonia" for n in range(1, 5)})
    config = OnlineAuditConfig.model_validate({"store": str(tmp_path)})
    row: Any = audit_served(config, tmp_path / "out", tmp_path / "state")["rows"][0]  # type: ignore[index]
    assert row["accuracy"] is None
    assert (row["lower_bound"]["n"], row["lower_bound"]["value"], row["undecided"]) == (4, 0.25, 2)
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "a lower bound, 2 answers undecided by the rules" in page
    assert "下限" in page


def test_every_estimate(tmp_path: Path, reviewer: dict[str, Any]) -> None:
    rows = [
        sample(1, "Pneumonia."),
        sample(2, "Pneumonia.", INVENTED),
        sample(3, "Migraine."),
        sample(4, "Pneumonia."),
        sample(5, "odd"),
    ]
    store(tmp_path, rows, {"req-1": "Pneumonia", "req-2": "Pneumonia", "req-3": "Pneumonia"})
    labelled = tmp_path / "labelled.jsonl"
    graded = [("Pneumonia.", True)] * 40 + [("Pneumonia.", False)] * 10 + [("Migraine.", False)] * 40
    labelled.write_text(
        "".join(
            json.dumps(
                {"question": QUESTION, "reference": "SECRET REFERENCE", "answer": a, "language": "en", "correct": c}
            )
            + "\n"
            for a, c in graded
        )
    )
    config = OnlineAuditConfig.model_validate(
        {"store": str(tmp_path), "plausibility": reviewer, "labelled": str(labelled)}
    )
    out = audit_served(config, tmp_path / "out", tmp_path / "state")
    row: Any = out["rows"][0]  # type: ignore[index]
    assert (out["samples"], out["with_reference"], row["language"]) == (5, 3, "all")
    assert (row["accuracy"]["n"], round(row["accuracy"]["value"], 3)) == (3, 0.667)
    assert (row["plausible"]["n"], row["plausible"]["value"]) == (4, 0.75)
    # Sensitivity 1, specificity 0.8: (0.75 + 0.8 - 1) / 0.8
    assert row["accuracy_estimated"]["value"] == pytest.approx(0.6875)
    assert row["accuracy_estimated"]["low"] < 0.5 < 0.75 < row["accuracy_estimated"]["high"]
    assert (row["ungrounded"]["n"], row["ungrounded"]["value"]) == (5, 0.2)
    assert (row["right_ungrounded"]["n"], row["right_ungrounded"]["value"]) == (2, 0.5)
    assert row["plausible_ungrounded"]["n"] == 3
    page = (tmp_path / "out" / "audit.html").read_text()
    for text in (QUESTION, GROUNDED, "Migraine"):
        assert text not in page + json.dumps(out)


def test_retention_window_and_what_cannot_be_read(tmp_path: Path) -> None:
    old, older = TODAY - timedelta(days=40), TODAY - timedelta(days=100)
    store(tmp_path, [sample(1, "x")], {})
    store(tmp_path, [sample(2, "x", day=old)], {}, old)
    store(tmp_path, [sample(3, "x", day=older)], {}, older)
    with open(next(tmp_path.glob(f"samples/v1/{TODAY}/*")), "a") as handle:
        handle.write('{"torn')
    config = OnlineAuditConfig(store=str(tmp_path), retention_days=90)
    out = audit_served(config, tmp_path / "out", tmp_path / "state")
    assert (out["samples"], out["unreadable"], out["with_reference"]) == (1, 1, 0)
    assert not list(tmp_path.glob(f"samples/v1/{older}/*"))
    assert list(tmp_path.glob(f"samples/v1/{old}/*"))


def test_wrong_input_is_one_sentence(tmp_path: Path, reviewer: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no samples"):
        audit_served(OnlineAuditConfig(store=str(tmp_path)), tmp_path, tmp_path)
    outside = OnlineAuditConfig.model_validate({"store": "x", "plausibility": reviewer | {"trusted": False}})
    with pytest.raises(UserError, match="security boundary"):
        audit_served(outside, tmp_path, tmp_path)
    store(tmp_path, [sample(1, "x")], {})
    (tmp_path / "references" / "day.jsonl").write_text('{"request": 1}')
    with pytest.raises(UserError, match=r"references/day.jsonl:1"):
        audit_served(OnlineAuditConfig(store=str(tmp_path)), tmp_path, tmp_path)


def test_unequal_rates_are_weighted() -> None:
    same = Share.of([True, False, True, True], [2.0] * 4)
    assert (same.value, same.low, same.high) == (0.75, *wilson(3, 4))
    mixed = Share.of([True, False], [1.0, 9.0])
    assert mixed.value == pytest.approx(0.1)
    assert mixed.high - mixed.low > same.high - same.low
    assert (same.effective, mixed.effective) == pytest.approx((4, 100 / 82))
