"""Accuracy against the thinking budget: planted effects are found, cuts are where they were asked for."""

import json
from types import SimpleNamespace

import pytest
from invented_run import make_cases, write_run

from clinical_r1.baseline import read_baseline
from clinical_r1.evaluation import answer as answer_module
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.pages.report import ReportInputs, write_report
from clinical_r1.evaluation.run import evaluate
from clinical_r1.evaluation.thinking import Curve, budgets_of
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Prediction, read_jsonl, write_jsonl

CASES = make_cases(70)


@pytest.fixture(scope="module")
def cases_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases") / "test.jsonl"
    write_jsonl(path, CASES)
    return path


@pytest.fixture(scope="module")
def model(cases_file, tmp_path_factory):
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_base_model(TinyModelConfig(hidden_size=32, layers=2, vocab_size=400, window=400), [cases_file], folder)
    return folder


class Planted:
    """A decoder whose answer is right if `rule(thought)` says so; thoughts have 20 to 40 words, then an answer."""

    window = 2000

    def __init__(self, tokenizer, rule):
        self.tokenizer, self.rule, self.prompts = tokenizer, rule, []

    def generate(self, prompts, params, seeds=None):
        rollouts = []
        for prompt in prompts:
            text = self.tokenizer.decode(prompt)
            self.prompts.append(text)
            case = next(case for case in CASES if case.prompt in text)
            _, opened, thought = text.rpartition("<think>")
            begun = bool(opened) and "</think>" in thought
            number = CASES.index(case)
            if not begun:
                thought = "\n" + "so " * (20 + number % 20) + "\n</think>\n\n"
            right = self.rule(thought.split("</think>")[0].count("so"), number)
            answer = f"Final diagnosis: {case.reference}" if right else ""  # nothing said is wrong without a judge
            said = answer if begun else "<think>" + thought + answer
            rollouts.append(SimpleNamespace(token_ids=self.tokenizer(said)["input_ids"], finished=True))
        return rollouts


def run(monkeypatch, tmp_path, model, cases_file, rule, **changes):
    from transformers import AutoTokenizer

    made = []

    def load(self, config, folder):
        from clinical_r1.generation.chat import CompletionReader

        self.config, self.tokenizer, self.ends = config, AutoTokenizer.from_pretrained(folder), (0,)
        self.decoder = Planted(self.tokenizer, rule)
        self.completions = CompletionReader(self.tokenizer, "planted", "think")
        made.append(self.decoder)

    monkeypatch.setattr(answer_module.LocalAnswerer, "__init__", load)
    config = EvaluationConfig(**({"max_new_tokens": 500, "model_name": "planted"} | changes))
    evaluate(config, model, cases_file, tmp_path / "out", tmp_path / "state")
    return made


def curve_of(tmp_path) -> Curve:
    return Curve.model_validate_json((tmp_path / "out" / "thinking.json").read_text(encoding="utf-8"))


def test_a_planted_gain_of_thought_is_shown_with_its_interval(monkeypatch, tmp_path, model, cases_file):
    made = run(monkeypatch, tmp_path, model, cases_file, lambda words, number: words >= 18 or number % 10 == 0)
    curve = curve_of(tmp_path)
    assert curve.claim == "shown" and curve.half.low > 0
    assert curve.points[-1].budget is None and curve.points[-1].overall.accuracy == 1.0
    assert curve.points[0].budget == 0 and curve.points[0].overall.accuracy == pytest.approx(0.1)
    assert [point.cut for point in curve.points] == sorted((point.cut for point in curve.points), reverse=True)
    assert set(curve.points[0].by["language"]) == {"en", "zh"} and len(curve.points[0].by["specialty"]) == 7
    assert curve.recommended is None or curve.recommended > curve.median / 2
    assert read_baseline(tmp_path / "out").thinking_budget == curve.recommended
    # Each continued prompt is a question, a thought of at most the budget, and the mark that closes it.
    tokenizer, cut = made[-1].tokenizer, [text for text in made[-1].prompts if "</think>" in text]
    assert cut and all(text.endswith("</think>\n\n") for text in cut)
    lengths = [len(tokenizer(text.rpartition("<think>")[2].partition("</think>")[0])["input_ids"]) for text in cut]
    assert max(lengths) <= max(point.budget for point in curve.points[:-1]) + 1
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "Thinking against accuracy" in page and "论文称推理越长" in page and ": shown." in page


@pytest.mark.parametrize(
    ("rule", "claim"),
    [(lambda words, number: number % 2 == 0, "not shown"), (lambda words, number: words < 18, "reversed")],
)
def test_none_and_the_opposite_are_told_apart(monkeypatch, tmp_path, model, cases_file, rule, claim):
    run(monkeypatch, tmp_path, model, cases_file, rule)
    curve = curve_of(tmp_path)
    assert curve.claim == claim
    assert f": {claim}.</p>" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")


def test_a_budget_that_changes_nothing_is_recommended_where_enough_cases_show_it(monkeypatch, tmp_path, model):
    many = make_cases(400)
    monkeypatch.setattr(f"{__name__}.CASES", many)
    path = tmp_path / "many.jsonl"
    write_jsonl(path, many)
    run(monkeypatch, tmp_path, model, path, lambda words, number: True, budget_cases=300)
    curve = curve_of(tmp_path)
    assert (curve.recommended, curve.cases, curve.claim) == (0, 300, "not shown")
    assert curve.summary()["recommended_budget"] == 0


def test_nothing_is_done_twice_and_nothing_else_changes(monkeypatch, tmp_path, model, cases_file):
    run(monkeypatch, tmp_path, model, cases_file, lambda words, number: words > 9)
    first = curve_of(tmp_path)
    assert run(monkeypatch, tmp_path, model, cases_file, lambda words, number: False) == []
    assert curve_of(tmp_path) == first
    rows = read_jsonl(tmp_path / "out" / "predictions.jsonl", Prediction)
    assert {row.outcome for row in rows} <= {Outcome.OK, Outcome.NO_ANSWER} and {row.sample for row in rows} == {0}


def test_no_curve_where_it_is_off_or_nobody_thinks(monkeypatch, tmp_path, model, cases_file):
    run(monkeypatch, tmp_path, model, cases_file, lambda words, number: True, budget_cases=0)
    assert not (tmp_path / "out" / "thinking.json").exists()
    assert read_baseline(tmp_path / "out").thinking_budget is None


def test_the_report_of_a_run_shows_it(monkeypatch, tmp_path, model, cases_file):
    run(monkeypatch, tmp_path, model, cases_file, lambda words, number: words >= 18)
    rows = read_jsonl(tmp_path / "out" / "predictions.jsonl", Prediction)
    folders = write_run(tmp_path / "run", CASES, rows, rows)
    curve = (tmp_path / "out" / "thinking.json").read_text(encoding="utf-8")
    (folders["ppo_predictions"] / "thinking.json").write_text(curve, encoding="utf-8")
    summary = write_report(ReportInputs(**folders), tmp_path / "report")
    told = summary["thinking"]["SFT + PPO"]
    assert told["claim"] == "shown" and set(told["budgets"][0]["language"]) == {"en", "zh"}
    assert len(told["budgets"][0]["specialty"]) == 7 and told["low"] > 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") > 4 and "Thinking against accuracy" in page and "得到证实" in page


def test_budgets_are_quantiles_and_half_of_the_median():
    assert budgets_of(list(range(1, 101))) == [0, 25, 50, 75, 90, 98]
    assert budgets_of([30] * 50) == [0, 15]
    assert json.dumps(budgets_of([10, 400]))
