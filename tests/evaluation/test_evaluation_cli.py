"""The evaluation commands on finished folders: what they write, what they say, how they refuse."""

import csv
import json
from pathlib import Path

import pytest
from invented_run import make_cases, make_predictions
from typer.testing import CliRunner

from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks import find, load_benchmark, recognise
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.grounding import read_chains
from clinical_r1.evaluation.inputs import read_evaluated
from clinical_r1.evaluation.judging.review import ReviewItem, from_csv, to_csv
from clinical_r1.evaluation.promotion.policy import read_policy
from clinical_r1.evaluation.promotion.run import multiple_choice
from clinical_r1.objectstore.manifest import folder_weights
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from pipelines.cli.main import app, main
from pipelines.evaluate_run import read_settings

CASES = make_cases(420)


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def evaluation(folder: Path, name: str, accuracy: float, seed: int, cases: list[Case] = CASES) -> Path:
    folder.mkdir(parents=True)
    config = EvaluationConfig(model_name=name, benchmark=folder.name)
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    write_jsonl(folder / "cases.jsonl", cases)
    write_jsonl(folder / "predictions.jsonl", make_predictions(cases, accuracy, seed, tokens=4))
    return folder


@pytest.fixture
def models(tmp_path):
    return (
        evaluation(tmp_path / "base" / "test", "base", 0.4, 1),
        evaluation(tmp_path / "ours" / "test", "ours", 0.7, 2),
    )


def test_compare_two_folders_and_two_folders_of_folders(models, tmp_path):
    said = command("compare", *models, "--out", tmp_path / "c")
    assert "verdict: gain" in said
    data = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert set(data["by"]) == {"specialty", "language", "icd10_chapter", "sex", "age_band", "site"}
    assert data["credit"]["difference"] > 0
    command("compare", models[0].parent, models[1].parent, "--out", tmp_path / "all")
    assert (tmp_path / "all" / "test" / "comparison.html").is_file()


