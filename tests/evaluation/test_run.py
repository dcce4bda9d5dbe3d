"""The runner on a tiny random model: counts add up, resumes, and judges as it should."""

import codecs
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from invented_run import make_cases, make_predictions

from clinical_r1.baseline import read_baseline
from clinical_r1.errors import UserError
from clinical_r1.evaluation import answer as answer_module
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import read_cases
from clinical_r1.evaluation.judging.judge import judge_predictions
from clinical_r1.evaluation.run import evaluate
from clinical_r1.folders import identity
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import Prediction, VerdictLabel, read_jsonl, write_jsonl
from clinical_r1.verifier.config import JudgeConfig


@pytest.fixture(scope="module")
def cases_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases") / "test.jsonl"
    write_jsonl(path, make_cases(42))
    return path


@pytest.fixture(scope="module")
def model(cases_file, tmp_path_factory):
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    folder = tmp_path_factory.mktemp("model") / "tiny"
    sizes = TinyModelConfig(hidden_size=32, layers=2, vocab_size=400, window=160, init_std=0.3)
    make_base_model(sizes, [cases_file], folder)
    return folder


def config(**changes) -> EvaluationConfig:
    return EvaluationConfig(**({"max_new_tokens": 12, "batch_rows": 16, "model_name": "tiny"} | changes))


def test_everything_is_written_and_counts_add_up(model, cases_file, tmp_path, capsys):
    metrics = evaluate(config(), model, cases_file, tmp_path / "out", tmp_path / "state")
    assert "judged by rules alone" in (told := capsys.readouterr().err)
    assert "the result is a lower bound" in told
    rows = read_jsonl(tmp_path / "out" / "predictions.jsonl", Prediction)
    assert [row.case_id for row in rows] == [case.id for case in make_cases(42)]
    assert metrics["overall"]["n"] == 42 == sum(metrics["outcomes"].values())
    assert all(row.verdict is not None for row in rows)
    assert read_baseline(tmp_path / "out").n == 42
    assert json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert metrics["overall"]["independent"] is None, "the same judge twice is not an independent one"


