"""Evaluations in other tools' forms, read back by those tools where they are installed."""

import json
from pathlib import Path

import pytest
from invented_run import make_cases, make_predictions
from typer.testing import CliRunner

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.measure.metrics import Metrics, measure
from clinical_r1.schema import Prediction, Verdict, VerdictLabel, write_jsonl
from pipelines.cli.main import app
from pipelines.evaluate_run import reported_of

CASES = make_cases(40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return evaluation(tmp_path / "test", make_predictions(CASES, 0.6, 1))


def evaluation(folder: Path, predictions: list[Prediction]) -> Path:
    folder.mkdir()
    config = EvaluationConfig(model_name="ours/7b", benchmark="test")
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    write_jsonl(folder / "cases.jsonl", CASES)
    write_jsonl(folder / "predictions.jsonl", predictions)
    metrics = measure(CASES, predictions, "ours/7b", "test")
    (folder / "metrics.json").write_text(metrics.model_dump_json(), encoding="utf-8")
    return folder


def export(folder: Path, form: str) -> list[Path]:
    done = CliRunner().invoke(app, ["export-evaluation", str(folder), "--as", form, "--out", str(folder.parent / "x")])
    assert done.exit_code == 0, (done.output, done.exception)
    return [Path(line) for line in done.output.splitlines()]


def metrics_of(folder: Path) -> Metrics:
    return Metrics.model_validate_json((folder / "metrics.json").read_bytes())


def test_lm_eval_results_hold_the_figures_and_every_sample(folder: Path):
    results_file, samples_file = export(folder, "lm-eval")
    results = json.loads(results_file.read_text(encoding="utf-8"))
    overall = metrics_of(folder).overall
    assert results["results"]["test"]["accuracy,reward_judge"] == overall.share
    rows = [json.loads(line) for line in samples_file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40 and sum(row["accuracy"] for row in rows) == overall.correct
    assert results_file.parent.name == "ours_7b" and "/" not in samples_file.name
    utils = pytest.importorskip("lm_eval.utils")
    assert "accuracy" in utils.make_table(results)
    assert utils.get_results_filenames([str(results_file), str(samples_file)]) == [str(results_file)]


def test_a_lower_bound_is_exported_under_its_name(tmp_path: Path):
    rows = make_predictions(CASES, 0.6, 1)
    rows[0].verdict = Verdict(label=VerdictLabel.UNDECIDED, judge="rule")
    results = json.loads(export(evaluation(tmp_path / "test", rows), "lm-eval")[0].read_text(encoding="utf-8"))
    assert "lower_bound,reward_judge" in results["results"]["test"]
    assert "accuracy,reward_judge" not in results["results"]["test"]


def test_inspect_reads_the_log(folder: Path):
    log = pytest.importorskip("inspect_ai.log")
    (path,) = export(folder, "inspect")
    read = log.read_eval_log(str(path))
    overall = metrics_of(folder).overall
    assert read.status == "success" and read.eval.model == "ours/7b" and len(read.samples) == 40
    assert read.results.scores[0].metrics["accuracy"].value == overall.share
    assert sum(sample.scores["reward_judge"].value == "C" for sample in read.samples) == overall.correct
    assert read.samples[0].output.choices[0].message.content[0].type == "reasoning"


def test_our_verifier_scores_a_task_of_inspect(tmp_path: Path):
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from clinical_r1.evaluation.exports import clinical_verifier

    said = ["<think>It may be gout.</think>\nFinal diagnosis: pneumonia", "Final diagnosis: gout", "Hard to say.",
            "Final answer: B"]  # fmt: skip
    samples = [Sample(input="Fever, cough, rales.", target="Pneumonia") for _ in said[:3]]
    samples.append(Sample(input="Which is it?", target="B", choices=["Gout", "Pneumonia"]))
    outputs = [ModelOutput.from_content("mockllm/model", text) for text in said]
    for output in outputs:  # else it counts them, with a tokenizer that it would have to fetch
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    task = inspect_ai.Task(dataset=samples, scorer=clinical_verifier())
    model = get_model("mockllm/model", custom_outputs=outputs)
    (done,) = inspect_ai.eval(
        task, model=model, log_dir=str(tmp_path), display="none", max_samples=1, max_connections=1
    )
    assert done.status == "success", done.error
    values = [sample.scores["clinical_verifier"] for sample in done.samples]
    assert [value.value for value in (values[0], values[1], values[3])] == ["C", "I", "C"]
    assert done.results.scores[0].unscored_samples == 1


def test_an_unknown_form_and_a_folder_that_is_none_are_named(folder: Path):
    done = CliRunner().invoke(app, ["export-evaluation", str(folder), "--as", "csv"])
    assert "--as csv: unknown form; use inspect or lm-eval" in str(done.exception)
    done = CliRunner().invoke(app, ["export-evaluation", str(folder.parent), "--as", "lm-eval"])
    assert "no config.json in it" in str(done.exception)


def test_an_audit_corrects_what_evaluations_reported(folder: Path):
    overall = metrics_of(folder).overall
    assert reported_of([folder]) == {"ours/7b, test": (overall.share * overall.effective, overall.effective)}
    (folder / "metrics.json").write_text('{"model": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics\.json: .*run the evaluation again$"):
        reported_of([folder])
    with pytest.raises(UserError, match=r"nowhere: no metrics\.json in it"):
        reported_of([folder / "nowhere"])