def test_a_benchmark_filtered_by_a_compared_model_is_biased_and_disables_the_gate(models, tmp_path):
    for folder in models:
        (folder / "benchmark.json").write_text(json.dumps({"filtered_by": "base"}), encoding="utf-8")
    assert "biased comparison" in command("compare", *models, "--out", tmp_path / "c")
    assert "Biased comparison" in (tmp_path / "c" / "comparison.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="biased comparison"):
        command("gate", "decide", models[1], models[0], "--out", tmp_path / "g")


def test_gate_decides_and_a_person_approves(models, tmp_path):
    said = command("gate", "decide", models[1], models[0], "--out", tmp_path / "g", code=3)
    assert "hold" in said and "no forgetting benchmark" in said
    general = make_cases(len(CASES), seed=9)
    probe = [evaluation(tmp_path / name / "medqa", name, 0.6, 3, general) for name in ("ours-2", "base-2")]
    command("gate", "decide", models[1], models[0], "--forgetting", *probe, "--out", tmp_path / "g")
    swapped = [evaluation(tmp_path / name / "medqa", name, 0.6, 3) for name in ("base", "ours")]
    with pytest.raises(UserError, match="candidate's evaluation first"):
        command("gate", "decide", models[1], models[0], "--forgetting", *swapped, "--out", tmp_path / "g")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"gate\.json names no weights"):
        command("gate", "approve", tmp_path / "g", "--by", "Dr. A", "--reason", "seen", "--model", model)
    config = EvaluationConfig(model_name="ours", benchmark="test", weights=folder_weights(model))
    (models[1] / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    command("gate", "decide", models[1], models[0], "--forgetting", *probe, "--out", tmp_path / "g")
    (model / "config.json").write_text('{"hidden_size": 1}')
    with pytest.raises(UserError, match=r"gate\.json is about the weights"):
        command("gate", "approve", tmp_path / "g", "--by", "Dr. A", "--reason", "seen", "--model", model)
    (model / "config.json").write_text("{}")
    command("gate", "approve", tmp_path / "g", "--by", "Dr. A", "--reason", "read 50 answers", "--model", model)
    page = (tmp_path / "g" / "gate.html").read_text(encoding="utf-8")
    assert "read 50 answers" in page and "可以上线" in page and "用途声明" in page
    approved = json.loads((model / "gate.json").read_text(encoding="utf-8"))
    assert (approved["approved_by"], approved["approval_reason"]) == ("Dr. A", "read 50 answers")
    assert (model / "reasoning_baseline.json").is_file()


def test_review_goes_out_and_comes_back_as_labelled_answers(models, tmp_path):
    command("review", "make", *models, "--size", 40, "--out", tmp_path / "r")
    rows = list(csv.reader((tmp_path / "r" / "review.csv").read_text(encoding="utf-8-sig").splitlines()))
    grade = rows[0].index("grade")
    for number, row in enumerate(rows[1:]):
        row[grade] = "correct" if number % 2 else "incorrect"
    for expert in ("li", "smith"):
        with open(tmp_path / f"{expert}.csv", "w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows(rows)
    files = (tmp_path / "li.csv", tmp_path / "smith.csv")
    said = command(
        "review", "import", *files, "--key", tmp_path / "r" / "key.jsonl", "--evaluation", models[0], "--out", tmp_path
    )
    assert "li and smith: 40 items, agree 100%" in said
    assert "verifier" in said
    assert "labelled answers" in command("audit-verifier", tmp_path / "labelled.jsonl", "--out", tmp_path / "a")
    assert (tmp_path / "a" / "audit.html").is_file()


def test_check_reasoning_counts_flags(models, tmp_path):
    assert "0 of 420 thoughts" in command("check-reasoning", models[0], "--out", tmp_path / "flags.jsonl")


def test_build_benchmark_reads_traces_and_reports_contamination(tmp_path):
    write_jsonl(tmp_path / "pool.jsonl", make_cases(700))
    write_jsonl(tmp_path / "training.jsonl", [c.model_copy(update={"id": f"t{c.id}"}) for c in make_cases(700)[:50]])
    said = command(
        "build-benchmark", tmp_path / "pool.jsonl", "--training", tmp_path / "training.jsonl", "--set",
        "per_specialty=20", "--out", tmp_path / "b",
    )  # fmt: skip
    report = json.loads((tmp_path / "b" / "contamination.json").read_text(encoding="utf-8"))
    assert "140 cases of 700 records" in said
    assert len(report["left_out"]) >= 50
    assert report["highest_kept"] < 0.5
    assert len(read_jsonl(tmp_path / "b" / "cases.jsonl", Case)) == 140


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere", "-b", "cases.jsonl"), "no such model folder"),
        (("evaluate", "http://127.0.0.1:1/v1", "-b", "x"), "which model of this endpoint"),
        (("evaluate", ".", "-b", "medqq"), "neither a file nor a known benchmark"),
        (("evaluate", ".", "-b", "medqa", "--data", "/nonexistent"), "--data FOLDER"),
        (("evaluate", ".", "-b", "x", "--set", "sampels=3"), "sampels"),
        (("compare", ".", "."), "no evaluation that both hold"),
        (("build-benchmark", "nowhere.jsonl"), "no such file"),
        (("audit-verifier", "nowhere.jsonl"), "no such file"),
        (("gate", "approve", ".", "--by", "x", "--reason", "y"), "no decision here"),
        (("check-reasoning", "."), "give the folder"),
        (("check-reasoning", "nowhere.json", "--measure"), "no such file"),
        (("check-reasoning", "empty.jsonl", "--measure"), "no accepted chain"),
        (("evaluate", ".", "-b", "empty.jsonl"), "the file is empty"),
        (("review", "import", "nowhere.csv", "--key", "key.jsonl"), "no such file"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=message):
        command(*arguments)


def test_files_are_recognised_by_their_first_row(tmp_path):
    write_jsonl(tmp_path / "own.jsonl", CASES[:2])
    row = {"question": "?", "answer": "a", "options": {"A": "a", "B": "b"}}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "d.json").write_text(
        json.dumps([{"explicit_symptoms": [], "implicit_symptoms": [], "disease": "x"}], indent=1)
    )
    got = [recognise(tmp_path / name) for name in ("own.jsonl", "m.jsonl", "d.json")]
    assert got == ["cases", "medqa", "dxbench"]
    assert [one.name for one in find(f"medqa={tmp_path / 'm.jsonl'}", tmp_path)] == ["m"]
    (tmp_path / "x.txt").write_text("nothing\n")
    with pytest.raises(UserError, match="holds no cases"):
        recognise(tmp_path / "x.txt")


def test_cases_become_choices():
    items = multiple_choice(CASES, seed=3)
    assert all(item.reference in item.options and 2 <= len(item.options) <= 5 for item in items)
    assert all(len(set(item.options)) == len(item.options) for item in items)
    assert {item.options.index(item.reference) for item in items} == {0, 1, 2, 3, 4}
    assert items == multiple_choice(CASES, seed=3)
    rubric = [{"text": "names the joint", "points": 1}]
    graded = [Case.model_validate(case.model_dump() | {"rubric": rubric}) for case in CASES]
    told = graded[0].model_copy(update={"id": "r", "references": []})
    assert multiple_choice([*graded, told], seed=3) == items  # a letter is graded by no rubric


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("predictions.jsonl", b"\xff\xfe chest pain\n", "predictions.jsonl:1: not a Prediction"),
        ("config.json", b"\xff\xfe", "config.json: Invalid JSON"),
        ("benchmark.json", b"[1]", "benchmark.json: no JSON object"),
        ("benchmark.json", b"\xff", "benchmark.json: no JSON object"),
    ],
)
def test_a_broken_file_of_an_evaluation_is_one_sentence(models, name, content, says):
    (models[1] / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as refusal:
        read_evaluated(models[1])
    assert "chest pain" not in str(refusal.value)


def test_predictions_that_do_not_belong_or_occur_twice_are_refused(models):
    path = models[1] / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]), encoding="utf-8")
    with pytest.raises(UserError, match="occur twice"):
        read_evaluated(models[1])
    path.write_text(lines[0].replace(CASES[0].id, "nobody"), encoding="utf-8")
    with pytest.raises(UserError, match="of no case"):
        read_evaluated(models[1])
    path.write_text("".join(lines[1:]), encoding="utf-8")
    with pytest.raises(UserError, match=f"{len(lines) - 1} predictions of {len(lines)} cases"):
        read_evaluated(models[1])