def test_resumes_where_it_was_killed(model, cases_file, tmp_path, monkeypatch):
    whole = evaluate(config(temperature=0.9), model, cases_file, tmp_path / "a", tmp_path / "state-a")
    original, calls = answer_module.LocalAnswerer.answer, []

    def dies_in_the_second_batch(self, jobs):
        calls.append(len(jobs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, jobs)

    monkeypatch.setattr(answer_module.LocalAnswerer, "answer", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(temperature=0.9), model, cases_file, tmp_path / "b", tmp_path / "state-b")
    assert not (tmp_path / "b").exists()
    again = evaluate(config(temperature=0.9), model, cases_file, tmp_path / "b", tmp_path / "state-b")
    assert calls == [16, 16, 16, 10], "the first batch is not asked again"
    assert again == whole
    third = evaluate(config(temperature=0.9), model, cases_file, tmp_path / "c", tmp_path / "state-b")
    assert third == whole
    assert len(calls) == 4


def test_samples_do_not_depend_on_the_batch(model, cases_file, tmp_path):
    outputs = []
    for rows in (5, 64):
        out = tmp_path / str(rows)
        evaluate(config(temperature=0.8, samples=2, batch_rows=rows), model, cases_file, out, tmp_path / f"s{rows}")
        outputs.append([row.output for row in read_jsonl(out / "predictions.jsonl", Prediction)])
    assert len(outputs[0]) == 84
    assert outputs[0] == outputs[1]


def test_prompts_beyond_the_window_count_as_wrong(model, cases_file, tmp_path):
    # 20 tokens are left for the prompt: the Chinese ones have 18 or 19, the English ones 29 or 30.
    metrics = evaluate(config(max_new_tokens=140), model, cases_file, tmp_path / "out", tmp_path / "state")
    assert "did not fit the model's window" in metrics["notes"][0]
    assert metrics["overall"]["n"] == 42
    assert metrics["overall"]["unscored"] == 0


def test_a_limit_as_large_as_the_window_leaves_room_for_prompts(model, cases_file, tmp_path):
    metrics = evaluate(config(max_new_tokens=1024), model, cases_file, tmp_path / "out", tmp_path / "state")
    assert metrics["notes"] == []
    assert (answer_module.answer_room(1024, 512), answer_module.answer_room(400, 512)) == (256, 400)


def test_wrong_inputs_are_user_errors(model, cases_file, tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    for bad_model, bad_cases, message in (
        (tmp_path, cases_file, "is no model folder"),
        (model, tmp_path / "empty.jsonl", "no cases in it"),
        (model, tmp_path / "nowhere.jsonl", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(config(), bad_model, bad_cases, tmp_path / "out", tmp_path / "state")
    with pytest.raises(ValueError, match="temperature above 0"):
        EvaluationConfig(samples=4)


def test_a_byte_order_mark_is_no_part_of_the_first_case(cases_file, tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + cases_file.read_bytes())
    assert read_cases(path) == read_cases(cases_file)


def test_an_endpoint_that_answers_nothing_usable_gives_no_figures(cases_file, tmp_path):
    class Proxy(BaseHTTPRequestHandler):
        """Knows the model, and answers questions with a page; `good` of them as an endpoint does."""

        good = 0

        def do_GET(self) -> None:
            self.reply(b'{"data": [{"id": "m"}]}')

        def do_POST(self) -> None:
            answer = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nGout"}
            choice = {"index": 0, "message": answer, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            body = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            Proxy.good -= 1
            self.reply(json.dumps(body).encode() if Proxy.good >= 0 else b"<html>please sign in</html>")

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        endpoint = EndpointConfig(
            name="proxy", base_url=url, model="m", data_region="here", trusted=True, max_retries=0, backoff_first=0.01
        )
        with pytest.raises(UserError, match=r"no call of 42 was answered; most often bad_reply"):
            evaluate(config(), endpoint, cases_file, tmp_path / "out", tmp_path / "state")
        assert not (tmp_path / "out").exists()
        Proxy.good = 1
        evaluate(config(), endpoint, cases_file, tmp_path / "one", tmp_path / "state")
        with pytest.raises(UserError, match=r"no call of 41 was answered"):  # what is known already changes nothing
            evaluate(config(), endpoint, cases_file, tmp_path / "out", tmp_path / "state")
        server.shutdown()
    assert not (tmp_path / "out").exists()


def test_rule_judge_and_missing_answers(tmp_path):
    cases = make_cases(40)
    rows = make_predictions(cases, 0.5, 1)
    rows[3] = rows[3].model_copy(update={"response": ""})
    verdicts = judge_predictions(JudgeConfig(), cases, rows, tmp_path)
    assert verdicts[3].reason == "no_answer"
    for case, row, verdict in zip(cases, rows, verdicts, strict=True):
        assert (verdict.label is VerdictLabel.CORRECT) == (row.response == case.reference)
    assert judge_predictions(JudgeConfig(), cases, rows, tmp_path) == verdicts


def test_more_room_asks_again_only_what_was_cut(model, cases_file, tmp_path, monkeypatch):
    original, asked = answer_module.LocalAnswerer.answer, []
    monkeypatch.setattr(
        answer_module.LocalAnswerer, "answer", lambda self, jobs: asked.append(len(jobs)) or original(self, jobs)
    )

    def rows(tokens: int, state: str) -> list[Prediction]:
        evaluate(config(temperature=1.0, max_new_tokens=tokens), model, cases_file, tmp_path / "out", tmp_path / state)
        return read_jsonl(tmp_path / "out" / "predictions.jsonl", Prediction)

    short = rows(60, "state")
    full = sum(row.reasoning_tokens + row.answer_tokens == 60 for row in short)
    assert 0 < full < 42 and sum(asked) == 42
    longer = rows(75, "state")
    assert full - 3 < sum(asked) - 42 <= full, "an answer of 60 tokens may be whole, too"
    assert longer == rows(75, "fresh")
    del asked[:]
    assert rows(75, "state") == longer and not asked
    assert rows(60, "state") == short, "less room cuts what had more"


def test_another_model_is_another_fingerprint(model, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    assert identity(copy) == identity(model)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert identity(copy) != identity(model)


def test_cases_go_to_no_endpoint_that_may_not_have_them(cases_file, tmp_path):
    outside = EndpointConfig(name="outside", base_url="http://127.0.0.1:9/v1", model="m", data_region="eu")
    judge = JudgeConfig(verifier={"kind": "llm"}, endpoint=outside, crossing={"allow_external": True})
    with pytest.raises(UserError, match="security boundary"):
        evaluate(EvaluationConfig(), outside, cases_file, tmp_path / "out", tmp_path / "state")
    with pytest.raises(UserError, match="PHI gate"):
        evaluate(EvaluationConfig(reward_judge=judge), tmp_path, cases_file, tmp_path / "out", tmp_path / "state")