def test_nothing_to_grade_is_said(models, tmp_path):
    (models[1] / "predictions.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="0 predictions of"):
        command("review", "make", models[1], "--out", tmp_path / "review")


@pytest.mark.parametrize(
    "content",
    [
        b'[{"Question": "\xe9"}]',
        b'[{"Question": 1, "Complex_CoT": 2, "Response": 3}]',
        b'[{"Question": "chest pain", "Complex_CoT": null, "Response": "x"}]',
        b"[[1]]",
        b"[" * 100_000,
    ],
)
def test_chains_of_another_form_are_one_sentence(tmp_path, content):
    path = tmp_path / "chains.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"chains.json: not a list of objects"):
        read_chains(path)


@pytest.mark.parametrize(("benchmark", "encoding"), [("cases", "latin-1"), ("cases", "utf-16"), ("cases", "gb18030")])
def test_a_benchmark_in_another_encoding_is_read(tmp_path, benchmark, encoding):
    text = "发热三天，咳嗽" if encoding == "gb18030" else "fièvre"
    line = json.dumps({"id": "a", "question": text, "reference": "x"}, ensure_ascii=False)
    (tmp_path / "other.jsonl").write_bytes(f"{line}\n".encode(encoding))
    assert load_benchmark(benchmark, tmp_path / "other.jsonl")[0].question == text


@pytest.mark.parametrize("benchmark", ["medqa", "dxbench"])
def test_a_benchmark_of_another_form_is_one_sentence_without_its_text(tmp_path, benchmark):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"id": "a", "language": "en", "question": "fièvre", "reference": "x"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.jsonl") as refusal:
        load_benchmark(benchmark, path)
    assert "vre" not in str(refusal.value)


def test_settings_that_are_not_utf8_are_one_sentence(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xe9: 1")
    with pytest.raises(UserError, match=r"settings.yaml:1: not valid YAML"):
        read_settings(EvaluationConfig, path)
    with pytest.raises(UserError, match=r"settings.yaml:1: not valid YAML"):
        read_policy(path)


def test_a_place_that_cannot_be_written_is_one_sentence(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["clinical-r1", "compare", *map(str, models), "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'file'}: ") and said.count("\n") == 1


def test_a_very_long_thought_comes_back_from_the_csv(tmp_path):
    long = ReviewItem(item="r0001", language="en", question="q", reference="r", thinking="x" * 200_000, response="y")
    path = tmp_path / "graded.csv"
    path.write_text(to_csv([long]), encoding="utf-8", newline="")
    assert from_csv(path) == [long]
